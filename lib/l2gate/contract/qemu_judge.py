# SPDX-License-Identifier: MIT
"""The judge of cases that QEMU itself was made to inject: who must have had the exception, who had.

QEMU brings a machine check and a breakpoint by KVM_SET_VCPU_EVENTS (QEMU, target/i386/kvm:
kvm_put_vcpu_events), which the commit's check covers, and an NMI by KVM_NMI, which it does not.
"""

from __future__ import annotations

from dataclasses import dataclass

from l2gate.contract import eras
from l2gate.contract.active import Marked, shown_by
from l2gate.contract.case_result import Afterwards, VcpuCase, VcpuProof
from l2gate.contract.judge import Judgement, Ruling, Verdict
from l2gate.contract.outcome import QemuOutcome, VcpuState
from l2gate.contract.paths import QEMU, InjectionPath
from l2gate.contract.vectors import MACHINE_CHECK, NMI
from l2gate.vendors.vendor import Vendor

#: What QEMU says of an ioctl that was refused with EINVAL (strerror(3)).
EINVAL_WORDS = "Invalid argument"


@dataclass(frozen=True)
class Goal:
    """What a test says that must become of it: ``reaches`` L1 or L2, or nobody (empty), as KVM
    refuses what QEMU brings."""

    reaches: str = ""


@dataclass(frozen=True)
class Era:
    """What the kernel has promised of such an exception: its contract, and the steps that it has
    made (l2gate/contract/eras.py), on a CPU of that vendor."""

    contract: str
    vendor: Vendor
    steps: eras.Has


@dataclass(frozen=True)
class QemuInjection:
    """What was done: by which ``path``, which ``vector``, with ``level`` active. ``before`` is the
    vCPU at that moment, ``fingerprint`` of what had to be on it."""

    path: InjectionPath
    vector: int
    level: str
    before: VcpuState
    fingerprint: Marked


def judge_qemu(did: QemuInjection, outcome: QemuOutcome, goal: Goal, era: Era) -> Ruling:
    """What is to be said of it. What the kernel's era has not promised is known of it, or is a
    finding; then the case passes."""
    if not goal.reaches:
        return _by_era(did, outcome, _refused(did.vector, outcome), era)
    return _by_era(did, outcome, _reached(did.vector, goal.reaches, outcome), era)


def qemu_case(
    test: str, did: QemuInjection, outcome: QemuOutcome, goal: Goal, era: Era, seconds: float
) -> VcpuCase:
    """The whole record of one case of ``test``, its verdict too."""
    ruling = judge_qemu(did, outcome, goal, era)
    refused = not goal.reaches and outcome.stopped_at
    return VcpuCase(
        test=test,
        path=did.path.name,
        covered=did.path.covered_on(QEMU),
        own_struct=did.path.own_struct,
        vector=did.vector,
        error_code=None,
        injected=True,
        active_level=did.level,
        expected_errno="EINVAL" if refused else None,
        seen_errno="EINVAL" if EINVAL_WORDS in outcome.words else None,
        who=outcome.who(did.vector),
        qemu=outcome.status,
        qemu_says=outcome.words,
        verdict=ruling.judgement.verdict,
        reason=ruling.judgement.reason,
        seconds=round(seconds, 3),
        proof=_proof(did, outcome),
        deviations=list(ruling.known),
        finding=ruling.finding,
    )


def _proof(did: QemuInjection, outcome: QemuOutcome) -> VcpuProof:
    before, at = did.before, outcome.stopped_at
    return VcpuProof(
        guest_mode=before.guest_mode,
        how=shown_by(did.level, before, did.fingerprint),
        cr3=f"{before.cr3:#x}",
        rip=f"{before.rip:#x}",
        fingerprint=f"{before.r15:#x}",
        unchanged=at is None or not at.in_flight,
        changed=[],
        events_after=at.events if at else None,
        liveness=Afterwards(
            l1=outcome.status == "running", l2=outcome.l2_alive, hits=list(outcome.hits)
        ),
    )


def _by_era(did: QemuInjection, outcome: QemuOutcome, judgement: Judgement, era: Era) -> Ruling:
    """Neither NMIs nor, where they went past L1, exceptions that L1 intercepts were ever
    promised."""
    since = era.vendor.asks_l1_since
    free = did.vector == NMI or (era.vendor.passed_l1_by and era.contract == "payload")
    asked = did.level == "L2" or did.vector == NMI
    if judgement.verdict is not Verdict.FAIL or not (asked and free) or era.steps.get(since):
        return Ruling(judgement)
    told = f"{judgement.reason} (not promised before {since}: {eras.brought(since)})"
    if did.vector == MACHINE_CHECK and outcome.hit(did.vector):
        return Ruling(Judgement(Verdict.PASS, f"as known: {told}"), (judgement.reason,))
    return Ruling(Judgement(Verdict.PASS, f"finding: {told}"), (), told)


def _refused(vector: int, outcome: QemuOutcome) -> Judgement:
    """KVM must refuse what QEMU brings: it reaches neither L1 nor L2, whatever QEMU does then."""
    if outcome.hit(vector):
        return Judgement(Verdict.FAIL, "accepted while L2 is active: L2 had it as its own")
    if outcome.l1:
        return Judgement(Verdict.FAIL, f"accepted while L2 is active: L1 had it: {outcome.l1}")
    if outcome.stopped_at:
        if in_flight := outcome.stopped_at.in_flight:
            return Judgement(Verdict.FAIL, f"QEMU has stopped, yet an {in_flight} is on its way")
        says = f", saying {outcome.words!r}" if outcome.words else ""
        return Judgement(
            Verdict.PASS, f"refused: QEMU stopped the VM ({outcome.status}){says}; nobody had it"
        )
    if not outcome.l2_alive:
        return Judgement(Verdict.PASS, "refused: nobody had it, and QEMU tries again and again")
    return Judgement(Verdict.PASS, "nobody had it: QEMU has gone on in silence, it is lost")


def _reached(vector: int, wanted: str, outcome: QemuOutcome) -> Judgement:
    """It must go to L1, or to L2 if that is whose it is."""
    if wanted == "L1" and outcome.l1 and not outcome.hit(vector):
        return Judgement(Verdict.PASS, f"L1 had it: {outcome.l1}")
    if wanted == "L2" and outcome.hit(vector):
        return Judgement(Verdict.PASS, "L2 had it, whose it is")
    return Judgement(
        Verdict.FAIL, f"{outcome.who(vector)} had it (VM {outcome.status}), wanted: {wanted}"
    )
