# SPDX-License-Identifier: MIT
"""The proof rule: what a job's green cases prove, and what they must have beside them for it.

A case with L2 active says something about L2 only with its controls (l2gate/contract/choice.py says
what one is): the same sent while L1 is active is right too, and where userspace writes the struct
itself, injected=0 is accepted while L2 is active.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from l2gate.contract.case_result import CaseResult, TableCase
from l2gate.contract.choice import exception_of, place_of, sent_of, words_of
from l2gate.contract.judge import Verdict
from l2gate.contract.paths import ALL
from l2gate.contract.vectors import EXCEPTIONS


@dataclass(frozen=True)
class Question:
    """What a job was asked: under which ``contract`` (empty: it never came to that), limited to
    which ``path`` and to cases with which words (``case``; empty: all)."""

    contract: str = ""
    path: str = ALL
    case: str = ""

    @property
    def limits(self) -> str:
        """How it was limited, for a verdict; empty if it was not."""
        limits = [] if self.path == ALL else [f"by {self.path}"]
        return " ".join([*limits, *([f"with {self.case}"] if self.case else [])])


@dataclass(frozen=True)
class Proven:
    """The verdict of a job whose cases all pass, the reason, and a hint (it may be empty)."""

    verdict: Verdict
    reason: str
    hint: str = ""


def prove(question: Question, cases: Sequence[CaseResult]) -> Proven:
    """What green cases prove."""
    counted, proven = _counted(question, cases)
    by = f" {question.limits}" if question.limits else ""
    words = _words(question, cases)
    if not counted and cases and question.case:
        told = f"{len(cases)} cases{by}; by themselves they prove nothing of L2"
        return Proven(Verdict.PASS, told)
    if not counted:
        reason = f"{words.none}{by and f', asked for was{by}'}"
        return Proven(Verdict.INCONCLUSIVE, reason, _RUN_ALL)
    if len(proven) < len(counted):
        lacking = f"{len(counted) - len(proven)} of {len(counted)} {words.ones} lack their control"
        return Proven(Verdict.INCONCLUSIVE, f"{lacking}: {words.control}", _RUN_ALL)
    reason = f"{len(cases)} cases{by}, {len(proven)} {words.proven}{beside(question, cases)}"
    return Proven(Verdict.PASS, reason)


def nothing_proven(question: Question, cases: Sequence[CaseResult]) -> bool:
    """Whether nothing was proven with L2 active: such a job is not green."""
    if cases and question.case:
        return False  # whoever asks for one case knows that it may prove nothing of L2
    return not _counted(question, cases)[1]


def beside(question: Question, cases: Sequence[CaseResult]) -> str:
    """What was seen beside the promise: it decides nothing, and is told in the same breath."""
    known = sum(bool(case.deviations) for case in cases)
    found = sum(bool(case.finding) for case in cases)
    told = []
    if known and question.contract == "payload":
        told.append(f", {known} with a known deviation")
    elif known:
        told.append(f"; beside the promise {known} are as known of this era")
    if found:
        told.append(f", {found} {'is a finding' if found == 1 else 'are findings'} beside it")
    return "".join(told)


_RUN_ALL = "run all of tests/injection"


@dataclass(frozen=True)
class _Words:
    """How a contract's proofs are spoken of."""

    none: str
    ones: str
    control: str
    proven: str


_WORDS = {
    "refuse": _Words(
        "no refusal was proven while L2 was active",
        "refusals",
        "the same struct accepted while L1 is active, and injected=0 accepted while L2 is active",
        "proven refusals while L2 was active",
    ),
    "payload": _Words(
        "no case of the payload contract had L2 active",
        "cases with L2 active",
        "the same struct sent while L1 is active",
        "proven while L2 was active",
    ),
    "free": _Words(
        "no case had L2 active",
        "cases with L2 active",
        "the same sent while L1 is active",
        "proven while L2 was active; the commit's check does not cover this path",
    ),
}


def _words(question: Question, cases: Sequence[CaseResult]) -> _Words:
    if question.contract == "payload":
        return _WORDS["payload"]
    free = question.limits and not any(case.covered for case in cases)
    return _WORDS["free" if free else "refuse"]


def _counted(
    question: Question, cases: Sequence[CaseResult]
) -> tuple[list[CaseResult], list[CaseResult]]:
    """The cases that a green job rests on, and those of them that have their controls.

    Under the refuse contract these are the refusals. A job limited to a path that the commit's
    check does not cover has none: there it is that the exceptions go to whom they must.
    """
    if question.contract == "payload":
        return _accepted(cases), _proven_accepted(cases, cases)
    free = [case for case in cases if not case.covered] if question.limits else []
    return (
        _refusals(cases) + _accepted(free),
        _proven_refusals(cases) + _proven_accepted(free, free),
    )


def _passing(cases: Sequence[CaseResult], level: str) -> list[CaseResult]:
    return [c for c in cases if c.active_level == level and c.verdict is Verdict.PASS]


def _accepted(cases: Sequence[CaseResult]) -> list[CaseResult]:
    """The passing cases with L2 active in which KVM took what userspace sent."""
    return [
        case
        for case in _passing(cases, "L2")
        if case.seen_errno is None and (isinstance(case, TableCase) or case.injected)
    ]


def _proven_accepted(cases: Sequence[CaseResult], among: Sequence[CaseResult]) -> list[CaseResult]:
    """Those that have their control: the same, sent while L1 is active, was right too."""
    in_l1 = {_sent(case) for case in _passing(among, "L1")}
    return [case for case in _accepted(cases) if _sent(case) in in_l1]


def _refusals(cases: Sequence[CaseResult]) -> list[CaseResult]:
    """The passing refusals of exceptions while L2 is active: what the commit is about.

    What is no exception (vector 2, beyond 31) is refused whoever is active and proves nothing.
    """
    return [
        case
        for case in _passing(cases, "L2")
        if case.vector in EXCEPTIONS and case.expected_errno is not None
    ]


def _proven_refusals(cases: Sequence[CaseResult]) -> list[CaseResult]:
    """Those that have both controls: the same exception accepted while L1 is active, and, where
    userspace writes the struct itself, injected=0 accepted while L2 is active."""
    in_l1 = {_exception(case) for case in _passing(cases, "L1") if case.expected_errno is None}
    nothing = {
        _place(case)
        for case in _passing(cases, "L2")
        if case.expected_errno is None and not case.injected
    }
    return [
        case
        for case in _refusals(cases)
        if _exception(case) in in_l1 and (_place(case) in nothing or not case.own_struct)
    ]


def _sent(case: CaseResult) -> tuple[str, ...]:
    return case.vm, *sent_of(words_of(case))


def _exception(case: CaseResult) -> tuple[str, ...]:
    return case.vm, *exception_of(words_of(case))


def _place(case: CaseResult) -> tuple[str, ...]:
    return case.vm, *place_of(words_of(case))
