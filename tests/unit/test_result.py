# SPDX-License-Identifier: MIT
"""What a job's evidence adds up to: half a job is never green."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from l2gate.contract.proof import nothing_proven as nothing_proven_by
from l2gate.foundation.events import Event, JobBroke
from l2gate.report.result import Result, assemble, cases_of, exit_code, question, schema, sentence
from making import judged as event_of
from making import reached, under, vcpu
from making import tabled as tabled_case
from recording import recorded

TEST = "RefusedWhileL2IsActive.test_every_exception"
FINISHED = {"tests": [{"name": f"t.py:{TEST}", "status": "PASS"}]}


def case(
    verdict: str = "pass",
    level: str = "L2",
    expected: str | None = "EINVAL",
    injected: bool = True,
    vector: int = 13,
) -> Event:
    return event_of(
        vcpu(test=TEST, verdict=verdict, level=level, errno=expected, injected=injected,
             vector=vector, error_code=0)
    )  # fmt: skip


#: A refusal with both of its controls.
PROOF = [case(), case(level="L1", expected=None), case(expected=None, injected=False)]


def tabled(verdict: str = "pass", **said: Any) -> Event:
    """A case of a table."""
    return event_of(
        tabled_case(**{"test": TEST, "verdict": verdict, "error_code": 0, "seconds": 0.002, **said})
    )


PAYLOAD = under("payload")


def said(verdict: str) -> Event:
    return reached(verdict, TEST)


def broken(code: int) -> Event:
    return JobBroke(level="controller", text="e", cause="c", hint="m", exit_code=code)


def nothing_proven(events: list[Event]) -> bool:
    return nothing_proven_by(question(events), cases_of(events))


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
    events = [PAYLOAD, tabled(deviations=["gd seen set"]), tabled(level="L1"), said("pass")]
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


@pytest.mark.parametrize("name", ["patched-on-amd", "unpatched-on-amd"])
def test_what_a_run_has_written_is_as_the_schema_says_and_is_read_as_it_was(name: str) -> None:
    raw = recorded(name)
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(raw, schema())
    again = Result.from_json(raw).to_json()
    jsonschema.validate(again, schema())
    assert Result.from_json(again) == Result.from_json(raw)


@pytest.mark.parametrize(
    ("key", "value"), [("verdict", "green"), ("cases", [{"kind": "third"}]), ("tests", None)]
)
def test_what_is_no_result_is_none_for_schema_and_reader(key: str, value: Any) -> None:
    raw = recorded("patched-on-amd") | {key: value}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(raw, schema())
    with pytest.raises(ValueError, match=r"Invalid|Expected"):
        Result.from_json(raw)


def test_a_result_of_an_older_version_is_refused() -> None:
    with pytest.raises(ValueError, match="schema_version 2"):
        Result.from_json(recorded("patched-on-amd") | {"schema_version": 2})
