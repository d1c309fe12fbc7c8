# SPDX-License-Identifier: MIT
"""One Avocado job, followed by its timeline, and the result that it comes to."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from l2gate.bench.facts import BENCH_VARIABLE
from l2gate.foundation import settings as options
from l2gate.foundation.errors import BenchError
from l2gate.foundation.events import (
    TIMELINE_VARIABLE,
    FileSink,
    Follower,
    JobBroke,
    Subscriber,
    read_timeline,
)
from l2gate.foundation.guard import INTERRUPTED
from l2gate.foundation.process import end, start_logged
from l2gate.records.events import JobPlanned
from l2gate.report import provenance
from l2gate.report.provenance import Provenance
from l2gate.report.result import Result, assemble, exit_code, first

TESTS = "tests/injection"
#: What ends a job that runs.
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Job:
    """A job on ``tests`` (all if there are none), in a process of its own. What it leaves goes to
    ``folder``, its events to the file ``timeline``. It boots a bench of its own unless ``bench``
    describes one that is up."""

    def __init__(
        self,
        wanted: options.Settings,
        tests: Sequence[str],
        folder: Path,
        timeline: Path,
        bench: Path | None = None,
    ) -> None:
        self._bench = bench
        self._wanted, self._folder, self._timeline = wanted, folder, timeline
        self._asked = list(tests)
        self._tests = self._asked or [str(options.checkout() / TESTS)]
        self._follower = Follower(timeline)
        self._follower.new()  # what the caller has recorded it has shown as well
        self._output = folder / "avocado.log"
        self._interrupted = False

    def run(self, progress: Subscriber) -> tuple[Result, int]:
        """The result and the exit code that it means. Ctrl-C and SIGTERM end the job first."""
        start, began = time.monotonic(), provenance.here()
        environment = options.child_environment(self._wanted)
        environment[TIMELINE_VARIABLE] = str(self._timeline)
        if "TMPDIR" not in environment:  # the tests' processes leave empty folders there
            environment["TMP"] = str(self._folder)
        if self._bench:
            environment[BENCH_VARIABLE] = str(self._bench)
        command = [sys.executable, "-m", "avocado", "run", *self._tests]
        process = start_logged(command, self._output, environment)
        self._follow(process, progress)
        return self._result(time.monotonic() - start, began)

    def _follow(self, process: subprocess.Popen[bytes], progress: Subscriber) -> None:
        def pass_on(number: int, _: Any) -> None:
            self._interrupted = True
            self._broke_off(f"interrupted by {signal.Signals(number).name}")
            process.send_signal(signal.SIGTERM)

        before = {number: signal.signal(number, pass_on) for number in _ENDING}
        try:
            while process.poll() is None:
                self._show_new(progress)
                with suppress(subprocess.TimeoutExpired):  # only the screen waits for this
                    process.wait(0.1)
            self._show_new(progress)
        finally:
            end(process)  # where the screen is gone the job has not ended
            for number, handler in before.items():
                signal.signal(number, handler)

    def _show_new(self, progress: Subscriber) -> None:
        for event in self._follower.new():
            progress(event)

    def _result(self, seconds: float, began: Provenance) -> tuple[Result, int]:
        planned = first(read_timeline(self._timeline), JobPlanned)
        logs = Path(planned.folder) if planned and planned.folder else None
        avocado = _results(logs)
        if avocado is None:
            last = self._output.read_text(errors="replace").strip().splitlines()[-5:]
            self._broke_off("\n".join(["the Avocado job ended early:", *last]))
        if logs:
            (logs / "l2gate-timeline.jsonl").write_text(self._timeline.read_text())
        result, code = concluded(
            self._timeline, logs, self._wanted.to_dict(), seconds, self._asked, began
        )
        return result, INTERRUPTED if self._interrupted else code

    def _broke_off(self, cause: str) -> None:
        """The first such event is the one that the result names."""
        code = BenchError.exit_code
        broke = JobBroke(level="controller", text=cause, cause=cause, hint="", exit_code=code)
        FileSink(self._timeline)(broke)


def concluded(
    timeline: Path,
    logs: Path | None,
    settings: dict[str, str],
    seconds: float = 0.0,
    asked: Sequence[str] = (),
    began: Provenance | None = None,
) -> tuple[Result, int]:
    """What a job that has ended came to, by its timeline and by the results that Avocado has left
    in ``logs``, and the exit code that it means."""
    events = read_timeline(timeline)
    place = str(logs or "(none)")
    result = assemble(events, _results(logs), settings, seconds, place, asked, began)
    return result, exit_code(result, events)


def _results(logs: Path | None) -> dict[str, Any] | None:
    try:
        loaded = json.loads((logs / "results.json").read_text()) if logs else None
    except (OSError, ValueError):
        return None
    return loaded if isinstance(loaded, dict) else None
