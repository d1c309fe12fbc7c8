# SPDX-License-Identifier: MIT
"""The ways of injecting: which of them the commit covers, and a job that is limited to one."""

from __future__ import annotations

import pytest
from l2gate.contract.case_result import CaseResult
from l2gate.contract.paths import ALL, HELPER, QEMU
from l2gate.contract.proof import nothing_proven
from l2gate.foundation.errors import CaseTableError
from l2gate.foundation.settings import OPTIONS, checkout
from l2gate.injection.paths import BY_NAME, PATHS, find
from l2gate.report.pathcount import count
from l2gate.report.result import Result, assemble, cases_of, question
from making import judged, planned, reached, tabled, under, vcpu

FINISHED = {"tests": [{"name": "t.py:T.test", "status": "PASS"}]}


def limited(path: str, *cases: CaseResult, contract: str = "refuse") -> Result:
    events = [planned(path=path), under(contract), *map(judged, cases), reached("pass")]
    result = assemble(events, FINISHED, {}, 1.0, "logs")
    proven = not nothing_proven(question(events), cases_of(events))
    assert proven == (result.verdict == "pass")
    return result


def test_the_option_s_choices_are_the_paths() -> None:
    (option,) = (option for option in OPTIONS if option.name == "path")
    assert set(option.choices) == {ALL, *BY_NAME} and len(BY_NAME) == len(PATHS)


def test_each_path_is_a_file_of_its_name() -> None:
    folder = checkout() / "lib/l2gate/injection/paths"
    files = {file.stem.replace("_", "-") for file in folder.glob("[!_]*.py")}
    assert files == set(BY_NAME)
    with pytest.raises(CaseTableError, match="unheard-of"):
        find("unheard-of")


@pytest.mark.parametrize(
    ("path", "on_helper", "on_qemu"),
    [("vcpu-events", True, True), ("sync-regs", True, True), ("guest-debug", False, False),
     ("mce", False, True), ("gdbstub", True, True), ("nmi", False, False)],
)  # fmt: skip
def test_what_the_commit_covers(path: str, on_helper: bool, on_qemu: bool) -> None:
    assert find(path).covered_on(HELPER) == on_helper
    assert find(path).covered_on(QEMU) == on_qemu


def test_the_report_tells_of_each_path_what_it_had() -> None:
    cases: list[CaseResult] = [tabled(path="mce"), vcpu(path="mce", level="L1")]
    told = {(entry.name, entry.how[:4]): entry for entry in count(cases, "mce")}
    by_ioctl, by_qmp = told["mce", "KVM_"], told["mce", "QMP'"]
    assert (by_ioctl.covered, by_ioctl.cases, by_ioctl.l2_active) == (False, 1, 1)
    assert (by_qmp.covered, by_qmp.cases, by_qmp.l2_active) == (True, 1, 0)
    assert told["nmi", "KVM_"].cases == 0 and not told["nmi", "KVM_"].chosen


def test_a_path_that_is_covered_is_judged_by_its_refusals() -> None:
    controls = [tabled(path="sync-regs", level="L1"), tabled(path="sync-regs", injected=False)]
    refusal = tabled(path="sync-regs", errno="EINVAL")
    assert limited("sync-regs", refusal, *controls).verdict == "pass"
    assert limited("sync-regs", refusal, controls[0]).verdict == "inconclusive"
    assert limited("sync-regs", *controls).verdict == "inconclusive"


def test_a_control_by_another_path_is_none() -> None:
    controls = [tabled(path="vcpu-events", level="L1"), tabled(path="vcpu-events", injected=False)]
    refusal = tabled(path="sync-regs", errno="EINVAL")
    assert limited("all", refusal, *controls).verdict == "inconclusive"


def test_a_path_that_is_not_covered_is_judged_by_who_got_it() -> None:
    result = limited("nmi", tabled(path="nmi"), tabled(path="nmi", level="L1"))
    assert result.verdict == "pass"
    assert "the commit's check does not cover this path" in result.reason
    assert limited("nmi", tabled(path="nmi")).verdict == "inconclusive"
    assert limited("nmi", tabled(path="nmi", level="L1")).verdict == "inconclusive"
    assert limited("nmi", vcpu(path="nmi"), vcpu(path="nmi", level="L1")).verdict == "pass"


def test_what_is_not_covered_proves_no_refusal_in_a_whole_job() -> None:
    assert (
        limited("all", tabled(path="nmi"), tabled(path="nmi", level="L1")).verdict == "inconclusive"
    )


def test_qemu_writes_the_struct_itself_and_needs_no_injected_0() -> None:
    assert (
        limited("mce", vcpu(path="mce", errno="EINVAL"), vcpu(path="mce", level="L1")).verdict
        == "pass"
    )
    assert limited("mce", vcpu(path="mce", errno="EINVAL")).verdict == "inconclusive"


def test_nothing_by_that_path_is_never_green() -> None:
    for contract in ("refuse", "payload"):
        result = limited("gdbstub", contract=contract)
        assert (result.verdict, "by gdbstub" in result.reason) == ("inconclusive", True)
