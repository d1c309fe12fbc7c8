# SPDX-License-Identifier: MIT
"""`l2gate matrix`: kernel x host x contract x verdict, from one run of the suite for each cell."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text

from l2gate.contract.judge import Verdict
from l2gate.foundation import cache, debian
from l2gate.foundation.errors import BenchError, L2gateError
from l2gate.foundation.events import Timeline
from l2gate.foundation.settings import Settings
from l2gate.hosts import kinds
from l2gate.kernels.kernel import prepare
from l2gate.kernels.spec import DebianSpec, parse
from l2gate.matrix.cells import Cell, fingerprint
from l2gate.matrix.record import Record
from l2gate.matrix.schedule import Schedule, Work
from l2gate.matrix.state import State
from l2gate.report.durations import Durations
from l2gate.report.page import PageRow
from l2gate.report.result import Result
from l2gate.report.terminal import COLOURS

#: A cell that takes longer is an infra-error.
_LIMIT = 1200.0
#: Of a run's seconds (report/result.py) those that do not lie within others.
_PHASES = ("prepare", "host", "l1", "tests", "teardown", "total")
_ROW = "{:<26} {:<15} {:<9} {:<9} {:<13} {:>6}  {}"


@dataclass(frozen=True)
class Found:
    """A cell and what it came to; ``result`` is that of its run, None if there is none."""

    cell: Cell
    verdict: Verdict
    reason: str
    seconds: float
    result: Result | None

    @property
    def as_expected(self) -> bool:
        return self.verdict == self.cell.expected

    @property
    def contract(self) -> str:
        return self.result.contract.name if self.result and self.result.contract else "-"

    @property
    def said(self) -> str:
        if self.as_expected:
            return self.reason
        return f"NOT AS EXPECTED ({self.cell.why}): {self.reason}"


class Matrix:
    """One matrix, from its cells to its table."""

    def __init__(
        self,
        cells: Sequence[Cell],
        folder: Path,
        jobs: int,
        console: Console,
        settings: Settings,
        name: str = "matrix",
    ) -> None:
        self._cells, self._outcome = cells, Record(console, folder, name)
        self._settings = settings
        how = cache.digest(repr(settings))
        self._keys = {cell: f"{fingerprint(cell.kernel)}-{how}-{cell.host}" for cell in cells}
        self._state = State(name, cache.digest(*self._keys.values()))
        self._durations = Durations(name)
        self._jobs = jobs or os.cpu_count() or 1
        if self._jobs > 1:  # the processors have work enough
            self._settings = replace(settings, side_by_side=False)
        self._found: dict[Cell, Found] = {}
        self._by_name = {cell.name: cell for cell in cells}
        self._schedule = Schedule(self._jobs, self._ended, self._started)

    def run(self) -> int:
        """Ask all cells that have not been asked, print and write the table. Returns the exit
        code: 0 if every cell is as expected, 1 if one's verdict is another, 2 if only the bench
        broke."""
        start = time.monotonic()
        self._outcome.folder.mkdir(parents=True, exist_ok=True)
        self._take_what_is_there()
        works = [work for cell in self._cells if (work := self._work(cell))]
        self._outcome.say(
            f"{len(works)} of {len(self._cells)} cells to ask, {self._jobs} at a time"
        )
        self._schedule.run(works)
        self._state.finish()
        found = [self._found[cell] for cell in self._cells]
        self._write(found, time.monotonic() - start)
        return exit_code(found)

    @property
    def found(self) -> list[Found]:
        """The cells that have been asked, in their order."""
        return [self._found[cell] for cell in self._cells if cell in self._found]

    def _take_what_is_there(self) -> None:
        """What an interrupted matrix had found out; where the bench broke it is asked again."""
        for cell in self._cells:
            raw = self._state.load(self._keys[cell])
            if raw and raw["verdict"] != Verdict.INFRA_ERROR:
                verdict = Verdict(raw["verdict"])
                result = Result.from_json(raw["result"]) if raw["result"] else None
                self._found[cell] = Found(cell, verdict, raw["reason"], raw["seconds"], result)
                self._outcome.say(f"{cell.name}: {verdict}, from a matrix that was interrupted")

    def _work(self, cell: Cell) -> Work | None:
        """The cell as a process; None if there is nothing to ask, or its kernel cannot be had."""
        if cell in self._found:
            return None
        try:
            fetch_kernel(cell.kernel, Timeline())
        except L2gateError as error:
            self._conclude(Found(cell, Verdict.INFRA_ERROR, str(error), 0.0, None))
            return None
        argv = [sys.executable, "-m", "l2gate", "run", "--host", cell.host]
        argv += ["--kernel", cell.kernel, "--json", str(self._target(cell))]
        kind = kinds.find(cell.host)
        guess = self._durations.guess(cell.name, kind.seconds)
        settings = kinds.only_used(kind, self._settings)
        return Work(cell.name, argv, self._log(cell), guess, _LIMIT, settings)

    def _target(self, cell: Cell) -> Path:
        return self._state.folder / f"run-{self._keys[cell]}.json"

    def _log(self, cell: Cell) -> Path:
        return self._target(cell).with_suffix(".log")

    def _started(self, work: Work) -> None:
        self._target(self._by_name[work.name]).unlink(missing_ok=True)
        self._outcome.say(f"{work.name} ...")

    def _ended(self, work: Work, status: int, seconds: float) -> None:
        cell = self._by_name[work.name]
        found = read_run(cell, self._target(cell), work.log, status, seconds)
        if found.verdict is not Verdict.INFRA_ERROR:
            self._durations.note(cell.name, seconds)
        self._conclude(found)

    def _conclude(self, found: Found) -> None:
        self._found[found.cell] = found
        self._state.save(
            self._keys[found.cell],
            {
                "verdict": found.verdict.value,
                "reason": found.reason,
                "seconds": found.seconds,
                "result": found.result.to_json() if found.result else None,
            },
        )
        mark = "as expected" if found.as_expected else "NOT AS EXPECTED"
        left = len(self._cells) - len(self._found)
        more = f"{left} left, about {self._schedule.remaining:.0f} s" if left else "the last one"
        self._outcome.say(
            f"{found.cell.name}: {found.verdict}, {mark}, {found.seconds:.0f} s; {more}",
            "" if found.as_expected else "bold red",
        )

    def _write(self, found: Sequence[Found], seconds: float) -> None:
        heads = ("kernel", "host", "contract", "expected", "verdict", "s", "why")
        self._outcome.table(_ROW.format(*heads), [_line(one) for one in found])
        wrong = [one for one in found if not one.as_expected]
        summary = f"{len(found)} cells, {len(wrong)} not as expected"
        self._outcome.say(f"\n{summary}, {seconds:.0f} s")
        for host in dict.fromkeys(one.cell.host for one in found):
            results = [one.result for one in found if one.cell.host == host]
            spent = [result.seconds if result else {} for result in results]
            told = mean_seconds(
                [{phase: one.get(phase, 0.0) for phase in _PHASES} for one in spent]
            )
            self._outcome.say(f"seconds for each cell on {host} (mean): {told}")
        rows = [{**_json(one), "as_expected": one.as_expected} for one in found]
        self._outcome.publish("cells", rows, "Kernel matrix", summary, [_row(one) for one in found])


def _json(found: Found) -> dict[str, Any]:
    found_json: dict[str, Any] = msgspec.to_builtins(found)
    return found_json


def _line(found: Found) -> Text:
    cell = found.cell
    line = _ROW.format(
        cell.label, cell.host, found.contract, cell.expected, found.verdict,
        f"{found.seconds:.0f}", found.said,
    )  # fmt: skip
    return Text(line, style="" if found.as_expected else COLOURS[found.verdict])


def _row(found: Found) -> PageRow:
    return PageRow(
        kernel=found.cell.label,
        host=found.cell.host,
        expected=found.cell.expected.value,
        verdict=found.verdict.value,
        as_expected=found.as_expected,
        reason=found.said,
        seconds=found.seconds,
        settings={"host": found.cell.host, "kernel": found.cell.kernel},
        result=found.result,
    )


def fetch_kernel(kernel: str, timeline: Timeline) -> None:
    """Its suite and its modules, fetched and built now if they were not before.

    Raises L2gateError.
    """
    spec = parse(kernel)
    if isinstance(spec, DebianSpec):
        debian.fetch(spec.suite, timeline)
    prepare(kernel, timeline)


def read_run(cell: Cell, target: Path, log: Path, status: int, seconds: float) -> Found:
    """What a run that has ended came to. One without a result is an infra-error, and so is one
    that must be red but did not come to the end of all its tests."""
    try:
        result = Result.from_json(json.loads(target.read_text()))
        verdict, reason = result.verdict, result.reason
        if cell.expected is Verdict.FAIL and not cell.harmful and (broken := _broke_off(result)):
            verdict, reason = Verdict.INFRA_ERROR, f"{broken}; beside that: {reason}"
        return Found(cell, verdict, reason, seconds, result)
    except (OSError, ValueError):
        words = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        last = " / ".join(words[-3:]) or "it said nothing"
        reason = f"the run ended with {status} and no result: {last}"
        return Found(cell, Verdict.INFRA_ERROR, reason, seconds, None)


def _broke_off(result: Result) -> str:
    """The tests that came to no verdict: a kernel that must be red would be so by the others."""
    tests = [t for t in result.tests if t.verdict == Verdict.INFRA_ERROR]
    return f"{len(tests)} tests ended early: {tests[0].reason}" if tests else ""


def mean_seconds(spent: Sequence[Mapping[str, float]]) -> str:
    """Where the seconds go: the mean of each phase."""
    means = []
    for phase in dict.fromkeys(phase for one in spent for phase in one):
        values = [one.get(phase, 0.0) for one in spent]
        means.append(f"{phase} {sum(values) / len(values):.1f}")
    return ", ".join(means)


def exit_code(found: Sequence[Found]) -> int:
    """A verdict that is another than expected outweighs a bench that broke."""
    wrong = [one.verdict for one in found if not one.as_expected]
    if any(verdict in (Verdict.PASS, Verdict.FAIL) for verdict in wrong):
        return 1
    return BenchError.exit_code if wrong else 0
