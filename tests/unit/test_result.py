# SPDX-License-Identifier: MIT
"""What a job's evidence adds up to: half a job is never green."""

from __future__ import annotations

from typing import Any

import pytest
from l2gate.foundation.events import Event
from l2gate.report.result import assemble, exit_code, nothing_proven, sentence

TEST = "RefusedWhileL2IsActive.test_every_exception"
FINISHED = {"tests": [{"name": f"t.py:{TEST}", "status": "PASS"}]}


def case(
    verdict: str = "pass",
    level: str = "L2",
    expected: str | None = "EINVAL",
    injected: bool = True,
    vector: int = 13,
) -> Event:
    data = {"test": TEST, "vector": vector, "error_code": 0, "injected": injected, "repeat": 1,
            "active_level": level, "expected_errno": expected, "seen_errno": expected,
            "verdict": verdict, "reason": "r", "seconds": 0.1}  # fmt: skip
    return Event("L0", "case", "c", data=data)


#: A refusal with both of its controls.
PROOF = [case(), case(level="L1", expected=None), case(expected=None, injected=False)]


def tabled(
    verdict: str = "pass",
    level: str = "L2",
    errno: str | None = None,
    sent: str = "vector=13",
    deviations: tuple[str, ...] = (),
) -> Event:
    """A case of a table."""
    data = {"test": TEST, "table": "t", "vector": 13, "error_code": 0, "injected": True,
            "repeat": 1, "active_level": level, "expected_errno": errno, "seen_errno": errno,
            "sent": sent, "verdict": verdict, "reason": "r", "seconds": 0.002,
            "deviations": list(deviations)}  # fmt: skip
    return Event("L0", "case", "c", data=data)


PAYLOAD = Event("L0", "fact", "contract", data={"subject": "contract", "name": "payload"})


def said(verdict: str) -> Event:
    return Event("L0", "verdict", "v", data={"test": TEST, "verdict": verdict, "reason": "why"})


def broken(code: int) -> Event:
    return Event("L0", "error", "e", data={"cause": "c", "hint": "m", "exit_code": code})


def judged(events: list[Event], avocado: dict[str, Any] | None = FINISHED) -> tuple[str, int]:
    result = assemble(events, avocado, {}, 1.0, "logs")
    return result.verdict, exit_code(result, events)


def test_a_proven_refusal_and_a_finished_job_are_green() -> None:
    assert judged([*PROOF, said("pass")]) == ("pass", 0)


@pytest.mark.parametrize("missing", [1, 2])
def test_a_refusal_without_a_control_is_inconclusive(missing: int) -> None:
    events = [event for index, event in enumerate(PROOF) if index != missing]
    assert judged([*events, said("pass")]) == ("inconclusive", 3)
    assert nothing_proven(events)


def test_what_is_refused_always_proves_nothing() -> None:
    assert judged([case(vector=2), case(vector=32), said("pass")]) == ("inconclusive", 3)


def test_a_job_that_died_half_way_is_not_green() -> None:
    assert judged([*PROOF, said("pass")], None) == ("infra-error", 2)


def test_a_test_that_avocado_interrupted_is_not_green() -> None:
    stopped = {"tests": [{"name": f"t.py:{TEST}", "status": "INTERRUPTED"}]}
    assert judged([*PROOF, said("pass")], stopped) == ("infra-error", 2)
    assert judged(PROOF, stopped) == ("infra-error", 2)


def test_a_failing_case_outweighs_everything() -> None:
    assert judged([case("fail"), said("fail"), broken(2)], None) == ("fail", 1)


def test_what_cannot_be_meant_is_bad_usage() -> None:
    assert judged([broken(4)], None)[1] == 4


def test_nothing_proven_is_not_green() -> None:
    assert judged([said("pass")]) == ("inconclusive", 3)
    assert judged([case(level="L1", expected=None), said("pass")]) == ("inconclusive", 3)
    assert judged([said("skip")]) == ("skip", 3)
    assert judged([case("inconclusive"), said("inconclusive")]) == ("inconclusive", 3)
    assert nothing_proven([case("fail"), case(level="L1", expected="EINVAL")])
    assert not nothing_proven(PROOF)


def test_the_payload_contract_is_proven_by_cases_with_their_control() -> None:
    proof = [PAYLOAD, tabled(), tabled(level="L1"), tabled(errno="EINVAL", sent="vector=2")]
    assert judged([*proof, said("pass")]) == ("pass", 0)
    assert not nothing_proven(proof)


@pytest.mark.parametrize(
    "cases",
    [
        [],
        [tabled()],
        [tabled(), tabled(level="L1", sent="vector=14")],
        [tabled(), tabled("inconclusive", level="L1")],
        [tabled(errno="EINVAL"), tabled(level="L1", errno="EINVAL")],
        [tabled(level="L1")],
        PROOF,
    ],
)
def test_the_payload_contract_is_not_proven_by_less(cases: list[Event]) -> None:
    assert judged([PAYLOAD, *cases, said("pass")]) == ("inconclusive", 3)
    assert nothing_proven([PAYLOAD, *cases])


def test_a_failing_case_of_a_table_is_red() -> None:
    events = [PAYLOAD, tabled("fail"), tabled(level="L1"), said("fail")]
    assert judged(events) == ("fail", 1)


def test_known_deviations_are_told() -> None:
    events = [PAYLOAD, tabled(deviations=("gd seen set",)), tabled(level="L1"), said("pass")]
    result = assemble(events, FINISHED, {}, 1.0, "logs")
    assert result.reason == "2 cases, 1 proven while L2 was active, 1 with a known deviation"


def test_a_control_on_another_vm_is_none() -> None:
    controls = [case(level="L1", expected=None), case(expected=None, injected=False)]
    assert judged([tabled(errno="EINVAL"), *controls, said("pass")]) == ("inconclusive", 3)


def test_seconds_per_case_of_a_table() -> None:
    result = assemble([*PROOF, tabled(), tabled(level="L1")], FINISHED, {}, 1.0, "logs")
    assert (result.seconds["case"], result.seconds["injection"]) == (0.002, 0.1)


def test_the_sentence_is_found_in_avocado_s_name() -> None:
    assert sentence("1-/a/b.py:Class.test_x;run-0") == "Class.test_x"
