# SPDX-License-Identifier: MIT
"""What a verdict is, and how a test's cases add up to one.

Who says what of a case: vcpu_judge.py of one on QEMU's vCPU, qemu_judge.py of one that QEMU itself
injects, table_judge.py of a row of a table. proof.py says what a job's green cases prove.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from l2gate.foundation.errors import L2gateError, NotProven

#: Stands between a test's failing cases and what broke it off after them.
THEN = "; then: "


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
class Ruling:
    """What is said of one case. ``known``: deviations that are known, of KVM or of the kernel's
    era. ``finding``: what is neither known nor promised by the kernel's era; empty if nothing."""

    judgement: Judgement
    known: tuple[str, ...] = ()
    finding: str = ""


def of_test(judgements: Sequence[tuple[str, Judgement]]) -> Judgement:
    """The worst of a test's (case, judgement) pairs, naming the first cases that share it."""
    if not judgements:
        return Judgement(Verdict.INCONCLUSIVE, "no case was judged")
    for worst in (Verdict.FAIL, Verdict.INFRA_ERROR, Verdict.INCONCLUSIVE):
        found = [(name, j.reason) for name, j in judgements if j.verdict is worst]
        if found:
            first = "; ".join(f"{name}: {reason}" for name, reason in found[:3])
            return Judgement(worst, f"{len(found)} of {len(judgements)} cases: {first}")
    return Judgement(Verdict.PASS, f"{len(judgements)} cases as the contract wants them")


def broken_off(error: L2gateError) -> Judgement:
    """What an error means for the test that met it."""
    verdict = Verdict.INCONCLUSIVE if isinstance(error, NotProven) else Verdict.INFRA_ERROR
    return Judgement(verdict, str(error))
