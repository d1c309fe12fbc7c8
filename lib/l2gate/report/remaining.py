# SPDX-License-Identifier: MIT
"""What a job is expected to take still, by what earlier ones on that kind of host have taken."""

from __future__ import annotations

import time
from typing import Any

from l2gate.contract.judge import Verdict
from l2gate.foundation.events import Event
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
        self._about: dict[str, dict[str, Any]] = {}
        self._phases: list[str] = []
        self._tests: list[str] = []
        self._since = time.time()
        self._took: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        if event.kind == "fact":
            self._fact(event.data)
        elif event.kind == "begin" and event.data.get("phase") in (*_BEFORE, *_AFTER):
            self._since = event.at
        elif event.kind == "end" and event.data.get("phase") in (*_BEFORE, *_AFTER):
            self._ended(event)
        elif event.kind == "verdict":
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
            contract = str(self._about.get(test, {}).get("contract", _EITHER))
            sums[contract] = sums.get(contract, 0.0) + self._guess(test)
        return sums.pop(_EITHER, 0.0) + max(sums.values(), default=0.0)

    def _guess(self, name: str) -> float:
        return self._durations.guess(
            self._name(name), 0.0 if name in (*_BEFORE, *_AFTER) else _TEST_SECONDS
        )

    def _name(self, what: str) -> str:
        return f"{self._prefix} {what}"

    def _fact(self, data: dict[str, Any]) -> None:
        if data["subject"] == "job":
            limited = " limited" if data.get("case") or data.get("path", "all") != "all" else ""
            self._prefix = f"{data.get('host', '')} {data.get('l2', '')}{limited}"
            self._about, self._tests = data.get("about", {}), list(data.get("tests", ()))
            needs_l1 = any(self._about.get(t, {}).get("needs_l1", True) for t in self._tests)
            self._phases = [p for p in (*_BEFORE, *_AFTER) if needs_l1 or p != "l1"]
            self._since = time.time()
        elif data["subject"] == "contract":
            held = (data["name"], _EITHER)
            self._tests = [
                t for t in self._tests if self._about.get(t, {}).get("contract", _EITHER) in held
            ]

    def _ended(self, event: Event) -> None:
        phase = event.data["phase"]
        if phase in self._phases:
            self._phases.remove(phase)
        self._since = event.at
        if not event.data.get("failed") and event.seconds is not None:
            self._took[self._name(phase)] = event.seconds
        if phase in _AFTER and self._prefix:
            self._durations.note_all(self._took)

    def _verdict(self, event: Event) -> None:
        test = event.data["test"]
        if test in self._tests:  # not of another contract, so it may skip for what the host lacks
            self._tests.remove(test)
            if event.data["verdict"] in (Verdict.PASS, Verdict.FAIL, Verdict.SKIP):
                self._took[self._name(test)] = max(0.0, event.at - self._since)
        self._since = event.at
