# SPDX-License-Identifier: MIT
"""The job plug-in: boots the bench before a job's tests and ends it after them."""

from __future__ import annotations

import configparser
import difflib
import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from avocado.core.plugin_interfaces import JobPost, JobPre
from avocado.core.settings import settings

from l2gate.bench.bench import Bench
from l2gate.bench.facts import BENCH_VARIABLE, CANNOT_RUN_VARIABLE
from l2gate.foundation import settings as options
from l2gate.foundation.errors import BenchError, L2gateError, MissingPrerequisite, UsageError
from l2gate.foundation.events import TIMELINE_VARIABLE, FileSink, JobBroke, Timeline
from l2gate.foundation.guard import INTERRUPTED, complain, interrupt, told
from l2gate.foundation.scratch import Scratch
from l2gate.hosts import kinds
from l2gate.jobs.job import concluded
from l2gate.plugins import spawner
from l2gate.plugins.known import in_order, known_tests
from l2gate.plugins.machines import Machines
from l2gate.records.events import JobPlanned
from l2gate.report.result import sentence


class BenchPlugin(JobPre, JobPost):  # type: ignore[misc]
    name = "l2gate"
    description = "boots L0 and L1 once for all system tests of a job"

    def __init__(self) -> None:
        self._bench: Bench | None = None
        self._scratch: Scratch | None = None
        self._timeline: Path | None = None
        self._keep = False
        self._wanted: options.Settings | None = None
        #: Whether `l2gate run` follows the job and tells what it came to.
        self._followed = False
        self._announced = False
        self._machines: Machines | None = None

    def pre(self, job: Any) -> None:
        if job.config.get("run.dry_run.enabled") or not _system_tests(job):
            return
        # SIGTERM must pass through the code that ends the bench, as Ctrl-C does.
        signal.signal(signal.SIGTERM, interrupt)
        try:
            self._set_up(job)
        except MissingPrerequisite as error:
            # The suite cannot run here: each test says so, and the job is not green.
            self._tear_down()
            os.environ[CANNOT_RUN_VARIABLE] = json.dumps([error.cause, error.hint])
        except L2gateError as error:
            self._abort(error)
        except Exception as error:  # Avocado would go on without a bench
            self._abort(BenchError(*told(error)))
        except BaseException:
            self._tear_down()
            raise

    def _abort(self, error: L2gateError) -> NoReturn:
        self._tear_down()
        self._announce(error)
        sys.exit(error.exit_code)

    def post(self, job: Any) -> None:
        if self._timeline is None or self._wanted is None:
            return
        self._tear_down()
        result, code = concluded(self._timeline, Path(job.logdir), self._wanted.to_dict())
        if code and not self._followed and not self._announced:
            complain(f"{result.verdict}: {result.reason}", result.hint)
        if job.interrupted_reason is not None and not self._followed:
            sys.exit(INTERRUPTED)
        if len(_system_tests(job)) == sum(len(suite.tests) for suite in job.test_suites):
            # Avocado has settled on its own exit status before this: only this changes it.
            sys.exit(code)
        if code and not job.exitcode:
            sys.exit(code)

    def _set_up(self, job: Any) -> None:
        logs = Path(job.logdir)
        self._timeline = logs / "timeline.jsonl"
        shared = os.environ.get(TIMELINE_VARIABLE)
        self._followed = bool(shared)
        if shared:  # `l2gate run` follows it where it has put it
            self._timeline = Path(shared)
        os.environ[TIMELINE_VARIABLE] = str(self._timeline)
        timeline = Timeline(FileSink(self._timeline))
        wanted = options.resolve(
            _parameters(job.config), options.from_environment(), _section(job.config)
        )
        self._wanted = wanted
        os.environ.update(options.to_environment(wanted))
        for suite in job.test_suites:
            # A user's own configuration of Avocado does not change what the tests rely on.
            suite.config["run.max_parallel_tasks"] = 1
        if any(suite.config.get("run.spawner") == spawner.NAME for suite in job.test_suites):
            spawner.prepare()
        for suite in job.test_suites:
            suite.tests = in_order(suite.tests)
        planned = [sentence(uri) for uri in _system_tests(job)]
        known = known_tests()
        job_planned = JobPlanned(
            level="controller",
            text=f"{len(planned)} tests",
            folder=str(logs),
            tests=planned,
            path=wanted.path,
            case=wanted.case,
            l2=wanted.l2,
            host=kinds.find(wanted.host).name,
            about={name: known[name].about for name in planned if name in known},
        )
        timeline.record(job_planned)
        if os.environ.get(BENCH_VARIABLE):
            return  # another process has booted the bench and will end it: `l2gate mutants`
        self._keep = wanted.keep
        self._scratch = Scratch("bench")
        folder = self._scratch.path
        # A test that is not known says itself what it lacks.
        l1 = any(name not in known or known[name].needs_l1 for name in planned)
        self._bench = Bench.up(wanted, folder, logs / "consoles", timeline, l1=l1)
        self._machines = Machines(
            self._bench, folder, self._timeline, planned, beside=wanted.side_by_side
        )
        os.environ[BENCH_VARIABLE] = str(self._machines.main)
        spawner.machines = self._machines
        if self._machines.count > 1:
            for suite in job.test_suites:
                if suite.config.get("run.spawner") == spawner.NAME:
                    # As many as there are, and each waits for its machine: else one that waits
                    # would keep another from a machine that is free.
                    suite.config["run.max_parallel_tasks"] = len(suite.tests)

    def _tear_down(self) -> None:
        # A second Ctrl-C must not leave half of it behind.
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
        try:
            spawner.machines = None
            if self._machines:
                with suppress(L2gateError):
                    self._machines.close()
                self._machines = None
            if self._bench:
                with suppress(L2gateError):
                    self._bench.down()
                self._bench = None
            if self._scratch:
                self._scratch.close(keep=self._keep)
                self._scratch = None
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _announce(self, error: L2gateError) -> None:
        self._announced = True
        complain(error.cause, error.hint)
        if self._timeline:
            broke = JobBroke(
                level="controller",
                text=error.cause,
                cause=error.cause,
                hint=error.hint,
                exit_code=error.exit_code,
            )
            FileSink(self._timeline)(broke)


