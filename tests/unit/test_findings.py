# SPDX-License-Identifier: MIT
"""The report of a red run: each failure once, worst first, with a line that asks just that."""

from __future__ import annotations

import io
import shlex
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from l2gate.cli import _parser
from l2gate.contract.case_result import VcpuCase
from l2gate.contract.choice import is_control, parse, refuse_impossible, words_of
from l2gate.contract.judge import THEN, Verdict
from l2gate.hosts import kinds
from l2gate.plugins.known import references
from l2gate.report import result as results
from l2gate.report.findings import Finding, findings
from l2gate.report.result import Broke, Result
from l2gate.report.terminal import show
from l2gate.verbs.verb import wanted
from making import result as made
from recording import recorded, result_of
from rich.console import Console

EVERY = "RefusedWhileL2IsActive.test_every_exception"
SIGNALS = "AcceptedWhileL1IsActive.test_delivered_as_a_signal"


@pytest.fixture
def red() -> dict[str, Any]:
    return recorded("unpatched-on-amd")


def told(finding: Finding) -> dict[str, str]:
    return dict(finding.lines)


def shown(result: Result) -> str:
    console = Console(file=io.StringIO(), width=80, highlight=False)
    show(console, result)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(text, str)
    return text


def test_every_failing_case_is_in_one_failure_and_each_is_told_in_five_lines(
    red: dict[str, Any],
) -> None:
    found = findings(result_of(red))
    assert [told(one)["seen"] for one in found] == [
        "accepted", "CR2 0x1234000", "DR6 0xffff4ff0", "L2's own handler gets it",
        "accepted while L2 is active: L2 had it as its own",
    ]  # fmt: skip
    assert all([what for what, _ in one.lines] == list(FIVE) for one in found)
    assert all("\n" not in text for one in found for _, text in one.lines)
    failing = sum(case["verdict"] == "fail" for case in red["cases"])
    counted = [int(told(one)["asked"].partition("; ")[2].split()[0]) for one in found]
    assert sum(counted) == failing


FIVE = ("asked", "wanted", "seen", "proof", "again")


def test_a_failure_names_all_its_vectors_and_the_sentence_that_was_asked(
    red: dict[str, Any],
) -> None:
    some = next(c for c in red["cases"] if c["test"] == EVERY and c["verdict"] == "fail")
    red["cases"] = [{**some, "vector": vector} for vector in range(32) if vector != 2]
    (only,) = [one for one in findings(result_of(red)) if "seen" in told(one)]
    asked = told(only)["asked"]
    assert "31 vectors (0-1, 3-31)" in asked and "31 cases" in asked
    assert EVERY in asked and "Freeze L2, inject, see it refused" in asked


def test_refused_yet_changed_is_one_failure_whatever_has_changed(red: dict[str, Any]) -> None:
    some = next(c for c in red["cases"] if c["test"] == EVERY and c["verdict"] == "fail")
    refused = {**some, "expected_errno": "EINVAL", "seen_errno": "EINVAL"}
    tabled = next(c for c in red["cases"] if "table" in c and c["active_level"] == "L2")
    red["cases"] = [
        {**refused, "reason": "refused, yet it changed events.nr"},
        {**refused, "reason": "refused, yet it changed events.nr, cr2"},
        {**tabled, "expected_errno": "EINVAL", "seen_errno": "EINVAL", "verdict": "fail",
         "reason": "unchanged seen no, unchanged wanted yes"},
    ]  # fmt: skip
    (only,) = findings(replace(result_of(red), tests=[]))
    assert told(only)["seen"] == "refused, yet the vCPU's state changed"


def test_proof_tells_by_what_l2_was_known_and_what_has_changed(red: dict[str, Any]) -> None:
    proof = told(findings(result_of(red))[0])["proof"]
    for words in ("KVM_GET_NESTED_STATE (SVM)", "CR3 0xd15000", "RIP 0x", "events.exception"):
        assert words in proof


