# SPDX-License-Identifier: MIT
"""The machines that a job's tests run on, and which test goes on which of them, one at a time.

All run on the bench's machine, where no other is to be had. From a template there is one at once:
on a controller with processors enough, tests that need no L1 run on one of their own beside the
others, and a test that comes after one which may have stopped L1 for good gets a new one.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from l2gate.bench.bench import Bench
from l2gate.contract.judge import Verdict
from l2gate.foundation.events import read_timeline
from l2gate.plugins.known import KnownTest, known_tests
from l2gate.records.events import VerdictReached

#: Fewer would only take turns.
_PROCESSORS = 2


class Machines:
    """Close it before the bench that it is made for."""

    def __init__(
        self, bench: Bench, folder: Path, timeline: Path, tests: Sequence[str], *, beside: bool
    ) -> None:
        """Of ``tests`` those without an L1 may run on a second machine if ``beside`` allows it."""
        self._bench, self._folder, self._timeline = bench, folder, timeline
        enough = len(os.sched_getaffinity(0)) >= _PROCESSORS
        self._beside = beside and enough and bench.from_template
        self._other: Bench | None = None
        self._left = sum(self._goes_beside(known_tests().get(name)) for name in tests)
        self._turns: dict[bool, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._held: dict[str, asyncio.Lock] = {}
        #: The last test that ran on the bench's machine, if it may have stopped L1 for good.
        self._spoiler = ""
        bench.save(self.main)

    @property
    def main(self) -> Path:
        """The bench that serves whoever has no machine of its own."""
        return self._folder / "bench.json"

    @property
    def count(self) -> int:
        """How many tests may run at a time."""
        return 2 if self._beside else 1

    async def begin(self, name: str) -> Path:
        """Wait until a test may run, and make the bench ready that it is to use; `ended` gives its
        turn to the next. In the main thread. Raises L2gateError."""
        while True:
            turn = self.turn(name)
            await turn.acquire()
            self._held[name] = turn
            place = self.place(name)
            if turn is self.turn(name):
                return place
            self._held.pop(name).release()  # there is no second machine: it goes with the others

    def turn(self, name: str) -> asyncio.Lock:
        """What a test holds as long as it runs: the machine that it goes on."""
        return self._turns[self._goes_beside(known_tests().get(name))]

    def place(self, name: str) -> Path:
        """The bench that a test is to use, made ready for it. Call it with its turn held, in the
        main thread. Raises L2gateError."""
        test = known_tests().get(name)
        if self._goes_beside(test):
            beside = self._folder / "beside.json"
            if self._other is None:
                self._other = self._bench.another(self._folder / "beside")
                if self._other:
                    self._other.save(beside)
            if self._other:
                return beside
            self._beside = False
        elif test:
            self._renew(test)
        return self.main

    def ended(self, name: str) -> None:
        """A test has, or it needs no machine. Nobody needs the second one after the last of its
        tests; an emulator that idles still takes a processor."""
        if turn := self._held.pop(name, None):
            turn.release()
        if self._goes_beside(known_tests().get(name)):
            self._left -= 1
            if not self._left:
                self.close()

    def close(self) -> None:
        other, self._other = self._other, None
        if other:
            other.down()

    def _goes_beside(self, test: KnownTest | None) -> bool:
        return bool(self._beside and test and not test.needs_l1)

    def _renew(self, test: KnownTest) -> None:
        """Without a template a test starts L1 anew itself, which takes ten times as long."""
        spoiler, self._spoiler = self._spoiler, ""
        if spoiler and test.needs_l1 and not self._was_skipped(spoiler) and self._bench.renew():
            self._bench.save(self.main)
        if test.test.spoils_l1_under == self._bench.contract:
            self._spoiler = test.sentence

    def _was_skipped(self, name: str) -> bool:
        events = read_timeline(self._timeline)
        verdicts = [e.verdict for e in events if isinstance(e, VerdictReached) and e.test == name]
        return verdicts[-1:] == [Verdict.SKIP]
