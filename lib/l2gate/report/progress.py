# SPDX-License-Identifier: MIT
"""What a person sees while a job goes on: a line for each step; on a terminal, what runs now."""

from __future__ import annotations

import os
import time
from collections import Counter
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from l2gate.contract.case_result import CaseResult, TableCase
from l2gate.contract.judge import Verdict
from l2gate.contract.vectors import label
from l2gate.foundation.events import Event, Note, StepBegan, StepEnded
from l2gate.records.descriptions import AboutTest
from l2gate.records.events import (
    CaseJudged,
    ContractDecided,
    HostFound,
    JobPlanned,
    KernelComplained,
    VerdictReached,
)
from l2gate.report.remaining import Remaining

COLOURS = {
    Verdict.PASS.value: "green",
    Verdict.FAIL.value: "bold red",
    Verdict.SKIP.value: "yellow",
    Verdict.INFRA_ERROR.value: "bold magenta",
    Verdict.INCONCLUSIVE.value: "bold yellow",
}
#: Phases of a job that have a line, and steps without a phase: what is built or fetched.
_SHOWN = ("prepare", "host", "l1", "teardown", "")
_EITHER = "either"


class Progress:
    """A line for each step as it ends and for each test; with ``verbose`` each step's beginning
    and each injection too, with ``quiet`` nothing.

    As a context manager it shows on a terminal, in a line that goes again, what is running, since
    when, and what is expected to remain.
    """

    def __init__(self, console: Console, verbose: bool = False, *, quiet: bool = False) -> None:
        self._console, self._verbose, self._quiet = console, verbose, quiet
        self._start = time.monotonic()
        self._remaining = Remaining()
        self._live: Live | None = None
        self._steps: list[str] = []
        self._planned: list[str] = []
        self._about: dict[str, AboutTest] = {}
        self._concluded: list[str] = []
        self._cases: Counter[tuple[str, str]] = Counter()
        self._test_since = time.time()

    def __enter__(self) -> Progress:
        if not self._quiet and can_be_live(self._console):
            self._live = Live(
                console=self._console,
                get_renderable=self._now,
                transient=True,
                refresh_per_second=4,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        live, self._live = self._live, None
        if live:
            live.stop()

    def __call__(self, event: Event) -> None:
        self._remaining(event)
        if isinstance(event, StepBegan):
            self._begins(event)
        elif isinstance(event, StepEnded):
            self._ends(event)
        elif isinstance(event, CaseJudged):
            self._case(event.case)
        elif isinstance(event, VerdictReached):
            self._verdict(event)
        elif isinstance(event, Note) and event.shown:
            self._line(event.level, event.text)
        elif isinstance(event, KernelComplained):
            self._line(event.level, "its kernel complained of itself", "bold red")
        else:
            self._fact(event)

    def _fact(self, event: Event) -> None:
        if isinstance(event, JobPlanned):
            self._planned, self._about = list(event.tests), event.about
        elif isinstance(event, HostFound):
            host = event.host
            text = f"{host.kvm_module} nested={host.nested}, {host.cpu_model}"
            self._line("L0", f"{host.release} is up: {text}")
        elif isinstance(event, ContractDecided):
            contract = event.contract
            self._line("L0", f"contract: {contract.name} ({contract.why})")
            self._leave_out(contract.name)

    def _leave_out(self, contract: str) -> None:
        """Tests of another contract skip themselves at once: one line tells of them all."""
        held = (contract, _EITHER)
        nothing = AboutTest()
        about = [t for t in self._planned if self._about.get(t, nothing).contract in held]
        if len(about) < len(self._planned):
            others = len(self._planned) - len(about)
            text = f"{len(about)} are about the {contract} contract, {others} others are skipped"
            self._line("tests", text)
        self._planned = about

    def _begins(self, event: StepBegan) -> None:
        self._steps.append(event.text)
        if self._verbose:
            self._line(event.level, f"{event.text} ...")

    def _ends(self, event: StepEnded) -> None:
        if event.text in self._steps:
            self._steps.remove(event.text)
        if event.phase == "l1":
            self._test_since = event.at
        if self._verbose or event.phase in _SHOWN or event.failed:
            state = "failed" if event.failed else "done"
            self._line(event.level, f"{event.text}: {state}, {event.seconds:.1f} s")

    def _case(self, case: CaseResult) -> None:
        self._cases[case.test, "all"] += 1
        self._cases[case.test, case.verdict] += 1
        if not self._verbose:
            return
        if isinstance(case, TableCase):
            text = f"{case.row}: {case.asked}: {case.verdict}, {case.reason}"
        else:
            times = f" {case.repeat} times" if case.repeat > 1 else ""
            asked = "" if case.injected else " injected=0"
            named = f"{label(case.vector, case.error_code)}{asked}{times}"
            text = f"inject {named}: {case.seen_errno or 'accepted'}, {case.verdict}"
        self._line(f"{case.active_level} active", text, COLOURS[case.verdict])

    def _verdict(self, event: VerdictReached) -> None:
        test, verdict = event.test, event.verdict
        took, self._test_since = max(0.0, event.at - self._test_since), event.at
        counts = test in self._planned or not self._planned
        if not counts and not self._verbose:
            return
        told = f"{verdict}{self._count(test, verdict)}"
        if verdict != Verdict.SKIP:  # why is said in the end, once
            told += f", {took:.1f} s"
        number = "-"  # one of another contract
        if counts:
            self._concluded.append(test)
            number = f"{len(self._concluded)} of {max(len(self._planned), len(self._concluded))}"
        self._line("test", f"{number}  {test}: {told}; {self._clock()}", COLOURS[verdict])

    def _count(self, test: str, verdict: str) -> str:
        total, such = self._cases[test, "all"], self._cases[test, verdict]
        if not total:
            return ""
        if such == total:
            return f", {total} case{'s' if total > 1 else ''}"
        return f", {such} of {total} cases" if such else ""

    def _clock(self) -> str:
        """Since when it runs, and what is expected to remain."""
        left = self._remaining.seconds
        elapsed = f"{minutes(time.monotonic() - self._start)} elapsed"
        return elapsed if left is None else f"{elapsed}, about {minutes(left)} left"

    def _now(self) -> Text:
        """The line that goes again."""
        left = [test for test in self._planned if test not in self._concluded]
        parts = []
        if left and self._concluded:
            number = f"test {len(self._concluded) + 1} of {len(self._planned)}"
            parts.append(f"{number} {left[0]}")
        parts += self._steps[-1:]
        text = Text(f"{'now':>10}  {': '.join(parts) or 'waiting'}; {self._clock()}", style="dim")
        text.truncate(max(1, self._console.width - 1), overflow="ellipsis")
        return text

    def _line(self, level: str, text: str, style: str = "") -> None:
        if not self._quiet:
            self._console.print(Text(f"{level:>10}  ") + Text(text, style=style), soft_wrap=True)


def can_be_live(console: Console) -> bool:
    """Whether a line may be written over: on a person's terminal, not in a log or a CI's."""
    file_is_a_terminal = getattr(console.file, "isatty", lambda: False)()
    in_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
    return bool(
        file_is_a_terminal and console.is_terminal and not console.is_dumb_terminal and not in_ci
    )


def minutes(seconds: float) -> str:
    """`1:05`."""
    whole = round(max(0.0, seconds))
    return f"{whole // 60}:{whole % 60:02}"
