# SPDX-License-Identifier: MIT
"""Code eras: what real kernels of each have shown, and what is asked of them for it."""

from __future__ import annotations

from typing import Any

import pytest
from l2gate.contract import eras
from l2gate.contract.judge import Verdict
from l2gate.contract.table import Case, Platform, load
from l2gate.contract.table_judge import Seen, judge_case
from l2gate.injection.standalone import platform_of


def caps(**given: int) -> dict[str, int]:
    """KVM_CHECK_EXTENSION's answers, as a kernel of that era was seen to give them."""
    return {name: given.get(name.removeprefix("KVM_CAP_"), 0) for name in eras.CAPABILITIES}


#: Recorded of kernels built from their trees, on the emulated hosts.
SEEN = {
    "4.9.115": caps(),
    "4.12": caps(),
    "4.19 on VMX": caps(NESTED_STATE=4224),
    "4.19 on SVM": caps(),
    "4.20 on VMX": caps(NESTED_STATE=4224, EXCEPTION_PAYLOAD=1),
    "5.4 on SVM": caps(EXCEPTION_PAYLOAD=1, HYPERV_CPUID=1),
    "5.10 on SVM": caps(NESTED_STATE=128, EXCEPTION_PAYLOAD=1, HYPERV_CPUID=1, ASYNC_PF_INT=1),
    "6.12+patched": caps(NESTED_STATE=128, HYPERV_CPUID=1, ASYNC_PF_INT=1,
                         X86_TRIPLE_FAULT_EVENT=1),
}  # fmt: skip


@pytest.mark.parametrize(
    ("kernel", "steps"),
    [
        ("4.9.115", []),
        ("4.12", []),
        ("4.19 on VMX", ["4.19"]),
        ("4.19 on SVM", []),
        ("4.20 on VMX", ["4.19", "4.20"]),
        ("5.4 on SVM", ["4.20"]),
        ("5.10 on SVM", ["4.19", "4.20", "5.8"]),
        ("6.12+patched", ["4.19", "4.20", "5.8", "6.1"]),
    ],
)
def test_a_kernel_shows_its_steps(kernel: str, steps: list[str]) -> None:
    assert [name for name, has in eras.shown(SEEN[kernel]).items() if has] == steps


def test_what_is_not_known_is_neither_there_nor_absent() -> None:
    steps = eras.shown({"KVM_CAP_EXCEPTION_PAYLOAD": 0, "KVM_CAP_ASYNC_PF_INT": None})
    assert (steps["4.20"], steps["5.8"]) == (None, None)
    assert eras.may_be("5.8+", steps) and eras.may_be("before-5.8", steps)
    assert not eras.promises("5.8", steps)


def row(table: str, name: str, **words: str) -> Case:
    """The one case of that table with these words."""
    (found,) = [
        case
        for case in load(table).cases
        if case.name == name
        and all({**case.words, "where": case.where}.get(w) == v for w, v in words.items())
    ]
    return found


def answer(format_: str, **given: Any) -> Seen:
    raw: dict[str, Any] = {
        "errno": None, "nested_state": True, "guest_mode": True, "cr3": "0x5000", "rip": "0x0",
        "changed": [], "returned": {"injected": 0, "pending": 0, "has_payload": 0}, "hits": [],
        "dr7": "0x400", "cr2": "0xc2c2c000", "dr6": "0xffff0ff2", "back": True, **given,
    }  # fmt: skip
    return Seen.from_answer(raw, format_)


def hit(vector: int) -> dict[str, Any]:
    found = {"vector": vector, "code": None, "cr2": "0x0", "dr6": "0xffff0ff2", "dr7": "0x400"}
    return {"who": "L2-handler", "hits": [found]}


#: What 4.12 gave L1 on VMX, and 4.19 gave L2 on SVM, for INJECT_DB that L1 intercepts.
STALE = answer("vmx", who="L1-exit", exit={"reason": "0x0", "interruption_info": "0x0"})
OWN = answer("vmx", who="L1-exit", exit={"reason": "0x0", "interruption_info": "0x80000301"})
PAST_L1 = answer("svm", **hit(1))
DEBUG = {"vector": "1", "intercept": "yes", "path": "guest-debug"}
VMX_DEBUG = row("refused", "debug-is-not-refused", where="vmx", **DEBUG)
SVM_DEBUG = row("refused", "debug-is-not-refused", where="svm", **DEBUG)


