# SPDX-License-Identifier: MIT
"""How Avocado starts a test of l2gate: in a process of its own, or not at all where the bench's
facts tell already that it is skipped.

Avocado's own way costs an interpreter and all imports for each test, and a hundredth of a second
for each line of its log: one more process waits so long before it passes a line on. Here a fork
server has imported everything once, while L0 booted. Each test is a fork of it, as much on its own
as before, which tells Avocado itself what it has to say.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from typing import Any

from avocado.core.nrunner.runnable import RUNNERS_REGISTRY_STANDALONE_EXECUTABLE, Runnable
from avocado.core.nrunner.task import Task
from avocado.core.utils import messages
from avocado.plugins.runners.avocado_instrumented import AvocadoInstrumentedTestRunner
from avocado.plugins.spawners.process import ProcessSpawner, ProcessSpawnerHandle

from l2gate.bench.facts import BENCH_VARIABLE, CANNOT_RUN_VARIABLE, BenchFacts
from l2gate.contract.judge import Verdict
from l2gate.foundation.errors import L2gateError, MissingPrerequisite
from l2gate.foundation.events import timeline_from_environment
from l2gate.plugins.known import known_tests
from l2gate.plugins.machines import Machines
from l2gate.records.events import VerdictReached
from l2gate.report.result import sentence
from l2gate.testing import why_skipped

NAME = "l2gate"

#: The only kind of test that is forked: any other has a runner that is a program of its own.
_KIND = "avocado-instrumented"
#: What the fork server imports beforehand: what runs a test, and what tests are made of.
_IMPORTED = (__name__, "l2gate.testing")
#: The machines of the job that runs; None: whoever has booted the bench sees to them.
machines: Machines | None = None
#: Seconds within which Avocado has read what a process said before it ended.
_READ_SECONDS = 0.5


def prepare() -> None:
    """Start the fork server, which imports by itself meanwhile. It ends with this process."""
    # Avocado asks its own runner what it can do, by an interpreter: meanwhile, and not later.
    if _KIND not in RUNNERS_REGISTRY_STANDALONE_EXECUTABLE:
        ask = threading.Thread(target=Runnable.pick_runner_command, args=(_KIND,), daemon=True)
        ask.start()
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(_IMPORTED))
    forkserver.ensure_running()


class Spawner(ProcessSpawner):  # type: ignore[misc]
    """Avocado's process spawner, with forks of one process that has imported everything."""

    description = "forked processes, and no process for a test that is skipped anyway"

    async def spawn_task(self, runtime_task: Any) -> bool:
        task = runtime_task.task
        name = sentence(task.runnable.uri)
        if why := _why_no_process(name):
            _test_ended(name)
            self.create_task_output_dir(runtime_task)
            runtime_task.spawner_handle = _Ended()
            _skip(task, why, self._repository(task))
            return True
        if task.runnable.kind != _KIND:
            return bool(await super().spawn_task(runtime_task))
        self.create_task_output_dir(runtime_task)
        environment = dict(os.environ)
        try:
            if machines:
                environment[BENCH_VARIABLE] = str(await machines.begin(name))
            forked = self._forked(task, environment)
        except L2gateError as error:
            _test_ended(name)
            runtime_task.spawner_handle = _Ended()
            _tell_broken(task, str(error), self._repository(task))
            return True
        except BaseException:
            _test_ended(name)
            raise
        runtime_task.spawner_handle = ProcessSpawnerHandle(forked)
        return True

    def _forked(self, task: Any, environment: dict[str, str]) -> _Forked:
        prepare()  # a job of other tests has not yet
        context = multiprocessing.get_context("forkserver")
        process = context.Process(target=_run, args=(task, environment))
        process.start()
        return _Forked(process, task, self._repository(task))

    async def terminate_task(self, runtime_task: Any) -> bool:
        if isinstance(runtime_task.spawner_handle, _Ended):
            return True
        return bool(await super().terminate_task(runtime_task))

    def _repository(self, task: Any) -> Any:
        """Where Avocado's runner of that task's suite keeps what tasks have said."""
        runners = [suite.runner for suite in self._job.test_suites]
        return next(r.status_repo for r in runners if str(task.identifier) in r.tsm.tasks_by_id)


def _test_ended(name: str) -> None:
    """A test's machine is free."""
    if machines:
        machines.ended(name)