def test_each_line_asks_its_failure_with_the_controls_and_no_other(red: dict[str, Any]) -> None:
    result = result_of(red)
    places = {test.place.rpartition(":")[2] for test in result.tests}
    for finding in findings(result):
        words = shlex.split(told(finding)["again"])
        assert words[1:6] == [
            "run", "--host", "emulated-amd", "--kernel", "debian:6.12+unpatched",
        ]  # fmt: skip
        choice = parse(words[words.index("--case") + 1])
        asked = {one.rpartition(":")[2] for one in words[words.index("--case") + 2 :]}
        assert asked and asked <= places
        mine = [c for c in result.cases if c.test in asked and choice.asks(words_of(c))]
        failing = [case for case in mine if case.verdict is Verdict.FAIL]
        seen = {case.reason for case in failing}
        assert len(seen) == 1, seen
        for case in (c for c in failing if isinstance(c, VcpuCase)):
            controls = [c for c in mine if is_control(words_of(c), words_of(case))]
            assert {c.active_level for c in controls} >= {"L1"}
            assert all(c.verdict is Verdict.PASS for c in controls)


def test_l2gate_takes_each_line_and_boots_the_same(red: dict[str, Any]) -> None:
    for finding in findings(result_of(red)):
        arguments = _parser().parse_args(shlex.split(told(finding)["again"])[1:])
        settings = wanted(arguments)
        refuse_impossible(parse(settings.case))
        kinds.refuse_nonsense(kinds.find(settings.host), settings)
        assert (settings.host, settings.kernel) == ("emulated-amd", "debian:6.12+unpatched")
        assert references(arguments.tests)


def test_every_setting_that_matters_is_in_the_line_quoted(red: dict[str, Any]) -> None:
    red["settings"] |= {"l2": "linux", "patience": "2.5", "keep": "yes", "wait": "3600",
                        "kernel": "debian:6.12+a b's.patch"}  # fmt: skip
    red["kernel"] = None
    words = shlex.split(told(findings(result_of(red))[0])["again"])
    assert words[words.index("--kernel") + 1] == "debian:6.12+a b's.patch"
    assert words[words.index("--l2") + 1] == "linux"
    assert words[words.index("--patience") + 1] == "2.5"
    assert not {"--keep", "--wait"} & set(words)


def test_the_report_says_a_failure_once_and_bounds_them(red: dict[str, Any]) -> None:
    result = result_of(red)
    text = shown(result)
    assert Counter(text.split())["wanted"] == 5
    assert text.count("CR2 0x1234000") == 1
    case = red["cases"][0]
    red["cases"] = [
        {**case, "verdict": "fail", "reason": f"it is {'very ' * n}odd"} for n in range(20)
    ]
    text = shown(replace(result_of(red), tests=[]))
    assert text.count(" wanted  ") == 8 and "and 12 more; --json has all" in text


def test_an_exception_that_did_not_arrive_is_told_by_its_signal(red: dict[str, Any]) -> None:
    red["cases"] = [c for c in red["cases"] if c["verdict"] == "pass"]
    missed = {"test": SIGNALS, "vector": 13, "wanted": "SIGSEGV", "seen": None}
    red["deliveries"] = [missed, {**missed, "vector": 1, "wanted": "SIGTRAP", "seen": "SIGTRAP"}]
    tests = [replace(test, verdict=Verdict.PASS) for test in result_of(red).tests]
    tests = [replace(t, verdict=Verdict.FAIL) if t.name == SIGNALS else t for t in tests]
    (only,) = findings(replace(result_of(red), tests=tests))
    assert told(only)["wanted"] == "a process of L1 takes SIGSEGV"
    assert told(only)["seen"] == "#GP(13): no signal"
    assert "vector=13" in told(only)["again"] and SIGNALS in told(only)["again"]


def broken(*tests: results.TestResult, **more: Any) -> Result:
    return made("infra-error", tests=tests, logs="/logs", **more)


