# SPDX-License-Identifier: MIT
"""`l2gate observe`: what a kernel does where nothing is promised, held against what is recorded.

Nothing here fails a kernel. A case that ends in a WARN or worse costs the host, and the next case
gets a new one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from l2gate.bench.bench import Bench
from l2gate.bench.facts import BenchFacts
from l2gate.contract.table import QUIRKS, Case, load
from l2gate.contract.table_judge import SEEN, Seen
from l2gate.foundation.deadline import Budget
from l2gate.foundation.errors import L2gateError
from l2gate.foundation.events import Event, Timeline
from l2gate.foundation.files import write_whole
from l2gate.foundation.scratch import Scratch
from l2gate.foundation.settings import Settings
from l2gate.hosts import kinds
from l2gate.hosts.kind import Can
from l2gate.injection.standalone import platform_of
from l2gate.kernels.spec import DebianSpec, parse
from l2gate.records.events import HostFound, KernelFound
from l2gate.report.provenance import here
from l2gate.report.result import first
from l2gate.transport.multiplexer import SharedConnection

_TABLE = "quirks"
_SECONDS = 20
_ROW = "{:<28} {:<12} {:<44} {}"


@dataclass(frozen=True)
class Observation:
    """A case, what was seen, and what is recorded (empty: nothing, for this series)."""

    name: str
    asked: str
    seen: dict[str, str]
    recorded: dict[str, str]
    console: str

    @property
    def differs(self) -> bool:
        return any(self.seen.get(key) != value for key, value in self.recorded.items())

    @property
    def state(self) -> str:
        if not self.recorded:
            return "not recorded"
        return "DIFFERS" if self.differs else "as recorded"


class Observer:
    """One kernel on one host, which is booted anew where it does not survive."""

    def __init__(self, settings: Settings, logs: Path, console: Console) -> None:
        kind = kinds.require(settings.host, Can.BE_SPENT)
        spec = parse(kind.kernel_spec(settings) or "")
        self._series = spec.suite.series if isinstance(spec, DebianSpec) else "?"
        self._settings, self._logs, self._console = settings, logs, console
        self._boots = 0
        #: What the benches have told.
        self.events: list[Event] = []

    def run(self) -> list[Observation]:
        """Every case of the table that this host's CPU can be asked."""
        rows = load(_TABLE, QUIRKS).cases
        names = list(dict.fromkeys(case.name for case in rows))
        left, found = list(names), []
        timeline = Timeline(self.events.append)
        while left:
            self._boots += 1
            with ExitStack() as stack:
                private = stack.enter_context(Scratch("observe"))
                logs = self._logs / f"boot-{self._boots}"
                bench = Bench.up(self._settings, private, logs, timeline, l1=False)
                stack.callback(bench.down)
                bench.save(private / "bench.json")
                facts = BenchFacts.read(private / "bench.json")
                while left and not bench.complaint:
                    found += self._observe(left.pop(0), rows, facts, bench)
        return found

    def _observe(
        self, name: str, rows: Sequence[Case], facts: BenchFacts, bench: Bench
    ) -> list[Observation]:
        mine = [case for case in rows if case.name == name]
        recorded = [case for case in mine if case.seen == self._series]
        case = (recorded or mine)[0]
        seen = self._ask(case, facts)
        if seen is None:
            return []
        complaint = bench.complaint or ""
        seen["l0"] = _l0(complaint, bench)
        wanted = {key: value.right for key, value in case.expected.items()} if recorded else {}
        one = Observation(name, case.request, seen, wanted, complaint)
        self._tell(one)
        return [one]

    def _ask(self, case: Case, facts: BenchFacts) -> dict[str, str] | None:
        """What was seen, by a process of the helper for this case alone; None if the case is not
        about this CPU."""
        deadline = Budget(facts.scale).deadline(f"{case.name} on L0", _SECONDS)
        try:
            connection = SharedConnection(facts.multiplexer, "L0")
            with connection.start([facts.helper, "cases"], deadline) as remote:
                platform = platform_of(remote.read_object(deadline))
                if case.where not in ("any", platform.format):
                    return None
                answer = remote.ask(case.request, deadline)
                return _seen(case, Seen.from_answer(answer, platform.format))
        except L2gateError as error:
            return {"helper": error.cause}

    def _tell(self, one: Observation) -> None:
        told = ", ".join(f"{key} {value}" for key, value in one.seen.items())
        was = ", ".join(f"{key} {value}" for key, value in one.recorded.items()) or "nothing"
        line = _ROW.format(one.name, one.state, told, f"recorded for {self._series}: {was}")
        self._console.print(Text(line, style="bold yellow" if one.differs else ""), soft_wrap=True)
        if one.console:
            self._console.print(Text(f"    L0: {one.console}"), soft_wrap=True)


def _seen(case: Case, seen: Seen) -> dict[str, str]:
    if seen.guest_mode != (case.active == "L2"):
        return {"who": "not proven: L2 was not active"}
    return {column: SEEN[column](case, seen) for column in case.expected if column in SEEN}


def _l0(complaint: str, bench: Bench) -> str:
    if not complaint:
        return "well"
    return "warns" if complaint.find("WARNING: ") >= 0 and bench.alive else "crashes"


def observe(settings: Settings, target: Path | None, logs: Path, console: Console) -> int:
    """Print what is observed, and write it to ``target``. Always 0: nothing here is a promise."""
    began, start = here(), time.monotonic()
    observer = Observer(settings, logs, console)
    found = observer.run()
    differ = sum(one.differs for one in found)
    host, kernel = first(observer.events, HostFound), first(observer.events, KernelFound)
    seconds = time.monotonic() - start
    provenance = began.of_job(
        seconds, host.host if host else None, kernel.kernel if kernel else None, ""
    )
    console.print(f"\n{len(found)} observed, {differ} not as recorded", markup=False)
    for line in provenance.lines():
        console.print(line, markup=False, soft_wrap=True)
    if target:
        rows: list[dict[str, Any]] = [{**asdict(one), "state": one.state} for one in found]
        told = {"schema_version": 2, "provenance": asdict(provenance), "observed": rows}
        write_whole(target, json.dumps(told, indent=1) + "\n")
    return 0
