# SPDX-License-Identifier: MIT
"""The judge of cases on QEMU's vCPU, past QEMU: what a test promises, held against what was seen.

Source of the rule: commit 28d06353, arch/x86/kvm/x86.c, kvm_vcpu_ioctl_x86_set_vcpu_events.
"""

from __future__ import annotations

from dataclasses import dataclass

from l2gate.contract.active import Marked, shown_by, unproven
from l2gate.contract.case_result import Afterwards, Tries, VcpuCase, VcpuProof
from l2gate.contract.judge import Judgement, Verdict
from l2gate.contract.outcome import InjectionOutcome, Liveness
from l2gate.contract.paths import QEMU, InjectionPath


@dataclass(frozen=True)
class Promise:
    """What a test says that KVM must answer: an errno, or None for acceptance.

    A refusal changes nothing of the vCPU; after either L1 and L2 go on.
    """

    errno: str | None


def judge_vcpu(
    outcome: InjectionOutcome, promise: Promise, level: str, why: str | None, liveness: Liveness
) -> Judgement:
    """The judgement of one case.

    ``why`` says why it is not certain that ``level`` was active, or is None. Without that proof it
    is inconclusive, never a pass.
    """
    wanted = promise.errno
    if why:
        return Judgement(Verdict.INCONCLUSIVE, f"{level} was not shown to be active: {why}")
    for complaint in (_errno(outcome, wanted), _steadiness(outcome), _state(outcome, wanted)):
        if complaint:
            return Judgement(Verdict.FAIL, complaint)
    if complaint := _life(liveness):
        return Judgement(Verdict.FAIL, complaint)
    return Judgement(Verdict.PASS, f"{_said(wanted)}, as it must while {level} is active")


def vcpu_case(
    test: str,
    path: InjectionPath,
    outcome: InjectionOutcome,
    promise: Promise,
    level: str,
    fingerprint: Marked,
    liveness: Liveness,
    seconds: float,
) -> VcpuCase:
    """The whole record of one case of ``test``, its verdict too. ``fingerprint`` is of what had to
    be on the vCPU (l2gate/contract/active.py)."""
    why = unproven(level, outcome.before, fingerprint)
    judgement = judge_vcpu(outcome, promise, level, why, liveness)
    request = outcome.request
    return VcpuCase(
        test=test,
        path=path.name,
        covered=path.covered_on(QEMU),
        own_struct=path.own_struct,
        vector=request.vector,
        error_code=request.error_code,
        injected=request.injected,
        repeat=outcome.repeat,
        active_level=level,
        expected_errno=promise.errno,
        seen_errno=outcome.errno,
        verdict=judgement.verdict,
        reason=judgement.reason,
        seconds=round(seconds, 3),
        proof=_proof(outcome, why or shown_by(level, outcome.before, fingerprint), liveness),
    )


def _proof(outcome: InjectionOutcome, how: str, liveness: Liveness) -> VcpuProof:
    state = outcome.before
    return VcpuProof(
        guest_mode=state.guest_mode,
        how=how,
        cr3=f"{state.cr3:#x}",
        rip=f"{state.rip:#x}",
        fingerprint=f"{state.r15:#x}",
        unchanged=not outcome.changed,
        changed=list(outcome.changed),
        events_before=state.events,
        events_after=outcome.events_after,
        outcomes=[Tries(errno, count) for errno, count in outcome.outcomes],
        liveness=Afterwards(
            l1=liveness.l1,
            l2=liveness.l2,
            hits=list(liveness.hits),
            l2_heartbeat=liveness.heartbeat,
        ),
    )


def _said(errno: str | None) -> str:
    return "accepted" if errno is None else f"refused with {errno}"


def _errno(outcome: InjectionOutcome, wanted: str | None) -> str | None:
    if outcome.errno == wanted:
        return None
    return f"errno seen {outcome.errno or 'none (accepted)'}, errno wanted {wanted or 'none'}"


def _steadiness(outcome: InjectionOutcome) -> str | None:
    if outcome.steady:
        return None
    seen = ", ".join(f"{count} times {_said(errno)}" for errno, count in outcome.outcomes)
    return (
        f"not the same each time: {seen}; the first that differs is try "
        f"{(outcome.first_different or 0) + 1} of {outcome.repeat}"
    )


def _state(outcome: InjectionOutcome, wanted: str | None) -> str | None:
    if wanted is None or not outcome.changed:
        return None
    return f"refused, yet it changed {', '.join(outcome.changed)}"


def _life(liveness: Liveness) -> str | None:
    if not liveness.l1:
        return f"L1 does not go on afterwards: {liveness.why}"
    if not liveness.l2:
        return f"L2 does not go on afterwards: {liveness.why}"
    if liveness.hits:
        hits = ", ".join(f"vector {hit['vector']} {hit['count']} times" for hit in liveness.hits)
        return f"L2 was hit although nothing was injected: {hits}"
    return None