def _why_no_process(name: str) -> str | None:
    """Why a test would be skipped, by what is known without connecting to the bench; or None."""
    test = known_tests().get(name)
    if not test or not (os.environ.get(BENCH_VARIABLE) or os.environ.get(CANNOT_RUN_VARIABLE)):
        return None
    try:
        facts = BenchFacts.from_environment()
    except MissingPrerequisite as error:
        return str(error)
    return why_skipped(test.test, facts, name)


class _Forked:
    """A fork of the fork server, as Avocado's spawner handles a process of asyncio's."""

    def __init__(self, process: ForkServerProcess, task: Any, repository: Any) -> None:
        self._process, self._task, self._repository = process, task, repository
        self._terminated = False
        loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = loop.create_future()
        loop.add_reader(process.sentinel, self._end)

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._process.sentinel)
        self._process.join()
        assert self._process.exitcode is not None
        _test_ended(sentence(self._task.runnable.uri))
        self._ended.set_result(self._process.exitcode)

    async def wait(self) -> int:
        """Until it has ended and Avocado has read what it said. Returns its exit code, negative
        for a signal."""
        code = await asyncio.shield(self._ended)
        if not await self._has_finished() and not self._terminated:
            self._broke_off(code)
        return code

    def terminate(self) -> None:
        self._terminated = True  # Avocado says itself then how the test has ended
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    async def _has_finished(self) -> bool:
        """Whether it has said how the test ended; what it said may still be on its way."""
        loop = asyncio.get_running_loop()
        end = loop.time() + _READ_SECONDS
        while self._repository.get_task_status(str(self._task.identifier)) != "finished":
            if loop.time() > end:
                return False
            await asyncio.sleep(0.002)
        return True

    def _broke_off(self, code: int) -> None:
        """Say for it what it could not: else Avocado would wait for it for ever."""
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        why = f"the test's process ended {how} before the test had ended"
        _tell(self._task, messages.FinishedMessage.get("error", why), self._repository)


def _run(task: Task, environment: dict[str, str]) -> None:
    """In the fork: what Avocado's runner does for such a test, without another process for it."""
    os.environ.clear()
    os.environ.update(environment)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    os.close(nothing)
    said = _Said(task)
    said.put(messages.StartedMessage.get(output_dir=task.runnable.output_dir))
    AvocadoInstrumentedTestRunner._run_avocado(task.runnable, said)


class _Said:
    """What a test says, for Avocado: in place of the queue to the process that would pass it on."""

    def __init__(self, task: Task) -> None:
        self._task = task
        # A logger may be called while a message is made, in the same thread.
        self._lock = threading.RLock()

    def put(self, message: dict[str, Any]) -> None:
        if message.get("type") == "early_state":  # of no interest to anybody but the runner
            return
        message.update(id=str(self._task.identifier), job_id=self._task.job_id)
        with self._lock:
            for service in self._task.status_services:
                service.post(message)


class _Ended:
    """The handle of a task that has no process."""

    @property
    def wait_task(self) -> asyncio.Future[int]:
        done: asyncio.Future[int] = asyncio.get_event_loop().create_future()
        done.set_result(0)
        return done


def _skip(task: Any, why: str, repository: Any) -> None:
    """What a test that cancels itself would say, to the timeline and to Avocado."""
    name, skip = sentence(task.runnable.uri), Verdict.SKIP
    text = f"{name}: {skip}"
    timeline_from_environment().record(
        VerdictReached(level="controller", text=text, test=name, verdict=skip, reason=why)
    )
    _tell(task, messages.StartedMessage.get(output_dir=task.runnable.output_dir), repository)
    _tell(task, messages.FinishedMessage.get("cancel", fail_reason=why), repository)


def _tell_broken(task: Any, why: str, repository: Any) -> None:
    """Of a test that has no machine to run on."""
    name, broken = sentence(task.runnable.uri), Verdict.INFRA_ERROR
    reached = VerdictReached(
        level="controller", text=f"{name}: {broken}", test=name, verdict=broken, reason=why
    )
    timeline_from_environment().record(reached)
    _tell(task, messages.StartedMessage.get(output_dir=task.runnable.output_dir), repository)
    _tell(task, messages.FinishedMessage.get("error", fail_reason=why), repository)


def _tell(task: Any, message: dict[str, Any], repository: Any) -> None:
    """Tell Avocado in a task's name, in Avocado's own process."""
    message.update(id=str(task.identifier), job_id=task.job_id)
    repository.process_message(message)
