# SPDX-License-Identifier: MIT
"""`l2gate mutants`: the suite proves itself on kernels that are broken, or only look so."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text

from l2gate.contract.judge import Verdict
from l2gate.foundation import cache
from l2gate.foundation.errors import BenchError
from l2gate.foundation.events import Timeline
from l2gate.foundation.settings import Settings
from l2gate.hosts import kinds
from l2gate.matrix.cells import fingerprint
from l2gate.matrix.matrix import fetch_kernel, mean_seconds
from l2gate.matrix.mutant import Mutant
from l2gate.matrix.record import Record
from l2gate.matrix.schedule import Schedule, Work
from l2gate.matrix.state import State
from l2gate.matrix.worker import MutantAnswer
from l2gate.plugins.known import known_tests
from l2gate.report.durations import Durations
from l2gate.report.page import PageRow
from l2gate.report.result import Result

#: Seconds of a mutant where none has been measured, with and without an L1.
_GUESS = {True: 45.0, False: 20.0}
_LIMIT = 7200.0
_ROW = "{:<32} {:<14} {:<62} {:<15} {:>5}  {}"


class MutantOutcome(StrEnum):
    """What became of a mutant."""

    CAUGHT = "caught"
    WRONG_REASON = "wrong reason"
    SURVIVED = "survived"
    KEPT = "passed"
    FALSE_ALARM = "false alarm"
    INFRA_ERROR = "infra-error"


_GOOD = (MutantOutcome.CAUGHT, MutantOutcome.KEPT)


@dataclass(frozen=True)
class Told:
    """A mutant's outcome, and why."""

    mutant: Mutant
    outcome: MutantOutcome
    reason: str
    seconds: dict[str, float]
    result: Result | None

    @property
    def good(self) -> bool:
        return self.outcome in _GOOD

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def judge(mutant: Mutant, answer: MutantAnswer) -> Told:
    """The outcome of a mutant, from what its worker wrote.

    A broken one counts as caught only if the test that its header names fails with the words that
    the header names.
    """
    result = answer.result

    def told(outcome: MutantOutcome, reason: str) -> Told:
        return Told(mutant, outcome, reason, answer.seconds, result)

    if answer.error or result is None:
        return told(MutantOutcome.INFRA_ERROR, answer.error or "there is no result")
    if not mutant.broken:
        good = result.verdict == Verdict.PASS and not answer.complaint
        reason = answer.complaint or result.reason
        return told(MutantOutcome.KEPT if good else MutantOutcome.FALSE_ALARM, reason)
    reasons = [
        case.reason
        for case in result.cases
        if case.verdict == Verdict.FAIL and case.test == mutant.test
    ]
    if right := [reason for reason in reasons if mutant.words in reason]:
        return told(MutantOutcome.CAUGHT, f"{len(right)} cases: {right[0]}")
    if result.verdict == Verdict.FAIL:
        seen = reasons[0] if reasons else result.reason
        return told(MutantOutcome.WRONG_REASON, f"wanted {mutant.words!r}, seen {seen!r}")
    if result.verdict == Verdict.PASS or _tests_passed(result, mutant.test):
        return told(MutantOutcome.SURVIVED, result.reason)
    return told(MutantOutcome.INFRA_ERROR, f"{result.verdict}: {result.reason}")


def _tests_passed(result: Result, test: str) -> bool:
    """One test alone may prove nothing, as its controls are in others: it still let this pass."""
    return any(t.name == test and t.verdict == Verdict.PASS for t in result.tests)


