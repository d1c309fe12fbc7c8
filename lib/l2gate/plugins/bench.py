"""The job plug-in: boots the bench before a job's tests and ends it after them."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from avocado.core.plugin_interfaces import JobPost, JobPre

from l2gate import settings as options
from l2gate.bench import BENCH_VARIABLE, Bench
from l2gate.errors import L2gateError
from l2gate.events import TIMELINE_VARIABLE, Event, FileSink, Timeline, read_timeline
from l2gate.report.result import nothing_proven

_PREFIX = "l2gate-"


class BenchPlugin(JobPre, JobPost):  # type: ignore[misc]
    name = "l2gate"
    description = "boots L0 and L1 once for all system tests of a job"

    def __init__(self) -> None:
        self._bench: Bench | None = None
        self._folder: Path | None = None
        self._lock: IO[str] | None = None
        self._timeline: Path | None = None
        self._keep = False

    def pre(self, job: Any) -> None:
        if job.config.get("run.dry_run.enabled") or not _has_system_tests(job):
            return
        # SIGTERM must pass through the code that ends the bench, as Ctrl-C does.
        signal.signal(signal.SIGTERM, _as_interrupt)
        try:
            self._set_up(job)
        except L2gateError as error:
            self._tear_down()
            self._announce(error)
            sys.exit(error.exit_code)
        except BaseException:
            self._tear_down()
            raise

    def post(self, job: Any) -> None:
        if self._bench is None:
            return
        self._tear_down()
        if self._timeline and nothing_proven(read_timeline(self._timeline)):
            print("l2gate: nothing was proven in this job", file=sys.stderr)
            job.exitcode |= 1

    def _set_up(self, job: Any) -> None:
        logs = Path(job.logdir)
        self._timeline = logs / "timeline.jsonl"
        shared = os.environ.get(TIMELINE_VARIABLE)
        if shared:  # `l2gate run` follows it where it has put it
            self._timeline = Path(shared)
        os.environ[TIMELINE_VARIABLE] = str(self._timeline)
        timeline = Timeline(FileSink(self._timeline))
        wanted = options.resolve(
            _parameters(job.config), options.from_environment(), _section(job.config)
        )
        os.environ.update(options.to_environment(wanted))
        self._keep = wanted.keep == "yes"
        sweep()
        self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._lock = (self._folder / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._bench = Bench.up(wanted, self._folder, logs / "consoles", timeline)
        self._bench.save(self._folder / "bench.json")
        os.environ[BENCH_VARIABLE] = str(self._folder / "bench.json")

    def _tear_down(self) -> None:
        # A second Ctrl-C must not leave half of it behind.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            if self._bench:
                with suppress(L2gateError):
                    self._bench.down()
                self._bench = None
            if self._folder and not self._keep:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder = None
            if self._lock:
                self._lock.close()
                self._lock = None
        finally:
            signal.signal(signal.SIGINT, before)

    def _announce(self, error: L2gateError) -> None:
        print(f"l2gate: {error.cause}", file=sys.stderr)
        if error.mend:
            print(f"  mend: {error.mend}", file=sys.stderr)
        if self._timeline:
            data = {"cause": error.cause, "mend": error.mend, "exit_code": error.exit_code}
            FileSink(self._timeline)(Event("controller", "error", error.cause, data=data))


def _as_interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _has_system_tests(job: Any) -> bool:
    """Whether one of the job's tests is ours: Avocado may be run for other things as well."""
    ours = str(options.checkout() / "tests/injection")
    return any(
        str(Path(test.runnable.uri.partition(":")[0]).resolve()).startswith(ours)
        for suite in job.test_suites
        for test in _tests(suite)
    )


def _tests(suite: Any) -> list[Any]:
    class _Wrapped:
        def __init__(self, runnable: Any) -> None:
            self.runnable = runnable

    return [t if hasattr(t, "runnable") else _Wrapped(t) for t in suite.tests]


def _parameters(config: Mapping[str, Any]) -> dict[str, str]:
    """What `-p name=value` asks for."""
    given = config.get("run.test_parameters") or []
    return {str(name): str(value) for name, value in given}


def _section(config: Mapping[str, Any]) -> dict[str, str]:
    keys = {option.name: f"{options.SECTION}.{option.name}" for option in options.OPTIONS}
    return {name: str(config[key]) for name, key in keys.items() if config.get(key) is not None}


def sweep() -> None:
    """Remove what a killed controller left: its lock is free, its processes died with it."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.getuid():
            continue
        with suppress(OSError), (folder / "lock").open("r+") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
