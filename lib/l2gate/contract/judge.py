# SPDX-License-Identifier: MIT
"""The oracle: what an injection must have done under the refuse contract, and what it did.

Source of the rule: commit 28d06353, arch/x86/kvm/x86.c, kvm_vcpu_ioctl_x86_set_vcpu_events.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from l2gate.injection import vectors
from l2gate.injection.request import ExceptionRequest, InjectionOutcome


class Verdict(StrEnum):
    """What a result means; INFRA_ERROR says that the bench broke, not the kernel."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"
    INFRA_ERROR = "infra-error"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Judgement:
    """A verdict and the sentence that gives its reason."""

    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class Liveness:
    """L1 and L2 after the vCPU ran again; ``hits`` are exceptions that L2 saw and nobody sent."""

    l1: bool
    l2: bool
    heartbeat: tuple[int, int]
    hits: tuple[dict[str, object], ...] = ()
    why: str = ""


def expected_errno(request: ExceptionRequest, level: str) -> str | None:
    """What KVM must answer while ``level`` (L1 or L2) runs on the vCPU; None is acceptance."""
    if not request.injected:
        return None
    if request.vector in vectors.NEVER_EXCEPTIONS or request.vector > 31:
        return "EINVAL"
    return "EINVAL" if level == "L2" else None


def judge(
    outcome: InjectionOutcome, level: str, unproven: str | None, liveness: Liveness
) -> Judgement:
    """The judgement of one case.

    ``unproven`` says why it is not certain that ``level`` was active, or is None. A refusal
    without that proof is inconclusive, never a pass.
    """
    wanted = expected_errno(outcome.request, level)
    if unproven:
        return Judgement(Verdict.INCONCLUSIVE, f"{level} was not shown to be active: {unproven}")
    for complaint in (_errno(outcome, wanted), _steadiness(outcome), _state(outcome, wanted)):
        if complaint:
            return Judgement(Verdict.FAIL, complaint)
    if complaint := _life(liveness):
        return Judgement(Verdict.FAIL, complaint)
    return Judgement(Verdict.PASS, f"{_said(wanted)}, as it must while {level} is active")


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