def _system_tests(job: Any) -> list[str]:
    """Those of the job's tests that are ours: Avocado may be run for other things as well."""
    ours = str(options.checkout() / "tests/injection")
    uris = [test.runnable.uri for suite in job.test_suites for test in _tests(suite)]
    return [u for u in uris if str(Path(u.partition(":")[0]).resolve()).startswith(ours)]


def _tests(suite: Any) -> list[Any]:
    class _Wrapped:
        def __init__(self, runnable: Any) -> None:
            self.runnable = runnable

    return [t if hasattr(t, "runnable") else _Wrapped(t) for t in suite.tests]


def _parameters(config: Mapping[str, Any]) -> dict[str, str]:
    """What `-p name=value` asks for."""
    given = config.get("run.test_parameters") or []
    return {str(name): str(value) for name, value in given}


def _is_like(section: str) -> bool:
    """Whether that was meant for l2gate."""
    return bool(difflib.get_close_matches(section.casefold(), [options.SECTION], 1, 0.8))


def _section(config: Mapping[str, Any]) -> dict[str, str]:
    """What the section [l2gate] of Avocado's configuration says; an empty value of an option that
    has no default says nothing. Raises UsageError for a key that is no option's."""
    for path in settings.config_paths:
        parser = configparser.ConfigParser(interpolation=None)
        parser.read(path)
        for section in parser.sections():
            if section != options.SECTION and _is_like(section):
                raise UsageError(
                    f"{path}: there is no section [{section}]", f"did you mean [{options.SECTION}]?"
                )
        for key in parser.options(options.SECTION) if options.SECTION in parser else ():
            if key not in options.BY_NAME:
                raise UsageError(
                    f"{path}: [{options.SECTION}] has no setting {key}",
                    options.nearest(key, options.BY_NAME),
                )
    keys = {option: f"{options.SECTION}.{option.name}" for option in options.OPTIONS}
    return {
        option.name: str(config[key])
        for option, key in keys.items()
        if config.get(key) is not None and not (config[key] == option.default == "")
    }
