# SPDX-License-Identifier: MIT
"""The ways of injecting: which of them the commit covers, and a job that is limited to one."""

from __future__ import annotations

from typing import Any

import pytest
from l2gate.contract import paths
from l2gate.foundation.events import Event
from l2gate.foundation.settings import OPTIONS
from l2gate.report.result import Result, assemble, nothing_proven

FINISHED = {"tests": [{"name": "t.py:T.test", "status": "PASS"}]}
SAID = Event("L0", "verdict", "v", data={"test": "T.test", "verdict": "pass", "reason": "r"})


def case(path: str, level: str = "L2", errno: str | None = None, **more: Any) -> Event:
    data = {"test": "T.test", "path": path, "vector": 18, "error_code": None, "injected": True,
            "repeat": 1, "active_level": level, "expected_errno": errno, "seen_errno": errno,
            "verdict": "pass", "reason": "r", "seconds": 0.1, **more}  # fmt: skip
    return Event("L0", "case", "c", data=data)


def tabled(path: str, level: str = "L2", errno: str | None = None, **more: Any) -> Event:
    sent = f"path={path}"
    return case(path, level, errno, table="t", sent=sent, deviations=[], who="nobody", **more)


def limited(path: str, *cases: Event, contract: str = "refuse") -> Result:
    facts = [
        Event("L0", "fact", "job", data={"subject": "job", "path": path}),
        Event("L0", "fact", "contract", data={"subject": "contract", "name": contract}),
    ]
    result = assemble([*facts, *cases, SAID], FINISHED, {}, 1.0, "logs")
    assert nothing_proven([*facts, *cases]) == (result.verdict != "pass")
    return result


def test_the_option_s_choices_are_the_paths() -> None:
    (option,) = (option for option in OPTIONS if option.name == "path")
    assert option.choices == (paths.ALL, *paths.NAMES)


@pytest.mark.parametrize(
    ("path", "on_helper", "on_qemu"),
    [("vcpu-events", True, True), ("sync-regs", True, True), ("guest-debug", False, False),
     ("mce", False, True), ("gdbstub", True, True), ("nmi", False, False),
     ("unheard-of", False, False)],
)  # fmt: skip
def test_what_the_commit_covers(path: str, on_helper: bool, on_qemu: bool) -> None:
    assert paths.covered(tabled(path).data) == on_helper
    assert paths.covered(case(path).data) == on_qemu


def test_the_report_tells_of_each_path_what_it_had() -> None:
    cases = [tabled("mce").data, case("mce", "L1").data, case("unheard-of").data]
    told = {(entry["name"], entry["how"][:4]): entry for entry in paths.report(cases, "mce")}
    by_ioctl, by_qmp = told["mce", "KVM_"], told["mce", "QMP'"]
    assert (by_ioctl["covered"], by_ioctl["cases"], by_ioctl["l2_active"]) == (False, 1, 1)
    assert (by_qmp["covered"], by_qmp["cases"], by_qmp["l2_active"]) == (True, 1, 0)
    assert told["nmi", "KVM_"]["cases"] == 0 and not told["nmi", "KVM_"]["chosen"]
    assert any(name == "unheard-of" for name, _ in told)


def test_a_path_that_is_covered_is_judged_by_its_refusals() -> None:
    controls = [tabled("sync-regs", "L1"), tabled("sync-regs", injected=False)]
    refusal = tabled("sync-regs", errno="EINVAL")
    assert limited("sync-regs", refusal, *controls).verdict == "pass"
    assert limited("sync-regs", refusal, controls[0]).verdict == "inconclusive"
    assert limited("sync-regs", *controls).verdict == "inconclusive"


def test_a_control_by_another_path_is_none() -> None:
    controls = [tabled("vcpu-events", "L1"), tabled("vcpu-events", injected=False)]
    refusal = tabled("sync-regs", errno="EINVAL")
    assert limited("all", refusal, *controls).verdict == "inconclusive"


def test_a_path_that_is_not_covered_is_judged_by_who_got_it() -> None:
    result = limited("nmi", tabled("nmi"), tabled("nmi", "L1"))
    assert result.verdict == "pass"
    assert "the commit's check does not cover this path" in result.reason
    assert limited("nmi", tabled("nmi")).verdict == "inconclusive"
    assert limited("nmi", tabled("nmi", "L1")).verdict == "inconclusive"
    assert limited("nmi", case("nmi"), case("nmi", "L1")).verdict == "pass"


def test_what_is_not_covered_proves_no_refusal_in_a_whole_job() -> None:
    assert limited("all", tabled("nmi"), tabled("nmi", "L1")).verdict == "inconclusive"


def test_qemu_writes_the_struct_itself_and_needs_no_injected_0() -> None:
    assert limited("mce", case("mce", errno="EINVAL"), case("mce", "L1")).verdict == "pass"
    assert limited("mce", case("mce", errno="EINVAL")).verdict == "inconclusive"


def test_nothing_by_that_path_is_never_green() -> None:
    for contract in ("refuse", "payload"):
        result = limited("gdbstub", contract=contract)
        assert (result.verdict, "by gdbstub" in result.reason) == ("inconclusive", True)