@pytest.mark.parametrize(
    ("case", "seen", "kernel", "verdict", "known", "finding"),
    [
        (VMX_DEBUG, STALE, "4.12", Verdict.PASS, True, False),
        (VMX_DEBUG, OWN, "4.12", Verdict.PASS, False, False),
        (SVM_DEBUG, PAST_L1, "4.19 on SVM", Verdict.PASS, True, False),
        (SVM_DEBUG, answer("svm", who="nobody"), "4.19 on SVM", Verdict.PASS, False, True),
        (SVM_DEBUG, answer("svm", who="nobody"), "6.12+patched", Verdict.FAIL, False, False),
        (VMX_DEBUG, answer("vmx", who="nobody"), "4.19 on VMX", Verdict.FAIL, False, False),
        (VMX_DEBUG, answer("vmx", who="nobody"), "4.12", Verdict.PASS, False, True),
    ],
)
def test_only_a_promise_can_be_broken(
    case: Case, seen: Seen, kernel: str, verdict: Verdict, known: bool, finding: bool
) -> None:
    ruling = judge_case(case, seen, eras.shown(SEEN[kernel]))
    assert ruling.judgement.verdict is verdict
    assert (bool(ruling.known), bool(ruling.finding)) == (known, finding)
    if finding:
        assert "not promised before" in ruling.finding and case.since in ruling.finding


def test_what_is_known_of_an_era_is_not_tolerated_in_a_later_one() -> None:
    """A kernel of today that does what 4.19 did on SVM breaks a promise of its own."""
    ruling = judge_case(SVM_DEBUG, PAST_L1, eras.shown(SEEN["6.12+patched"]))
    assert ruling.judgement.verdict is Verdict.FAIL


@pytest.mark.parametrize("kernel", list(SEEN))
def test_the_refusal_is_a_promise_of_every_era(kernel: str) -> None:
    refusals = [
        case
        for table in ("refused", "reason-1-no-dr6-or-cr2", "reason-2-gd-too-early")
        for case in load(table).under("refuse")
        if case.expected.get("errno") and case.expected["errno"].right == "EINVAL"
    ]
    accepted = answer("vmx", **hit(6))
    for case in refusals:
        assert eras.promises(case.since, eras.shown(SEEN[kernel]))
        assert case.expected["errno"].known is None
        seen = accepted if case.active == "L2" else answer("vmx", guest_mode=False, **hit(6))
        ruling = judge_case(case, seen, eras.shown(SEEN[kernel]))
        assert ruling.judgement.verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE)


@pytest.mark.parametrize(("kernel", "gd"), [("4.12", "clear"), ("6.12+patched", "set")])
def test_gd_while_l1_is_active_is_told_by_era(kernel: str, gd: str) -> None:
    platform = Platform("svm", False, eras.shown(SEEN[kernel]))
    told = [
        case.expected["gd"].right
        for case in load("reason-2-gd-too-early").under("refuse")
        if case.holds(platform) and case.active == "L1" and case.words["injected"] == "1"
        and "gd" in case.expected
    ]  # fmt: skip
    assert told == [gd]


HEAD = {
    "format": "svm", "soft_exceptions": False, "any_error_code": False, "tcg": False, "cet": False,
    "caps": {**caps(), "KVM_CAP_SYNC_REGS": 0},
}  # fmt: skip


def test_an_amd_cpu_takes_what_is_an_exception_and_tcg_nearly_all() -> None:
    assert 9 not in platform_of(HEAD).injectable and 14 in platform_of(HEAD).injectable
    assert 21 in platform_of({**HEAD, "cet": True}).injectable
    assert 9 in platform_of({**HEAD, "tcg": True}).injectable
    assert 31 in platform_of({**HEAD, "format": "vmx"}).injectable


def test_what_a_kernel_or_cpu_lacks_is_not_asked_and_named() -> None:
    platform = platform_of(HEAD)
    lacks = {case.lacks(platform) for case in load("refused").under("refuse")} - {""}
    assert lacks == {"KVM_SYNC_X86_EVENTS", "KVM_SET_NESTED_STATE"} | {
        f"a CPU that takes vector {v} as an exception"
        for v in (5, 9, 15, *range(20, 29))
    }  # fmt: skip


def test_error_codes_are_asked_where_the_cpu_is_known_to_check_them() -> None:
    case = row("exceptions", "wrong-code-intel", vector="6", active="L1")
    for any_code, held in ((False, True), (True, False), (None, False)):
        platform = platform_of({**HEAD, "format": "vmx", "any_error_code": any_code})
        assert case.holds(platform) is held
    unknown = platform_of({**HEAD, "format": "vmx", "any_error_code": None})
    assert "IA32_VMX_BASIC" in case.lacks(unknown)
