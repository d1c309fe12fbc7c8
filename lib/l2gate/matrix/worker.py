# SPDX-License-Identifier: MIT
"""A process that asks some mutants one after another on one host, which it boots once.

    python -m l2gate.matrix.worker HOST FOLDER PATCH...

Mutants differ in kvm.ko alone, so the host's modules are exchanged as it runs. It is booted anew
only when its kernel has complained of itself, or when a mutant has broken it. What each came to is
FOLDER/NAME.json.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from l2gate.bench.bench import Bench
from l2gate.foundation import settings as options
from l2gate.foundation.errors import L2gateError
from l2gate.foundation.events import Event, FileSink, Timeline
from l2gate.foundation.guard import guarded
from l2gate.foundation.scratch import Scratch
from l2gate.jobs.job import Job
from l2gate.kernels.kernel import prepare
from l2gate.matrix.mutant import Mutant, read
from l2gate.plugins.known import known_tests, test_named
from l2gate.records.events import FACTS
from l2gate.report.result import Result
from l2gate.testing import EITHER


@dataclass(frozen=True)
class MutantAnswer:
    """What asking one mutant came to. ``seconds`` per phase; ``error`` says what broke."""

    name: str
    result: Result | None
    seconds: dict[str, float]
    error: str = ""
    complaint: str = ""


@dataclass
class Clock:
    """Seconds of the phases of one mutant."""

    seconds: dict[str, float] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)

    def lap(self, phase: str) -> None:
        now = time.monotonic()
        self.seconds[phase] = round(self.seconds.get(phase, 0.0) + now - self.since, 2)
        self.since = now


class Worker:
    """One host and what is asked on it."""

    def __init__(self, host: str, folder: Path) -> None:
        environment = options.from_environment()
        self._wanted = options.resolve({"host": host}, environment)
        self._folder = folder
        self._bench: Bench | None = None
        self._facts: list[Event] = []
        self._tests = known_tests()
        self._boots = 0

    def ask(self, mutant: Mutant) -> MutantAnswer:
        """Build, exchange, run the test that must catch it (all tests if it keeps the promise)."""
        clock, scratch = Clock(), Scratch("mutant")
        with scratch as private:
            try:
                kernel = prepare(mutant.spec, Timeline())
                clock.lap("build")
                bench = self._booted(mutant)
                clock.lap("boot")
                self._facts = []
                bench.exchange(kernel, l1=self._needs_l1(mutant))
                clock.lap("exchange and L1")
                result = self._run(bench, mutant, private)
                clock.lap("tests")
                complaint = bench.complaint or ""
                if complaint:
                    self._end()
                return MutantAnswer(mutant.name, result, clock.seconds, "", complaint)
            except L2gateError as error:
                complaint = (self._bench.complaint or "") if self._bench else ""
                self._end()
                clock.lap("broken")
                return MutantAnswer(mutant.name, None, clock.seconds, str(error), complaint)

    def close(self) -> None:
        self._end()

    def _needs_l1(self, mutant: Mutant) -> bool:
        if mutant.broken:
            return test_named(mutant.test).needs_l1
        contract = "refuse" if "+unpatched" in mutant.base else "payload"
        return any(t.needs_l1 for t in self._tests.values() if t.contract in (contract, EITHER))

    def _booted(self, mutant: Mutant) -> Bench:
        if self._bench is None:
            self._boots += 1
            stock = mutant.base.partition("+")[0]
            wanted = options.resolve(
                {"host": self._wanted.host, "kernel": stock}, options.from_environment()
            )
            self._private = Scratch("worker")
            # Its own: another worker may have booted the same kind of host.
            logs = self._folder / f"host-{self._wanted.host}-{os.getpid()}-{self._boots}"
            keep = Timeline(self._keep, FileSink(self._folder / "timeline.jsonl"))
            # With an L1: what it is once it has booted, each mutant's goes on from.
            self._bench = Bench.up(wanted, self._private.path, logs, keep)
        return self._bench

    def _keep(self, event: Event) -> None:
        if isinstance(event, FACTS):
            self._facts.append(event)

    def _run(self, bench: Bench, mutant: Mutant, private: Path) -> Result:
        bench.save(private / "bench.json")
        timeline = private / "timeline.jsonl"
        for fact in self._facts:
            FileSink(timeline)(fact)
        tests = [test_named(mutant.test).reference] if mutant.broken else []
        job = Job(self._wanted, tests, private, timeline, bench=private / "bench.json")
        result, _ = job.run(_silent)
        return result

    def _end(self) -> None:
        bench, self._bench = self._bench, None
        if bench:
            with suppress(L2gateError):
                bench.down()
            self._private.close()


def _silent(_: Event) -> None:
    pass


def main(words: Sequence[str]) -> int:
    host, folder = words[0], Path(words[1])
    worker = Worker(host, folder)
    try:
        for path in words[2:]:
            answer = worker.ask(read(Path(path)))
            draft = folder / f".{answer.name}.part"
            draft.write_text(json.dumps(msgspec.to_builtins(answer)))
            draft.replace(folder / f"{answer.name}.json")
    finally:
        worker.close()
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
