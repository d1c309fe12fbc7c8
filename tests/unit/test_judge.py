# SPDX-License-Identifier: MIT
"""The oracle: what passes, what fails, and what proves nothing."""

from __future__ import annotations

import pytest
from l2gate.contract.contracts import decide
from l2gate.contract.judge import Verdict
from l2gate.contract.outcome import ExceptionRequest, InjectionOutcome, Liveness, VcpuState
from l2gate.contract.vcpu_judge import Promise, judge_vcpu

STATE = VcpuState(True, "SVM", True, cr3=0xD15000, rip=0xC0DE010, r15=1, events={})
REFUSED, ACCEPTED = Promise("EINVAL"), Promise(None)
ALIVE = Liveness(True, True, (1, 2))
GP = ExceptionRequest(13, 0)


def outcome(
    *seen: tuple[str | None, int],
    request: ExceptionRequest = GP,
    changed: tuple[str, ...] = (),
) -> InjectionOutcome:
    total = sum(count for _, count in seen)
    different = 1 if len(seen) > 1 else None
    return InjectionOutcome(request, total, seen, different, STATE, {}, changed, False)


def verdict(seen: InjectionOutcome, promise: Promise = REFUSED, level: str = "L2",
            unproven: str | None = None) -> Verdict:  # fmt: skip
    return judge_vcpu(seen, promise, level, unproven, ALIVE).verdict


def test_a_proven_refusal_passes() -> None:
    assert verdict(outcome(("EINVAL", 1))) is Verdict.PASS


def test_a_refusal_without_proof_is_inconclusive_never_a_pass() -> None:
    assert verdict(outcome(("EINVAL", 1)), unproven="not in guest mode") is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("seen", "liveness", "words"),
    [
        (outcome((None, 1)), ALIVE, "errno seen none (accepted), errno wanted EINVAL"),
        (outcome(("EBUSY", 1)), ALIVE, "errno seen EBUSY, errno wanted EINVAL"),
        (outcome(("EINVAL", 99), (None, 1)), ALIVE, "not the same each time"),
        (outcome(("EINVAL", 1), changed=("events.nr",)), ALIVE, "yet it changed events.nr"),
        (outcome(("EINVAL", 1)), Liveness(False, False, (1, 1)), "L1 does not go on"),
        (outcome(("EINVAL", 1)), Liveness(True, False, (1, 1)), "L2 does not go on"),
        (
            outcome(("EINVAL", 1)),
            Liveness(True, True, (1, 2), ({"vector": 13, "count": 1},)),
            "L2 was hit",
        ),
    ],
)
def test_every_way_to_break_the_promise_fails(
    seen: InjectionOutcome, liveness: Liveness, words: str
) -> None:
    judgement = judge_vcpu(seen, REFUSED, "L2", None, liveness)
    assert judgement.verdict is Verdict.FAIL
    assert words in judgement.reason


def test_refusing_l1_is_a_failure_too() -> None:
    assert verdict(outcome(("EINVAL", 1)), ACCEPTED, "L1") is Verdict.FAIL
    assert verdict(outcome((None, 1)), ACCEPTED, "L1") is Verdict.PASS


@pytest.mark.parametrize("level", ["L1", "L2"])
def test_what_a_test_says_decides_whoever_is_active(level: str) -> None:
    refused, accepted = outcome(("EINVAL", 1)), outcome((None, 1))
    assert verdict(refused, REFUSED, level) is verdict(accepted, ACCEPTED, level) is Verdict.PASS
    assert verdict(refused, ACCEPTED, level) is verdict(accepted, REFUSED, level) is Verdict.FAIL
    assert verdict(refused, Promise("EBUSY"), level) is Verdict.FAIL


def test_the_capability_decides_the_contract_and_expect_overrides() -> None:
    assert decide("auto", 0).name == "refuse"
    assert decide("auto", 1).name == "payload"
    assert decide("refuse", 1).name == "refuse"
    assert "28d06353" in decide("auto", 0).commit
