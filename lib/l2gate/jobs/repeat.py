# SPDX-License-Identifier: MIT
"""Asking the question many times: `bench` for where the seconds go, `soak` for what is flaky."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from l2gate.bench.bench import Bench
from l2gate.contract.judge import Verdict
from l2gate.foundation.errors import BenchError, L2gateError
from l2gate.foundation.events import Event, FileSink, Timeline
from l2gate.foundation.scratch import Scratch
from l2gate.foundation.settings import AUTO, Settings
from l2gate.hosts import kinds
from l2gate.hosts.kind import Can
from l2gate.jobs.job import Job
from l2gate.records.events import FACTS
from l2gate.report.result import EXIT_CODES, Result

#: A boot of the host serves this many runs of a soak.
RUNS_PER_BOOT = 5

_PHASES = {
    "prepare": "kernel and images found in the cache",
    "host": "power-on of L0 to its first SSH command",
    "l1": "QEMU on L0 to the first SSH command in L1",
    "l2": "L1 starts an L2 (once for each test; the sum)",
    "injection": "one injection with its proof (median)",
    "cases": "case tables (the sum)",
    "tests": "all vectors, all tests",
    "teardown": "L1 and L0 end",
    "total": "the whole job",
}
_ROW = "{:<15} {:<10} {:>8} {:>8} {:>8}  {}"


@dataclass(frozen=True)
class Run:
    """One run of a soak."""

    host: str
    verdict: str
    reason: str
    seconds: float


def hosts_of(settings: Settings) -> list[str]:
    """The host that was named, or all that can be used here."""
    if settings.host != AUTO:
        return [kinds.find(settings.host).name]
    usable = []
    for kind in kinds.able(Can.BOOT_KERNELS):
        try:
            kind.check(settings)
        except L2gateError:
            continue
        usable.append(kind.name)
    return usable


def _on(settings: Settings, host: str) -> Settings:
    return replace(kinds.only_used(kinds.find(host), settings), host=host)


# --- bench ----------------------------------------------------------------------------------------


def bench(settings: Settings, runs: int, console: Console) -> int:
    """Measure each phase over ``runs`` jobs with a boot of their own, and print the table."""
    console.print(_ROW.format("host", "phase", "min s", "median s", "max s", ""), markup=False)
    worst = 0
    for host in hosts_of(settings):
        results: list[Result] = []
        for _ in range(runs):
            with Scratch("bench-run") as folder:
                job = Job(_on(settings, host), (), folder, folder / "timeline.jsonl")
                result, code = job.run(_silent)
            worst = min((c for c in (worst, code) if c), default=0)  # a broken promise is worst
            if code:
                console.print(f"{host}: {result.verdict}: {result.reason}", markup=False)
            else:
                results.append(result)
        for phase, what in _PHASES.items():
            figures = [r.seconds[phase] for r in results if phase in r.seconds]
            if figures:
                row = _ROW.format(host, phase, *_spread(figures), what)
                console.print(row, markup=False, soft_wrap=True)
    return worst


def _silent(_: Event) -> None:
    pass


def _spread(figures: Sequence[float]) -> tuple[str, str, str]:
    values = (min(figures), statistics.median(figures), max(figures))
    low, middle, high = (f"{value:.2f}" for value in values)
    return low, middle, high


# --- soak -----------------------------------------------------------------------------------------


def soak(settings: Settings, runs: int, console: Console) -> int:
    """``runs`` runs on each host, a fresh boot for each fifth. Returns 0 if all pass and nothing
    is left behind, 1 if the kernel broke the promise in one, 2 if anything else is not so."""
    worst = 0
    for host in hosts_of(settings):
        done: list[Run] = []
        boots: list[float] = []
        left: list[str] = []
        while len(done) < runs:
            count = min(RUNS_PER_BOOT, runs - len(done))
            left += _soak_boot(_on(settings, host), count, done, boots, console)
        good = _summarize(host, done, boots, left, console)
        if any(run.verdict == Verdict.FAIL for run in done):
            worst = EXIT_CODES[Verdict.FAIL]
        elif not good:
            worst = worst or BenchError.exit_code
    return worst


def _soak_boot(
    settings: Settings, count: int, done: list[Run], boots: list[float], console: Console
) -> list[str]:
    """``count`` runs on one boot; returns what it left behind."""
    with Scratch("soak") as folder, _booted(settings, folder, boots) as facts:
        for number in range(count):
            timeline = folder / f"run-{number}.jsonl"
            for fact in facts:
                FileSink(timeline)(fact)
            job = Job(settings, (), folder, timeline, bench=folder / "bench.json")
            result, _ = job.run(_silent)
            run = Run(settings.host, result.verdict, result.reason, result.seconds["total"])
            done.append(run)
            console.print(
                f"{run.host} run {len(done)}: {run.verdict}, {run.seconds:.1f} s: {run.reason}",
                markup=False,
                soft_wrap=True,
            )
    return left_behind(folder)


@contextmanager
def _booted(settings: Settings, folder: Path, boots: list[float]) -> Iterator[list[Event]]:
    """A bench of this process; yields the facts that a job's result needs."""
    facts: list[Event] = []

    def keep(event: Event) -> None:
        if isinstance(event, FACTS):
            facts.append(event)

    start = time.monotonic()
    bench = Bench.up(settings, folder, folder / "consoles", Timeline(keep))
    boots.append(time.monotonic() - start)
    try:
        bench.save(folder / "bench.json")
        yield facts
    finally:
        bench.down()


def left_behind(folder: Path) -> list[str]:
    """The folder itself, and every process that still names it."""
    left = [str(folder)] if folder.exists() else []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in words:
            left.append(f"process {process.name}: {words[:120]}")
    return left


def _summarize(
    host: str, done: list[Run], boots: list[float], left: list[str], console: Console
) -> bool:
    verdicts = {v: sum(run.verdict == v for run in done) for v in {r.verdict for r in done}}
    said = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
    console.print(f"\n{host}: {len(done)} runs on {len(boots)} boots: {said}", markup=False)
    console.print(_ROW.format(host, "boot", *_spread(boots), "L0 and L1"), markup=False)
    seconds = [run.seconds for run in done]
    console.print(_ROW.format(host, "run", *_spread(seconds), "all tests"), markup=False)
    console.print(f"left behind: {'; '.join(left) or 'nothing'}\n", markup=False, soft_wrap=True)
    return set(verdicts) == {"pass"} and not left
