# SPDX-License-Identifier: MIT
"""`l2gate compare`: the same cases on every vendor's CPU, side by side."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from l2gate.contract.case_result import TableCase
from l2gate.contract.vectors import label
from l2gate.foundation import settings as options
from l2gate.foundation.errors import BenchError
from l2gate.foundation.process import start_logged
from l2gate.foundation.scratch import Scratch
from l2gate.hosts import kinds
from l2gate.hosts.kind import Can
from l2gate.report.result import Result
from l2gate.vendors.vendors import VENDORS

#: What is known to differ, as (what, vector): why.
_EXPLAINED = {key: why for vendor in VENDORS for key, why in vendor.differences.items()}
NOT_RUN = "not run"


@dataclass(frozen=True)
class Comparison:
    """One case and what it came to on each host."""

    what: str
    vector: int
    case: str
    outcomes: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        return len(set(self.outcomes)) == 1

    @property
    def judgement(self) -> str:
        """`agree`, or why they differ; a difference without an explanation is a finding."""
        if self.agrees:
            return "agree"
        known = _EXPLAINED.get((self.what, self.vector))
        return f"differ, as known: {known}" if known else "FINDING: they differ"


def rows(results: Sequence[Result]) -> list[Comparison]:
    """The cases of all results, matched with each other."""
    tables = [_outcomes(result) for result in results]
    keys = list(dict.fromkeys(key for table in tables for key in table))
    # A table's row may be about one vendor alone.
    keys = [key for key in keys if key[0] != "table" or all(key in table for table in tables)]
    return [Comparison(*key, tuple(table.get(key, NOT_RUN) for table in tables)) for key in keys]


def _outcomes(result: Result) -> dict[tuple[str, int, str], str]:
    found: dict[tuple[str, int, str], str] = {}
    for case in result.cases:
        if isinstance(case, TableCase):
            what = f"{case.table}:{case.line} {case.asked}"
            found["table", case.vector, what] = case.seen_errno or case.who
            continue
        asked = "" if case.injected else " injected=0"
        times = f" {case.repeat} times" if case.repeat > 1 else ""
        name = f"{case.active_level} active: {label(case.vector, case.error_code)}"
        changed = "" if case.proof.unchanged or not case.seen_errno else ", CHANGED"
        outcome = (case.seen_errno or "accepted") + changed
        found["injection", case.vector, f"{name}{asked}{times}"] = outcome
    for one in result.deliveries:
        name = f"L1 active: {label(one.vector, None)} reaches a process"
        found["delivery", one.vector, name] = one.seen or "nothing"
    return found


def compare(settings: options.Settings, console: Console) -> int:
    """Run the cases at once on all hosts that boot the kernel, and print the table. Returns 1 for a
    finding, 2 if a host gave no cases."""
    names = kinds.names(Can.BOOT_KERNELS)
    with Scratch("compare") as folder:
        console.print(f"asking kernel {settings.kernel} on {' and '.join(names)} ...", markup=False)
        results = _run_all(names, settings, folder)
    table = rows(results)
    console.print(_row("case", names, ""), markup=False)
    same = Counter(row.outcomes[0] for row in table if row.agrees)
    for row in table:
        console.print(_row(row.case, row.outcomes, row.judgement), markup=False, soft_wrap=True)
    findings = [row for row in table if row.judgement.startswith("FINDING")]
    agreed = ", ".join(f"{count} {outcome}" for outcome, count in same.items())
    verdicts = ", ".join(f"{n}: {r.verdict}" for n, r in zip(names, results, strict=True))
    console.print(
        f"\n{len(table)} cases: {sum(same.values())} agree ({agreed}), "
        f"{len(table) - sum(same.values()) - len(findings)} differ as known, "
        f"{len(findings)} findings; {verdicts}",
        markup=False,
        soft_wrap=True,
    )
    return 1 if findings else 0


def _row(case: str, outcomes: Sequence[str], judgement: str) -> str:
    return f"{case:<44} {''.join(f'{outcome:<18} ' for outcome in outcomes)}{judgement}"


def _run_all(names: Sequence[str], settings: options.Settings, folder: Path) -> list[Result]:
    processes = [_start(name, settings, folder) for name in names]
    try:
        for process in processes:
            process.wait()
    except BaseException:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait()
        raise
    return [_read(name, folder) for name in names]


def _start(name: str, settings: options.Settings, folder: Path) -> subprocess.Popen[bytes]:
    environment = options.child_environment(kinds.only_used(kinds.find(name), settings))
    command = [sys.executable, "-m", "l2gate", "run", "--host", name]
    command += ["--json", str(folder / f"{name}.json")]
    return start_logged(command, folder / f"{name}.log", environment)


def _read(name: str, folder: Path) -> Result:
    file = folder / f"{name}.json"
    result = Result.from_json(json.loads(file.read_text())) if file.exists() else None
    if result is None or not result.cases:
        tail = (folder / f"{name}.log").read_text(errors="replace").strip().splitlines()[-5:]
        raise BenchError("\n".join([f"{name} gave no cases:", *tail]))
    return result
