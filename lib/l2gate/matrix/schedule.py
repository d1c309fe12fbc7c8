# SPDX-License-Identifier: MIT
"""Pieces of work side by side, as many as the cores carry, the longest first."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from l2gate.foundation.guard import interrupt
from l2gate.foundation.process import end, start_logged
from l2gate.foundation.settings import Settings, child_environment, resolve


@dataclass(frozen=True)
class Work:
    """A process to run. ``guess`` is about how many seconds it takes, ``limit`` ends it,
    ``settings`` are the job's."""

    name: str
    argv: Sequence[str]
    log: Path
    guess: float
    limit: float
    settings: Settings = field(default_factory=resolve)


@dataclass
class _Running:
    work: Work
    process: subprocess.Popen[bytes]
    since: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.since


#: (the work, its exit status, its seconds) as it ends.
Ended = Callable[[Work, int, float], None]


class Schedule:
    """Call it in the main thread. An interrupt ends all that runs before it goes on."""

    def __init__(self, jobs: int, ended: Ended, started: Callable[[Work], None]) -> None:
        self._jobs, self._ended, self._started = max(1, jobs), ended, started
        self._waiting: list[Work] = []
        self._running: list[_Running] = []

    def run(self, works: Sequence[Work], tick: Callable[[], None] = lambda: None) -> None:
        """All of ``works``; ``tick`` is called now and then."""
        self._waiting = longest_first(works)
        before = signal.signal(signal.SIGTERM, interrupt)
        try:
            while self._waiting or self._running:
                while self._waiting and len(self._running) < self._jobs:
                    self._start(self._waiting.pop(0))
                time.sleep(0.1)  # only what has ended waits for this
                self._collect()
                tick()
        finally:
            self._end_all()
            signal.signal(signal.SIGTERM, before)

    @property
    def busy(self) -> bool:
        """Whether there is work."""
        return bool(self._running or self._waiting)

    @property
    def remaining(self) -> float:
        """About how many seconds are left."""
        running = [max(1.0, one.work.guess - one.seconds) for one in self._running]
        return remaining(running, [work.guess for work in self._waiting], self._jobs)

    def _start(self, work: Work) -> None:
        self._started(work)
        self._running.append(
            _Running(work, start_logged(work.argv, work.log, child_environment(work.settings)))
        )

    def _collect(self) -> None:
        for one in list(self._running):
            if one.process.poll() is None and one.seconds > one.work.limit:
                end(one.process)
            if one.process.poll() is not None:
                self._running.remove(one)
                self._ended(one.work, one.process.returncode, one.seconds)

    def _end_all(self) -> None:
        for one in self._running:
            one.process.send_signal(signal.SIGTERM)
        for one in self._running:
            end(one.process)
        self._running.clear()


def longest_first(works: Sequence[Work]) -> list[Work]:
    """So that the last one to end is a short one."""
    return sorted(works, key=lambda work: -work.guess)


def remaining(running: Sequence[float], waiting: Sequence[float], jobs: int) -> float:
    """Seconds until all is done, if each takes as long as is guessed."""
    ends = [*sorted(running), *[0.0] * (jobs - len(running))][:jobs] or [0.0]
    for seconds in waiting:
        ends.sort()
        ends[0] += seconds
    return max([*ends, *running])
