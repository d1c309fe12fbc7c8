# SPDX-License-Identifier: MIT
"""The oracle for case tables: who got it, as what, and what proves nothing."""

from __future__ import annotations

from typing import Any

import pytest
from l2gate.contract.eras import all_of
from l2gate.contract.judge import Judgement, Verdict
from l2gate.contract.table import Case, parse
from l2gate.contract.table_judge import Seen, dr6_after, judge_case

NOTHING = {"injected": 0, "pending": 0, "has_payload": 0}
PF = "name vector code payload active => errno who code cr2 qual"


def case(row: str, columns: str = PF) -> Case:
    (one,) = parse("t", f"contract payload\ncolumns {columns}\n{row}\n").cases
    return one


def judged(wanted: Case, got: Seen) -> tuple[Judgement, list[str]]:
    """The judgement of a kernel of today, and the known deviations."""
    ruling = judge_case(wanted, got, all_of(True))
    return ruling.judgement, list(ruling.known)


HANDLED = case("c 14 0x6 0x5000 L2 none handler given payload -")
EXITED = case("c 14 0x6 0x5000 L2 none exit given same payload")


def seen(format_: str = "vmx", **given: Any) -> Seen:
    raw: dict[str, Any] = {
        "errno": None, "nested_state": True, "guest_mode": True, "cr3": "0x4000", "rip": "0x0",
        "who": "nobody", "changed": [], "returned": NOTHING, "hits": [], "dr7": "0x400",
        "back": True, **given,
    }  # fmt: skip
    return Seen.from_answer(raw, format_)


def hit(vector: int = 14, **given: Any) -> dict[str, Any]:
    found = {"vector": vector, "code": "0x6", "cr2": "0x5000", "dr6": "0xffff0ff2", "dr7": "0x400"}
    return {"who": "L2-handler", "hits": [{**found, **given}]}


def vmexit(**given: Any) -> dict[str, Any]:
    found = {
        "reason": "0x0", "interruption_info": "0x80000b0e", "error_code": "0x6",
        "qualification": "0x5000", "cr2": "0xc2c2c000", "dr6": "0xffff0ff2", "dr7": "0x400",
    }  # fmt: skip
    return {"who": "L1-exit", "exit": {**found, **given}}


def svm_exit(**given: Any) -> dict[str, Any]:
    found = {"reason": "0x4e", "info_1": "0x6", "info_2": "0x5000", "cr2": "0xc2c2c000"}
    return {"who": "L1-exit", "exit": {**found, **given}}


def test_what_comes_as_the_table_says_passes() -> None:
    assert judged(HANDLED, seen(**hit()))[0].verdict is Verdict.PASS
    assert judged(EXITED, seen(**vmexit()))[0].verdict is Verdict.PASS
    assert judged(EXITED, seen("svm", **svm_exit()))[0].verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("wanted", "got", "words"),
    [
        (HANDLED, hit(cr2="0xc2c2c000"), "cr2 seen 0xc2c2c000, cr2 wanted 0x5000 (payload)"),
        (HANDLED, hit(code="0x0"), "code seen 0x0, code wanted 0x6 (given)"),
        (HANDLED, hit(code=None), "code seen none"),
        (HANDLED, hit(13), "the IDT was entered for vectors [13], wanted [14]"),
        (HANDLED, vmexit(), "who seen exit, who wanted handler"),
        (HANDLED, {"who": "nobody"}, "who seen nobody"),
        (HANDLED, {"errno": "EINVAL", "who": "nobody"}, "errno seen EINVAL, errno wanted none"),
        (HANDLED, {**hit(), "back": False}, "L2 does not go on afterwards"),
        (EXITED, vmexit(qualification="0x0"), "qual seen 0x0, qual wanted 0x5000 (payload)"),
        (EXITED, vmexit(cr2="0x5000"), "cr2 seen 0x5000, cr2 wanted 0xc2c2c000 (same)"),
        (EXITED, vmexit(interruption_info="0x8000030e"), "code seen none"),
        (EXITED, vmexit(interruption_info="0x80000b0d"), "interruption information 0x80000b0d"),
        (EXITED, hit(), "who seen handler, who wanted exit"),
    ],
)
def test_every_way_to_get_it_wrong_fails(wanted: Case, got: dict[str, Any], words: str) -> None:
    judgement, _ = judged(wanted, seen(**got))
    assert judgement.verdict is Verdict.FAIL
    assert words in judgement.reason