def test_tests_that_broke_alike_are_told_once_with_cause_hint_and_logs() -> None:
    reason = "L0 did not answer within 12 s | hint: see its console"
    alike = [results.TestResult(f"T.test_{n}", Verdict.INFRA_ERROR, reason,
                                f"tests/t.py:T.test_{n}") for n in range(4)]  # fmt: skip
    (only,) = findings(broken(*alike))
    assert told(only)["cause"] == "L0 did not answer within 12 s"
    assert told(only)["hint"] == "see its console" and told(only)["logs"] == "/logs"
    assert "2 more tests" in told(only)["asked"] and told(only)["again"].count("T.test_") == 4
    text = shown(broken(*alike))
    assert text.count("did not answer") == 1 and "the bench broke, not the kernel" in text


def test_what_broke_the_job_is_told_once_and_not_again_for_each_test() -> None:
    error = Broke("L0 has panicked", "read its console")
    tests = [
        results.TestResult(f"T.test_{n}", Verdict.INFRA_ERROR, "it did not run") for n in range(9)
    ]
    result = replace(broken(*tests, error=error), reason="L0 has panicked", hint=error.hint)
    text = shown(result)
    assert text.count("L0 has panicked") == 1 and text.count("read its console") == 1
    assert "did not run" not in text and "again     " in text


def test_what_broke_a_test_after_its_failure_is_told_beside_it(red: dict[str, Any]) -> None:
    tests = result_of(red).tests
    tests = [
        replace(t, reason=f"{t.reason}{THEN}QEMU is gone | hint: look") if t.name == EVERY else t
        for t in tests
    ]
    found = findings(replace(result_of(red), tests=tests))
    assert [one.verdict for one in found] == ["fail"] * 5 + ["infra-error"]
    assert (told(found[-1])["cause"], told(found[-1])["hint"]) == ("QEMU is gone", "look")


def test_a_complaint_of_the_kernel_is_a_failure_with_its_words(red: dict[str, Any]) -> None:
    red["cases"], red["complaints"] = [], ["WARNING: CPU: 0 PID: 1 at x86.c:1"]
    tests = [replace(test, verdict=Verdict.PASS) for test in result_of(red).tests]
    (only,) = findings(replace(result_of(red), tests=tests))
    assert told(only)["seen"] == "WARNING: CPU: 0 PID: 1 at x86.c:1"
    assert "consoles" in told(only)["proof"] and " run --host" in told(only)["again"]


def test_what_was_not_proven_is_told_with_the_case_that_lacked_it(red: dict[str, Any]) -> None:
    case = next(c for c in red["cases"] if c["test"] == EVERY)
    lacking = {**case, "verdict": "inconclusive", "reason": "L2 was not shown to be active: no"}
    test = results.TestResult(EVERY, Verdict.INCONCLUSIVE, "1 of 1 cases", "tests/a.py:T", "")
    result = replace(
        result_of({**red, "cases": [lacking]}), tests=[test], verdict=Verdict.INCONCLUSIVE
    )
    (only,) = findings(result)
    assert only.verdict == "inconclusive" and "proof that L2 is active" in told(only)["wanted"]
    assert "--case" in told(only)["again"]


def test_what_lacks_its_controls_is_asked_again_without_limits() -> None:
    settings = {"case": "vector=13", "path": "sync-regs", "host": "emulated-amd"}
    result = replace(broken(settings=settings, asked=["tests/a.py"]), verdict=Verdict.INCONCLUSIVE)
    assert shown(result).splitlines()[-1].endswith(" run --host emulated-amd")


def test_what_broke_is_asked_again_with_its_limits() -> None:
    settings = {"case": "vector=13 code=0x0", "host": "emulated-amd"}
    error = Broke("it broke", "")
    result = broken(settings=settings, asked=["tests/a b.py"], error=error)
    line = shown(result).splitlines()[-1]
    assert line.endswith("run --host emulated-amd --case 'vector=13 code=0x0' 'tests/a b.py'")
