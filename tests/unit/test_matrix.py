# SPDX-License-Identifier: MIT
"""The matrix and the mutants: what is expected, what goes on after an interruption, what counts."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest
from l2gate.contract.judge import Verdict
from l2gate.contract.table import QUIRKS, load
from l2gate.foundation import debian
from l2gate.foundation.errors import KernelSpecError
from l2gate.images import build
from l2gate.kernels.patch import Patch
from l2gate.kernels.spec import parse, recipes
from l2gate.matrix.cells import Cell, all_kernels, cells
from l2gate.matrix.matrix import Found, exit_code, mean_seconds, read_run
from l2gate.matrix.mutant import Mutant, all_mutants, read
from l2gate.matrix.mutants import MutantOutcome as Outcome
from l2gate.matrix.mutants import judge
from l2gate.matrix.observe import Observation
from l2gate.matrix.schedule import Schedule, Work, longest_first, remaining
from l2gate.matrix.state import State
from l2gate.matrix.worker import MutantAnswer
from l2gate.plugins.known import known_tests
from l2gate.report.page import Page, PageRow, write_page
from l2gate.report.provenance import here, version_line
from l2gate.report.result import TestResult
from making import result, vcpu

AMD = "emulated-amd"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("L2GATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("L2GATE_STATE", str(tmp_path / "state"))


# --- kernels --------------------------------------------------------------------------------------


def test_each_series_has_its_pair_and_says_what_it_proves() -> None:
    assert len(all_kernels()) == 3 * len(debian.SUITES)
    for suite in debian.SUITES:
        parse(f"debian:{suite.series}+patched")
        for name in ("era", "commit"):
            assert "Proves: " in Patch(recipes(suite.series) / f"{name}.patch").header


def test_only_the_guests_suite_is_fetched_for_everybody() -> None:
    assert [suite for suite in debian.SUITES if suite.guests] == [build.GUEST_SUITE]
    for suite in debian.SUITES[1:]:
        assert not {"qemu-system-x86", "bochs"} & set(suite.packages)
        with pytest.raises(Exception, match="has not been fetched") as missing:
            debian.find(suite)
        assert f"l2gate images {suite.series}" in str(missing.value)


# --- cells ----------------------------------------------------------------------------------------


def test_a_kernel_that_breaks_the_promise_must_be_red() -> None:
    expected = {cell.kernel: cell.expected for cell in cells(all_kernels(), [AMD])}
    assert expected["debian:5.10"] == expected["debian:5.10+patched"] == Verdict.PASS
    assert expected["debian:5.10+unpatched"] == Verdict.FAIL


def found(kernel: str, verdict: Verdict) -> Found:
    (cell,) = cells([kernel], [AMD])
    return Found(cell, verdict, "why", 1.0, None)


def test_a_green_cell_that_must_be_red_outweighs_a_bench_that_broke() -> None:
    good = found("debian:6.1+unpatched", Verdict.FAIL)
    broke = found("debian:6.1", Verdict.INFRA_ERROR)
    green = found("debian:6.1+unpatched", Verdict.PASS)
    assert exit_code([good]) == 0
    assert exit_code([good, broke]) == 2
    assert exit_code([good, broke, green]) == 1


def test_a_run_without_a_result_is_an_infra_error_that_quotes_it(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    log.write_text("it started\nno room left\n")
    cell = Cell("debian:6.1", AMD, Verdict.PASS, "")
    one = read_run(cell, tmp_path / "none.json", log, -9, 3.0)
    assert one.verdict is Verdict.INFRA_ERROR
    assert "ended with -9" in one.reason and "no room left" in one.reason


def test_a_cell_that_must_be_red_is_not_so_by_half_of_its_tests(tmp_path: Path) -> None:
    target = tmp_path / "run.json"
    tests = [TestResult("a", Verdict.FAIL, "as it must")]
    cell = Cell("debian:6.1+unpatched", AMD, Verdict.FAIL, "")

    def verdict() -> Verdict:
        result("fail", tests=tuple(tests)).write(target)
        return read_run(cell, target, tmp_path / "run.log", 1, 3.0).verdict

    assert verdict() is Verdict.FAIL
    tests.append(TestResult("b", Verdict.INFRA_ERROR, "no module named table"))
    assert verdict() is Verdict.INFRA_ERROR


def test_where_the_seconds_go_is_the_mean_of_each_phase() -> None:
    assert mean_seconds([{"host": 4.0, "l1": 8.0}, {"host": 6.0}]) == "host 5.0, l1 4.0"


# --- going on -------------------------------------------------------------------------------------


def test_an_interrupted_one_goes_on_and_a_finished_one_begins_anew() -> None:
    State("matrix", "key").save("cell", {"verdict": "pass"})
    again = State("matrix", "key")
    assert again.load("cell") == {"verdict": "pass"}
    assert State("matrix", "other").load("cell") is None
    again.finish()
    assert State("matrix", "key").load("cell") is None


def work(name: str, guess: float, code: str, folder: Path) -> Work:
    return Work(name, [sys.executable, "-c", code], folder / f"{name}.log", guess, 60)


def test_the_longest_comes_first_and_no_more_run_than_may(tmp_path: Path) -> None:
    works = [work("short", 1, "", tmp_path), work("long", 9, "", tmp_path)]
    assert [one.name for one in longest_first(works)] == ["long", "short"]
    begun: list[str] = []
    ended: list[tuple[str, int]] = []

    def end(one: Work, status: int, _: float) -> None:
        ended.append((one.name, status))
        assert len(begun) == len(ended)

    Schedule(1, end, lambda one: begun.append(one.name)).run(works)
    assert ended == [("long", 0), ("short", 0)]


def test_what_takes_too_long_is_ended(tmp_path: Path) -> None:
    slow = Work("slow", [sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "l", 1, 0)
    ended: list[int] = []
    Schedule(1, lambda _, status, __: ended.append(status), lambda _: None).run([slow])
    assert ended == [-15]


def test_what_remains_is_told_for_all_cores() -> None:
    assert remaining([10], [10, 10], 1) == 30
    assert remaining([10, 10], [10, 10], 2) == 20
    assert remaining([], [], 2) == 0


# --- mutants --------------------------------------------------------------------------------------


def test_every_mutant_says_what_is_broken_and_which_test_must_catch_it() -> None:
    mutants, tests = all_mutants(), known_tests()
    broken = [mutant for mutant in mutants if mutant.broken]
    assert len(broken) >= 20 and len(mutants) - len(broken) >= 4
    for mutant in mutants:
        assert mutant.about
        parse(mutant.spec)
    for mutant in broken:
        contract = "refuse" if "+unpatched" in mutant.base else "payload"
        assert tests[mutant.test].contract in (contract, "either"), mutant.name


def test_a_header_that_does_not_say_enough_is_refused(tmp_path: Path) -> None:
    patch = tmp_path / "odd.patch"
    patch.write_text("Breaks: it\nOn top of: +unpatched\n\n--- a/arch/x86/kvm/x86.c\n")
    with pytest.raises(KernelSpecError, match="Caught by"):
        read(patch)


MUTANT = Mutant(Path("m.patch"), "it", "debian:6.12", "A.test_a", "errno seen EBUSY")


def answer(verdict: str, *reasons: str, test: str = "A.test_a", own: str = "",
           complaint: str = "") -> MutantAnswer:  # fmt: skip
    """``own`` is the verdict of the mutant's own test, if it is another than the job's."""
    cases = [vcpu(verdict="fail", test=test, reason=reason) for reason in reasons]
    tests = (TestResult("A.test_a", Verdict(own or verdict), ""),)
    return MutantAnswer("m", result(verdict, *cases, tests=tests), {}, "", complaint)


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        (answer("fail", "errno seen EBUSY, errno wanted EINVAL"), Outcome.CAUGHT),
        (answer("fail", "L2 does not go on afterwards"), Outcome.WRONG_REASON),
        (answer("fail", "errno seen EBUSY", test="B.test_b"), Outcome.WRONG_REASON),
        (answer("pass"), Outcome.SURVIVED),
        (answer("inconclusive"), Outcome.INFRA_ERROR),
        (MutantAnswer("m", None, {}, "no host"), Outcome.INFRA_ERROR),
    ],
)
def test_only_the_right_test_with_the_right_words_catches(
    given: MutantAnswer, outcome: Outcome
) -> None:
    assert judge(MUTANT, given).outcome is outcome


def test_one_test_that_lets_it_pass_is_a_survivor_though_its_controls_are_elsewhere() -> None:
    assert judge(MUTANT, answer("inconclusive", own="pass")).outcome is Outcome.SURVIVED


def test_what_keeps_the_promise_in_another_way_must_pass() -> None:
    other = Mutant(Path("o.patch"), "it", "debian:6.12")
    assert judge(other, answer("pass")).outcome is Outcome.KEPT
    assert judge(other, answer("fail", "why")).outcome is Outcome.FALSE_ALARM
    assert judge(other, answer("pass", complaint="WARNING")).outcome is Outcome.FALSE_ALARM


# --- observations ---------------------------------------------------------------------------------


def test_each_observation_is_recorded_for_each_series_and_promises_nothing() -> None:
    table = load("quirks", QUIRKS)
    assert {case.contract for case in table.cases} == {"none"}
    names = {case.name for case in table.cases}
    for name in names:
        recorded = {case.seen for case in table.cases if case.name == name}
        assert recorded == {suite.series for suite in debian.SUITES}, name


def test_an_observation_warns_only_where_something_is_recorded() -> None:
    seen = {"who": "exit", "l0": "well"}
    assert Observation("a", "", seen, {"who": "exit"}, "").state == "as recorded"
    assert Observation("a", "", seen, {"who": "nobody"}, "").state == "DIFFERS"
    assert Observation("a", "", seen, {}, "").state == "not recorded"


# --- the page -------------------------------------------------------------------------------------


def test_the_page_holds_everything_itself(tmp_path: Path) -> None:
    test = known_tests()["RefusedWhileL2IsActive.test_every_exception"]
    proof = msgspec.structs.replace(vcpu().proof, how="<KVM_GET_NESTED_STATE>")
    cases = [
        vcpu(test=test.sentence, verdict=verdict, error_code=0, proof=proof,
             reason="errno seen none", expected_errno="EINVAL")
        for verdict in ("pass", "fail")
    ]  # fmt: skip
    told = TestResult(test.sentence, Verdict.FAIL, "why", test.about.place)
    kernel = "debian:6.12+unpatched"
    row = PageRow(kernel, AMD, "fail", "fail", True, "as it must", 3.0,
              {"host": AMD, "kernel": kernel}, result("fail", *cases, tests=(told,)))  # fmt: skip
    target = tmp_path / "page.html"
    write_page(Page("Kernel matrix", "1 cell", [row], here()), target)
    text = target.read_text()
    assert "http" not in text and "<script" not in text and 'name="viewport"' in text
    assert "&lt;KVM_GET_NESTED_STATE&gt;" in text and "0xd15000" in text
    assert "1 of 2 pass" in text and "#GP" in text
    assert f"l2gate run --host {AMD} --kernel {kernel}" in text
    assert "--case &#39;path=vcpu-events vector=13 active=L2&#39; " in text
    assert version_line() in text
    assert "tests/injection/refused_while_l2_active.py:RefusedWhileL2IsActive" in text
