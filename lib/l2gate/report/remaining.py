# SPDX-License-Identifier: MIT
"""What a job is expected to take still, by what earlier ones on that kind of host have taken."""

from __future__ import annotations

import time

from l2gate.contract.judge import Verdict
from l2gate.contract.paths import ALL
from l2gate.foundation.events import Event, StepBegan, StepEnded
from l2gate.records.descriptions import AboutTest
from l2gate.records.events import ContractDecided, JobPlanned, VerdictReached
from l2gate.report.durations import Durations

#: In the cache, beside those of matrix and mutants.
KIND = "runs"
_BEFORE, _AFTER = ("prepare", "host", "l1"), ("teardown",)
_EITHER = "either"
#: Seconds of a test where none has been measured.
_TEST_SECONDS = 3.0


class Remaining:
    """Listens to a job's timeline; at its end keeps what each step and test took."""

    def __init__(self) -> None:
        self._durations = Durations(KIND)
        self._prefix = ""
        self._about: dict[str, AboutTest] = {}
        self._phases: list[str] = []
        self._tests: list[str] = []
        self._since = time.time()
        self._took: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, JobPlanned):
            self._plan(event)
        elif isinstance(event, ContractDecided):
            held = (event.contract.name, _EITHER)
            self._tests = [test for test in self._tests if self._contract(test) in held]
        elif isinstance(event, StepBegan) and event.phase in (*_BEFORE, *_AFTER):
            self._since = event.at
        elif isinstance(event, StepEnded) and event.phase in (*_BEFORE, *_AFTER):
            self._ended(event)
        elif isinstance(event, VerdictReached):
            self._verdict(event)

    @property
    def seconds(self) -> float | None:
        """From now to the end; None as long as nothing is known of such a job."""
        if not self._prefix or self._durations.known(self._name("host")) is None:
            return None
        before = [self._guess(phase) for phase in self._phases if phase in _BEFORE]
        tests = [self._guess(test) for test in self._tests]
        after = [self._guess(phase) for phase in self._phases if phase in _AFTER]
        rest = before + tests + after
        if not rest:
            return 0.0
        spent = min(rest[0], max(0.0, time.time() - self._since))
        return sum(before) + self._of_one_contract() + sum(after) - spent

    def _of_one_contract(self) -> float:
        """Seconds of the tests; as long as the contract is not known, of the longer one."""
        sums: dict[str, float] = {}
        for test in self._tests:
            contract = self._contract(test)
            sums[contract] = sums.get(contract, 0.0) + self._guess(test)
        return sums.pop(_EITHER, 0.0) + max(sums.values(), default=0.0)

    def _guess(self, name: str) -> float:
        return self._durations.guess(
            self._name(name), 0.0 if name in (*_BEFORE, *_AFTER) else _TEST_SECONDS
        )

    def _name(self, what: str) -> str:
        return f"{self._prefix} {what}"

    def _plan(self, job: JobPlanned) -> None:
        limited = " limited" if job.case or job.path != ALL else ""
        self._prefix = f"{job.host} {job.l2}{limited}"
        self._about, self._tests = job.about, list(job.tests)
        needs_l1 = any(self._about.get(test, AboutTest()).needs_l1 for test in self._tests)
        self._phases = [p for p in (*_BEFORE, *_AFTER) if needs_l1 or p != "l1"]
        self._since = time.time()

    def _contract(self, test: str) -> str:
        return self._about.get(test, AboutTest()).contract

    def _ended(self, event: StepEnded) -> None:
        phase = event.phase
        if phase in self._phases:
            self._phases.remove(phase)
        self._since = event.at
        if not event.failed:
            self._took[self._name(phase)] = event.seconds
        if phase in _AFTER and self._prefix:
            self._durations.note_all(self._took)

    def _verdict(self, event: VerdictReached) -> None:
        test = event.test
        if test in self._tests:  # not of another contract, so it may skip for what the host lacks
            self._tests.remove(test)
            if event.verdict in (Verdict.PASS, Verdict.FAIL, Verdict.SKIP):
                self._took[self._name(test)] = max(0.0, event.at - self._since)
        self._since = event.at
