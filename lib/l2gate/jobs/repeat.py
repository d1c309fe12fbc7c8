# SPDX-License-Identifier: MIT
"""Asking the question many times: `bench` for where the seconds go, `soak` for what is flaky."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from l2gate.bench.bench import Bench
from l2gate.contract.judge import Verdict
from l2gate.foundation.errors import BenchError, L2gateError
from l2gate.foundation.events import Event, StepEnded, Timeline
from l2gate.foundation.guard import INTERRUPTED
from l2gate.foundation.scratch import Scratch, left_behind
from l2gate.foundation.settings import AUTO, Settings
from l2gate.hosts import kinds
from l2gate.hosts.kind import Can
from l2gate.jobs.job import Job
from l2gate.report.result import EXIT_CODES, Result

#: So many runs of a soak are from a template, and then one is a boot.
RUNS_PER_BOOT = 10

_PHASES = {
    "bare": "power-on of L0 to its first SSH command, alone: a boot of its own, before each job",
    "prepare": "kernel and images found in the cache",
    "host": "L0 to its first SSH command: from its template, or from power-on",
    "keep": "L0 and L1 are kept as a template",
    "l1": "L1 to its first SSH command: as it was kept, or booted",
    "l2": "L1 starts an L2, or shows that one goes on (the sum)",
    "injection": "one injection with its proof (median)",
    "cases": "case tables (the sum)",
    "tests": "all vectors, all tests",
    "teardown": "L1 and L0 end",
    "total": "the whole job",
}
_ROW = "{:<15} {:<10} {:>8} {:>8} {:>8}  {}"


@dataclass(frozen=True)
class Asked:
    """A kernel and the verdict that it must come to."""

    settings: Settings
    expected: str


@dataclass(frozen=True)
class Run:
    """One run of a soak."""

    host: str
    expected: str
    fresh: bool
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
        asked = _on(settings, host)
        _keep_template(asked)
        for _ in range(runs):
            bare = _bare_boot(asked)
            result, code = _job(asked)
            worst = min((c for c in (worst, code) if c), default=0)  # a broken promise is worst
            if code:
                console.print(f"{host}: {result.verdict}: {result.reason}", markup=False)
            else:
                results.append(replace(result, seconds=bare | result.seconds))
        for phase, what in _PHASES.items():
            figures = [r.seconds[phase] for r in results if phase in r.seconds]
            if figures:
                row = _ROW.format(host, phase, *_spread(figures), what)
                console.print(row, markup=False, soft_wrap=True)
        ratios = [r.seconds["total"] / r.seconds["bare"] for r in results if "bare" in r.seconds]
        if ratios:
            row = _ROW.format(host, "ratio", *_spread(ratios), "the whole job in bare boots")
            console.print(row, markup=False, soft_wrap=True)
    return worst


def _keep_template(settings: Settings) -> None:
    """So that the first job is like the others."""
    if settings.warm and not settings.fresh and kinds.find(settings.host).boots:
        Bench.once(settings, Timeline())


def _job(settings: Settings) -> tuple[Result, int]:
    """Raises KeyboardInterrupt if it was interrupted: then so is what repeats it."""
    with Scratch("run") as folder:
        result, code = Job(settings, (), folder, folder / "timeline.jsonl").run(_silent)
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    return result, code


def _bare_boot(settings: Settings) -> dict[str, float]:
    """Seconds of a boot of L0 alone, from nothing; empty where a host is not booted."""
    if not kinds.find(settings.host).boots:
        return {}
    events: list[Event] = []
    Bench.once(replace(settings, fresh=True), Timeline(events.append), l1=False)
    return {
        "bare": sum(e.seconds for e in events if isinstance(e, StepEnded) and e.phase == "host")
    }


def _silent(_: Event) -> None:
    pass


def _spread(figures: Sequence[float]) -> tuple[str, str, str]:
    values = (min(figures), statistics.median(figures), max(figures))
    low, middle, high = (f"{value:.2f}" for value in values)
    return low, middle, high


# --- soak -----------------------------------------------------------------------------------------


def soak(asked: Sequence[Asked], runs: int, console: Console) -> int:
    """``runs`` jobs on each host, one kernel of ``asked`` after another, each tenth from a boot.
    Returns 0 if each comes to what it must and nothing is left behind, 1 if the kernel broke the
    promise where it must not, 2 if anything else is not so."""
    worst = 0
    for host in hosts_of(asked[0].settings):
        done = [_soaked(number, asked, host, console) for number in range(runs)]
        left = _remains()
        good = _summarize(host, done, left, console)
        if any(run.verdict == Verdict.FAIL != run.expected for run in done):
            worst = EXIT_CODES[Verdict.FAIL]
        elif not good:
            worst = worst or BenchError.exit_code
    return worst


def _soaked(number: int, asked: Sequence[Asked], host: str, console: Console) -> Run:
    one = asked[number % len(asked)]
    settings = _on(one.settings, host)
    fresh = number % RUNS_PER_BOOT == 0 and kinds.find(host).boots
    result, _ = _job(replace(settings, fresh=fresh or settings.fresh))
    seconds = result.seconds["total"]
    run = Run(host, one.expected, fresh, result.verdict, result.reason, seconds)
    wrong = "" if run.verdict == run.expected else f", NOT {run.expected}"
    how = ", a boot" if fresh else ""
    console.print(
        f"{host} run {number + 1}: {settings.kernel}: {run.verdict}{wrong}, {seconds:.1f} s{how}: "
        f"{run.reason}",
        markup=False,
        soft_wrap=True,
    )
    return run


def _remains() -> list[str]:
    """The folders of jobs that have ended, and every process that names one."""
    folders = [str(folder) for folder in left_behind()]
    left = list(folders)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if any(folder in words for folder in folders):
            left.append(f"process {process.name}: {words[:120]}")
    return left


def _summarize(host: str, done: list[Run], left: list[str], console: Console) -> bool:
    verdicts = {v: sum(run.verdict == v for run in done) for v in {r.verdict for r in done}}
    said = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
    wrong = sum(run.verdict != run.expected for run in done)
    console.print(f"\n{host}: {len(done)} runs: {said}; {wrong} not as expected", markup=False)
    for how, fresh in (("boot", True), ("template", False)):
        if seconds := [run.seconds for run in done if run.fresh is fresh]:
            console.print(_ROW.format(host, how, *_spread(seconds), "the whole job"), markup=False)
    console.print(f"left behind: {'; '.join(left) or 'nothing'}\n", markup=False, soft_wrap=True)
    return not wrong and not left