def test_another_exit_code_on_svm_fails() -> None:
    judgement, _ = judged(EXITED, seen("svm", **svm_exit(reason="0x4d")))
    assert (judgement.verdict, judgement.reason) == (Verdict.FAIL, "exit code 0x4d, wanted 0x4e")


@pytest.mark.parametrize("level", ["L1", "L2"])
def test_without_proof_of_the_level_it_is_inconclusive(level: str) -> None:
    one = case(f"c 14 0x6 0x5000 {level} none handler given payload -")
    judgement, _ = judged(one, seen(**hit(), guest_mode=level == "L1"))
    assert judgement.verdict is Verdict.INCONCLUSIVE


def test_without_nested_state_the_marks_prove_the_level() -> None:
    one = seen(**hit(), nested_state=False)
    assert judged(HANDLED, one)[0].verdict is Verdict.PASS
    assert one.how.startswith("CR3 0x4000")


def test_a_known_deviation_passes_and_is_told() -> None:
    known = case("c 6 nobody~exit", "name vector => who")
    raw = vmexit(interruption_info="0x80000306")
    judgement, deviations = judged(known, seen(**raw))
    assert judgement.verdict is Verdict.PASS
    assert deviations == ["who seen exit, who wanted nobody"]
    assert judged(known, seen(who="nobody"))[1] == []
    assert judged(known, seen(**hit(6)))[0].verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("format_", "got", "length"),
    [
        ("vmx", vmexit(interruption_info="0x80000603", length="0x2"), "0x2"),
        ("svm", svm_exit(reason="0x43"), "none"),
        ("vmx", hit(3), "none"),
    ],
)
def test_an_exit_has_an_instruction_length_on_vmx(
    format_: str, got: dict[str, Any], length: str
) -> None:
    right, wrong = (
        judged(case(f"c 3 {cell}", "name vector => length"), seen(format_, **got))[0]
        for cell in (length, "1")
    )
    assert right.verdict is Verdict.PASS
    assert wrong.reason == f"length seen {length}, length wanted 0x1 (1)"


def test_a_refusal_must_change_nothing() -> None:
    refused = case("c 13 EINVAL yes nobody", "name vector => errno unchanged who")
    raw = {"errno": "EINVAL", "who": "nobody"}
    assert judged(refused, seen(**raw))[0].verdict is Verdict.PASS
    judgement, _ = judged(refused, seen(changed=["events.exception.nr"], **raw))
    assert judgement.reason == "unchanged seen no, unchanged wanted yes"


@pytest.mark.parametrize(
    ("payload", "dr6"),
    [(0x1, 0xFFFF0FF1), (0x4000, 0xFFFF4FF0), (0x1001, 0xFFFF0FF1), (0x10000, 0xFFFE0FF0),
     (0x800, 0xFFFF07F0)],
)  # fmt: skip
def test_dr6_after_a_debug_exception(payload: int, dr6: int) -> None:
    assert dr6_after(payload) == dr6


def test_a_register_is_the_vcpu_s_where_nobody_got_anything() -> None:
    kept = case("c 14 EINVAL same", "name vector => errno cr2")
    raw = {"errno": "EINVAL", "who": "nobody"}
    assert judged(kept, seen(**raw, cr2="0xc2c2c000"))[0].verdict is Verdict.PASS
    judgement, _ = judged(kept, seen(**raw, cr2="0x5000"))
    assert judgement.reason == "cr2 seen 0x5000, cr2 wanted 0xc2c2c000 (same)"