class Mutants:
    """One run over mutants, from their list to their table."""

    def __init__(
        self,
        mutants: Sequence[Mutant],
        folder: Path,
        jobs: int,
        console: Console,
        settings: Settings,
    ) -> None:
        self._settings = settings
        self._mutants, self._outcome = mutants, Record(console, folder, "mutants")
        keys = [fingerprint(mutant.spec) for mutant in mutants]
        self._state = State("mutants", cache.digest(*keys, *(m.path for m in mutants)))
        self._durations = Durations("mutants")
        self._jobs = jobs or os.cpu_count() or 1
        self._told: dict[str, Told] = {}
        self._tests = known_tests()
        self._schedule = Schedule(self._jobs, self._worker_ended, lambda _: None)

    def run(self) -> int:
        """Ask all that have not been asked, print and write the table. Returns the exit code: 0 if
        all went as their headers say, 1 if one survived or was caught for another reason, 2 if
        only the bench broke."""
        start = time.monotonic()
        self._outcome.folder.mkdir(parents=True, exist_ok=True)
        for mutant in self._mutants:
            self._look(mutant)
        left = [mutant for mutant in self._mutants if mutant.name not in self._told]
        self._outcome.say(
            f"{len(left)} of {len(self._mutants)} mutants to ask, {self._jobs} hosts at once"
        )
        if left:
            fetch_kernel(left[0].base.partition("+")[0], Timeline())
        self._schedule.run(self._workers(left), self._look_for_new)
        self._look_for_new()
        told = [self._fate(mutant) for mutant in self._mutants]
        self._state.finish()
        self._write(told, time.monotonic() - start)
        return exit_code(told)

    def _fate(self, mutant: Mutant) -> Told:
        nothing = MutantAnswer(mutant.name, None, {}, self._last_words(mutant))
        return self._told.get(mutant.name) or judge(mutant, nothing)

    def _last_words(self, mutant: Mutant) -> str:
        logs = sorted(self._state.folder.glob(f"worker-{mutant.host}-*.log"))
        words = [line for log in logs for line in log.read_text(errors="replace").splitlines()]
        return f"its worker ended without it: {' / '.join(words[-3:]) or 'it said nothing'}"

    def _workers(self, left: Sequence[Mutant]) -> list[Work]:
        """As many hosts as there are jobs; what needs no L1 comes first on each."""
        works = []
        for host in dict.fromkeys(mutant.host for mutant in left):
            mine = sorted((m for m in left if m.host == host), key=self._guess)
            share = max(1, min(len(mine), round(self._jobs * len(mine) / len(left))))
            for number in range(share):
                works.append(self._worker(host, number, mine[number::share]))
        return works

    def _worker(self, host: str, number: int, mutants: Sequence[Mutant]) -> Work:
        argv = [sys.executable, "-m", "l2gate.matrix.worker", host, str(self._state.folder)]
        argv += [str(mutant.path) for mutant in mutants]
        log = self._state.folder / f"worker-{host}-{number}.log"
        guess = sum(self._guess(mutant) for mutant in mutants)
        settings = kinds.only_used(kinds.find(host), self._settings)
        return Work(f"{host} {number}", argv, log, guess, _LIMIT, settings)

    def _guess(self, mutant: Mutant) -> float:
        test = self._tests.get(mutant.test)
        return self._durations.guess(mutant.name, _GUESS[test is None or test.needs_l1])

    def _worker_ended(self, work: Work, status: int, seconds: float) -> None:
        if status:
            self._outcome.say(f"{work.name} ended with {status}; its log is {work.log}", "bold red")

    def _look_for_new(self) -> None:
        for mutant in self._mutants:
            if mutant.name not in self._told and (told := self._look(mutant)):
                self._durations.note(mutant.name, told.total)
                left = [one for one in self._mutants if one.name not in self._told]
                seconds = sum(self._guess(one) for one in left) / self._jobs
                more = f"{len(left)} left, about {seconds:.0f} s"
                self._outcome.say(
                    f"{mutant.name} on {mutant.host}: {told.outcome}, {told.total:.0f} s; "
                    f"{more if left else 'the last one'}",
                    "" if told.good else "bold red",
                )

    def _look(self, mutant: Mutant) -> Told | None:
        answer = self._state.load(mutant.name)
        told = judge(mutant, msgspec.convert(answer, MutantAnswer)) if answer else None
        if told and told.outcome is MutantOutcome.INFRA_ERROR and not self._schedule.busy:
            return None  # of an earlier run: it is asked again
        if told:
            self._told[mutant.name] = told
        return told

    def _write(self, told: Sequence[Told], seconds: float) -> None:
        heads = _ROW.format("mutant", "host", "to be caught by", "outcome", "s", "why")
        self._outcome.table(heads, [_line(one) for one in told])
        wrong = [one for one in told if not one.good]
        summary = f"{len(told)} mutants, {len(wrong)} not as their headers say, {seconds:.0f} s"
        means = mean_seconds([one.seconds for one in told])
        self._outcome.say(f"\n{summary}\nseconds for each mutant (mean): {means}")
        rows = [{**_json(one), "good": one.good} for one in told]
        self._outcome.publish("mutants", rows, "Mutants", summary, [_row(one) for one in told])


def _json(told: Told) -> dict[str, Any]:
    told_json: dict[str, Any] = msgspec.to_builtins(told, enc_hook=str)
    return told_json


def _line(told: Told) -> Text:
    mutant = told.mutant
    line = _ROW.format(
        mutant.name, mutant.host, mutant.test or "(must pass all tests)", told.outcome,
        f"{told.total:.0f}", told.reason,
    )  # fmt: skip
    return Text(line, style="" if told.good else "bold red")


def _row(told: Told) -> PageRow:
    mutant = told.mutant
    return PageRow(
        kernel=f"{mutant.name} ({mutant.base})",
        host=mutant.host,
        expected=MutantOutcome.CAUGHT.value if mutant.broken else MutantOutcome.KEPT.value,
        verdict=told.result.verdict.value if told.result else Verdict.INFRA_ERROR.value,
        as_expected=told.good,
        reason=f"{told.outcome}: {told.reason}",
        seconds=told.total,
        settings={"host": mutant.host, "kernel": mutant.spec},
        result=told.result,
        about=mutant.about,
    )


def exit_code(told: Sequence[Told]) -> int:
    """A survivor outweighs a bench that broke."""
    wrong = [one.outcome for one in told if not one.good]
    if any(outcome is not MutantOutcome.INFRA_ERROR for outcome in wrong):
        return 1
    return BenchError.exit_code if wrong else 0
