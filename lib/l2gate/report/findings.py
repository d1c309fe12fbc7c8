# SPDX-License-Identifier: MIT
"""What a run that is not green has found: each failure once, in at most five lines, worst first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from l2gate.contract.case_result import CaseResult, TableCase
from l2gate.contract.judge import THEN, Verdict
from l2gate.contract.vectors import label
from l2gate.records.descriptions import Delivery
from l2gate.report import again
from l2gate.report.again import Again
from l2gate.report.result import Result, TestResult
from l2gate.report.words import listed, proof, vectors, wanted_and_seen

#: Numbers in what was seen do not make it another failure.
_NUMBER = re.compile(r"0x[0-9a-f]+|\d+|#[A-Z]{2}\b")
_HINT = re.compile(r" \| hint: |; hint: ")


@dataclass(frozen=True)
class Finding:
    """``lines`` are (what it is, text), one line each; ``rank`` orders findings, worst first."""

    verdict: str
    lines: tuple[tuple[str, str], ...]
    rank: tuple[int, ...]


def findings(result: Result) -> list[Finding]:
    """All of them. Cases that fail alike are one, whatever their vectors and tests."""
    lines = _Lines(result)
    judged = (Verdict.FAIL, Verdict.INCONCLUSIVE)
    groups = _alike([case for case in result.cases if case.verdict in judged])
    found = [lines.of_cases(group) for group in groups]
    found += [lines.of_complaint(said) for said in result.complaints]
    told = {(case.test, case.verdict) for group in groups for case in group}
    left = [test for test in result.tests if (test.name, test.verdict) not in told]
    found += lines.of_deliveries([test for test in left if test.verdict == Verdict.FAIL])
    for verdict in (Verdict.INFRA_ERROR, Verdict.INCONCLUSIVE):
        found += lines.of_tests(verdict, [test for test in left if test.verdict == verdict])
    found += lines.of_tests(Verdict.INFRA_ERROR, _broke_off_later(result.tests))
    return sorted(found, key=lambda one: one.rank)


def _alike(cases: Sequence[CaseResult]) -> list[list[CaseResult]]:
    groups: dict[tuple[str, ...], list[CaseResult]] = {}
    for case in cases:
        shape = [_NUMBER.sub("#", text) for text in wanted_and_seen(case)]
        groups.setdefault((case.verdict, case.active_level, *shape), []).append(case)
    return list(groups.values())


def _broke_off_later(tests: Sequence[TestResult]) -> list[TestResult]:
    """What happened to a test after its first failing case."""
    return [
        TestResult(test.name, Verdict.INFRA_ERROR, test.reason.partition(THEN)[2])
        for test in tests
        if THEN in test.reason
    ]


def hint_of(reason: str) -> tuple[str, str]:
    """The cause and the hint of an error's or a skip's text (l2gate/foundation/errors.py)."""
    cause, *hints = _HINT.split(reason)
    return cause, "; ".join(hints)


class _Lines:
    """The findings of one result, in words."""

    def __init__(self, result: Result) -> None:
        self._result = result
        self._tests = {test.name: test for test in result.tests}
        self._settings = again.of_run(result)
        places = {test.name: test.place for test in result.tests if test.place}
        self._again = Again(self._settings, places, result.cases)

    def of_cases(self, cases: list[CaseResult]) -> Finding:
        lead = self._lead(cases)
        wanted, seen = wanted_and_seen(lead[0])
        if len({wanted_and_seen(case) for case in cases}) > 1:
            seen += f" (of {_name(lead[0])}; of the others likewise)"
        # Worst is what is wrong with L2 active, and of that what is wrong with most.
        level = 0 if lead[0].active_level == "L2" else 1
        return Finding(
            lead[0].verdict.value,
            (
                ("asked", f"{_asked(cases)}; {self._sentence(lead, cases)}"),
                ("wanted", wanted),
                ("seen", seen),
                ("proof", proof(lead[0])),
                ("again", self._again.line(lead)),
            ),
            (_RANK[lead[0].verdict], level, -len(cases)),
        )

    def _lead(self, cases: list[CaseResult]) -> list[CaseResult]:
        """The cases of the test that says most with the fewest."""
        by_test: dict[str, list[CaseResult]] = {}
        for case in cases:
            by_test.setdefault(case.test, []).append(case)

        def order(some: list[CaseResult]) -> tuple[int, bool, int]:
            return -len({c.vector for c in some}), some[0].repeat > 1, len(some)

        return min(by_test.values(), key=order)

    def _sentence(self, lead: list[CaseResult], cases: list[CaseResult]) -> str:
        """The test that says it, in its own words, and how many more do."""
        name = lead[0].test
        more = len({case.test for case in cases}) - 1
        also = f" and {more} more test{'s' if more > 1 else ''}" if more else ""
        rows = [case.row for case in lead if isinstance(case, TableCase)]
        told = f" ({listed(rows, one='more rows')})" if rows else ""
        count = f"{len(cases)} case{'s' if len(cases) > 1 else ''}"
        return f"{count} of {self._says(name)}{told}{also}"

    def _says(self, name: str) -> str:
        test = self._tests.get(name)
        return f'{name} ("{test.says}")' if test and test.says else name

    def of_complaint(self, said: str) -> Finding:
        return Finding(
            Verdict.FAIL.value,
            (
                ("asked", "what L0's kernel says of itself during the job"),
                ("wanted", "no WARN, oops or the like"),
                ("seen", said),
                ("proof", f"L0's console, in {self._result.logs}/consoles"),
                ("again", again.run_line(self._settings, self._result.asked)),
            ),
            (_RANK[Verdict.FAIL], 2, 0),
        )

    def of_deliveries(self, tests: list[TestResult]) -> list[Finding]:
        """Tests that fail by what became of an exception that KVM had accepted."""
        found = []
        for test in tests:
            missed = [
                one
                for one in self._result.deliveries
                if one.test == test.name and one.wanted != one.seen
            ]
            if not missed:
                found += self.of_tests(Verdict.FAIL, [test])
                continue
            cases = [
                case
                for case in self._result.cases
                if case.test == test.name and case.vector in {one.vector for one in missed}
            ]
            found.append(self._of_delivery(test, missed, cases))
        return found

    def _of_delivery(
        self, test: TestResult, missed: list[Delivery], cases: list[CaseResult]
    ) -> Finding:
        seen = ", ".join(f"{label(m.vector, None)}: {m.seen or 'no signal'}" for m in missed)
        line = self._again.line(cases) if cases else self._again.tests([test.name])
        return Finding(
            Verdict.FAIL.value,
            (
                (
                    "asked",
                    f"{vectors(missed)} accepted while L1 is active; {self._says(test.name)}",
                ),
                ("wanted", f"a process of L1 takes {listed(str(m.wanted) for m in missed)}"),
                ("seen", seen),
                ("proof", proof(cases[0]) if cases else "the process's own record"),
                ("again", line),
            ),
            (_RANK[Verdict.FAIL], 1, -len(missed)),
        )

    def of_tests(self, verdict: Verdict, tests: Sequence[TestResult]) -> list[Finding]:
        """Tests that ended alike, by their reason alone."""
        if self._result.error:  # what did not run because of that is said there
            tests = [test for test in tests if test.reason not in _NOT_RUN]
        groups: dict[str, list[TestResult]] = {}
        for test in tests:
            groups.setdefault(_NUMBER.sub("#", test.reason), []).append(test)
        found = []
        for group in groups.values():
            cause, hint = hint_of(group[0].reason)
            names = [test.name for test in group]
            asked = self._says(names[0]) if len(names) == 1 else listed(names, 2, "more tests")
            lines = [("asked", asked), ("cause", cause), ("hint", hint)]
            lines += [("logs", self._result.logs), ("again", self._again.tests(names))]
            told = tuple((name, " ".join(text.split())) for name, text in lines if text)
            found.append(Finding(verdict.value, told, (_RANK[verdict], 3, -len(group))))
        return found


#: What a test is said to have come to if it never came to anything.
_NOT_RUN = ("it did not run",)
_RANK = {Verdict.FAIL: 0, Verdict.INFRA_ERROR: 1, Verdict.INCONCLUSIVE: 2}


def _asked(cases: Sequence[CaseResult]) -> str:
    """What userspace did in all of them."""
    codes = {case.error_code is not None for case in cases if case.injected}
    parts = [vectors(cases)]
    if codes == {True, False}:
        parts.append("with and without an error code")
    elif codes == {True}:
        given = {case.error_code for case in cases if case.injected}
        one = f"error code {given.pop():#x}" if len(given) == 1 else "an error code"
        parts.append(f"with {one}")
    if not any(case.injected for case in cases):
        parts.append("with injected=0")
    repeats = {case.repeat for case in cases}
    if min(repeats) > 1:
        parts.append(f"{max(repeats)} times each")
    by = " and ".join(dict.fromkeys(case.path for case in cases))
    whose = "QEMU's own " if all(case.by_qemu for case in cases) else ""
    return f"{' '.join(parts)} by {whose}{by} while {cases[0].active_level} is active"


def _name(case: CaseResult) -> str:
    return label(case.vector, case.error_code)