def test_the_columns_are_judged_from_left_to_right() -> None:
    raw = {**hit(), "dr7": "0x400"}
    for columns, cells, first in (("errno who", "EINVAL nobody", "errno"),
                                  ("who errno", "nobody EINVAL", "who")):  # fmt: skip
        judgement, _ = judged(case(f"c 14 {cells}", f"name vector => {columns}"), seen(**raw))
        assert judgement.reason.startswith(f"{first} seen")


PAST = {"interruption_info": "0x80000b0e", "error_code": "0x2", "qualification": "0x40005000"}


@pytest.mark.parametrize(
    ("earlier", "code", "verdict"),
    [
        (PAST, "0x6", Verdict.PASS),
        (PAST, "0x2", Verdict.INCONCLUSIVE),
        ({**PAST, "qualification": "0x5000"}, "0x6", Verdict.INCONCLUSIVE),
        ({**PAST, "interruption_info": "0x0"}, "0x6", Verdict.INCONCLUSIVE),
        ({}, "0x6", Verdict.INCONCLUSIVE),
    ],
)
def test_something_stale_must_be_there_to_be_told_apart(
    earlier: dict[str, str], code: str, verdict: Verdict
) -> None:
    columns = "name vector code payload earlier => who code qual"
    one = case(f"c 14 {code} 0x5000 yes exit given payload", columns)
    judgement, _ = judged(one, seen(**vmexit(error_code=code), earlier=earlier))
    assert judgement.verdict is verdict


PENDING = {
    "injected": 0, "pending": 1, "has_payload": 1, "vector": 14, "has_code": 1, "code": "0x6",
    "payload": "0x5000",
}  # fmt: skip


@pytest.mark.parametrize(
    ("told", "verdict"),
    [
        ({}, Verdict.PASS),
        ({"vector": 13}, Verdict.FAIL),
        ({"has_code": 0}, Verdict.FAIL),
        ({"code": "0x0"}, Verdict.FAIL),
        ({"payload": "0x0"}, Verdict.FAIL),
    ],
)
def test_what_kvm_returns_must_be_what_was_sent(told: dict[str, Any], verdict: Verdict) -> None:
    one = case("c 14 0x6 0x5000 L2 pending+payload handler",
               "name vector code payload active => returned who")  # fmt: skip
    judgement, _ = judged(one, seen(**hit(), returned={**PENDING, **told}))
    assert judgement.verdict is verdict
    assert (verdict is Verdict.PASS) != judgement.reason.startswith("KVM_GET_VCPU_EVENTS returned")


def test_what_was_refused_leaves_the_one_before_and_what_was_accepted_replaces_it() -> None:
    busy = case("c 3 6 EBUSY handler", "name vector first => errno who")
    assert judged(busy, seen(**hit(6), errno="EBUSY"))[0].verdict is Verdict.PASS
    next_one = case("c 3 6 none handler", "name vector first => errno who")
    assert judged(next_one, seen(**hit(3)))[0].verdict is Verdict.PASS
    assert judged(next_one, seen(**hit(6)))[0].verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("format_", "given", "value"),
    [
        ("vmx", vmexit(idt_vectoring_info="0x80000306"), "0x306"),
        ("vmx", vmexit(idt_vectoring_info="0x306"), "none"),
        ("svm", svm_exit(exit_int_info="0x80000b0d"), "0xb0d"),
        ("svm", svm_exit(exit_int_info="0x0"), "none"),
    ],
)
def test_what_l1_is_told_of_the_event_on_its_way(
    format_: str, given: dict[str, Any], value: str
) -> None:
    one = case(f"c 14 exit {value}", "name vector => who vectoring")
    assert judged(one, seen(format_, **given))[0].verdict is Verdict.PASS
    other = case("c 14 exit 0x30e", "name vector => who vectoring")
    assert judged(other, seen(format_, **given))[0].reason.startswith(f"vectoring seen {value}")
