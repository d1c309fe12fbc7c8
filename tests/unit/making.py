# SPDX-License-Identifier: MIT
"""Cases, events and results for tests: what a test does not say is as in a case that passes."""

from __future__ import annotations

from typing import Any

from l2gate.contract.case_result import (
    Afterwards,
    CaseResult,
    TableCase,
    TableProof,
    VcpuCase,
    VcpuProof,
)
from l2gate.contract.contracts import Contract
from l2gate.contract.judge import Verdict
from l2gate.contract.paths import HELPER, QEMU
from l2gate.foundation.events import Event
from l2gate.injection.paths import BY_NAME
from l2gate.records.events import CaseJudged, ContractDecided, JobPlanned, VerdictReached
from l2gate.report.result import Result, TestResult

_SHOWN: dict[str, Any] = {
    "guest_mode": True,
    "how": "KVM_GET_NESTED_STATE (SVM) says guest mode",
    "cr3": "0xd15000",
    "rip": "0xc0de010",
    "unchanged": True,
    "changed": [],
    "liveness": Afterwards(l1=True, l2=True),
}


def _common(vm: str, said: dict[str, Any]) -> dict[str, Any]:
    path = BY_NAME[said.pop("path", "vcpu-events")]
    errno = said.pop("errno", None)
    return {
        "test": "T.test", "path": path.name, "covered": path.covered_on(vm),
        "own_struct": path.own_struct, "vector": 13, "error_code": None, "injected": True,
        "active_level": said.pop("level", "L2"), "expected_errno": errno, "seen_errno": errno,
        "verdict": Verdict(said.pop("verdict", "pass")), "reason": "r", "seconds": 0.1,
    }  # fmt: skip


def vcpu(**said: Any) -> VcpuCase:
    """One on QEMU's vCPU. `errno` is expected and seen, `level` is active."""
    common = _common(QEMU, said)
    return VcpuCase(**{**common, "proof": VcpuProof(**_SHOWN), **said})


def tabled(**said: Any) -> TableCase:
    """One of a table; `sent` is in the helper's words, the level comes beside them."""
    common = _common(HELPER, said)
    sent = said.pop(
        "sent", f"vector={said.get('vector', 13)} injected={int(said.get('injected', 1))}"
    )
    sent = sent if "path=" in sent else f"path={common['path']} {sent}"
    row: dict[str, Any] = {
        "table": "t",
        "line": 7,
        "case": "name",
        "sent": sent,
        "expected": {},
        "who": "nobody",
    }
    row["asked"] = f"{sent} active={common['active_level']}"
    return TableCase(**{**common, **row, "proof": TableProof(**_SHOWN), **said})


def judged(case: CaseResult) -> CaseJudged:
    return CaseJudged(level="L0", text="c", case=case)


def reached(verdict: str, test: str = "T.test", reason: str = "why") -> VerdictReached:
    return VerdictReached(
        level="controller", text="v", test=test, verdict=Verdict(verdict), reason=reason
    )


def under(contract: str, why: str = "no cap") -> ContractDecided:
    return ContractDecided(level="L0", text=contract, contract=Contract(contract, why, "commit"))


def planned(**said: Any) -> Event:
    return JobPlanned(level="controller", text="job", **said)


def result(verdict: str, *cases: CaseResult, tests: tuple[TestResult, ...] = (),
           **said: Any) -> Result:  # fmt: skip
    """One without a host."""
    return Result(**{
        "verdict": Verdict(verdict), "reason": "r", "host": None, "kernel": None, "contract": None,
        "seconds": {}, "tests": list(tests), "cases": list(cases), **said,
    })  # fmt: skip
