# SPDX-License-Identifier: MIT
"""How Avocado starts a test of l2gate: in a process of its own, or not at all where none can run.

Avocado's own way costs an interpreter and all imports for each test. Here a fork server has
imported them once, while L0 booted, and each test is a fork of it: as much on its own, and ended
by its process id as before. Where the job has found that the suite cannot run on its host, each
test is told so without a process.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import sys
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from typing import Any

from avocado.core.utils import messages
from avocado.plugins.runners.avocado_instrumented import RunnerApp
from avocado.plugins.spawners.process import ProcessSpawner, ProcessSpawnerHandle

from l2gate.bench.facts import CANNOT_RUN_VARIABLE
from l2gate.contract.judge import Verdict
from l2gate.foundation.errors import MissingPrerequisite
from l2gate.foundation.events import timeline_from_environment
from l2gate.records.events import VerdictReached
from l2gate.report.result import sentence

NAME = "l2gate"

#: The only kind of test that is forked: any other has a runner that is a program of its own.
_KIND = "avocado-instrumented"
#: What the fork server imports beforehand: what runs a test, and what tests are made of.
_IMPORTED = (__name__, "l2gate.testing")


def prepare() -> None:
    """Start the fork server, which imports by itself meanwhile. It ends with this process."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(_IMPORTED))
    forkserver.ensure_running()


class Spawner(ProcessSpawner):  # type: ignore[misc]
    """Avocado's process spawner, with forks of one process that has imported everything."""

    description = "forked processes, and no process for a test that cannot run"

    async def spawn_task(self, runtime_task: Any) -> bool:
        task = runtime_task.task
        if cannot := os.environ.get(CANNOT_RUN_VARIABLE):
            self.create_task_output_dir(runtime_task)
            runtime_task.spawner_handle = _Ended()
            _skip(task, str(MissingPrerequisite(*json.loads(cannot))))
            return True
        if task.runnable.kind != _KIND:
            return bool(await super().spawn_task(runtime_task))
        self.create_task_output_dir(runtime_task)
        words = ["task-run", *task.get_command_args()]
        context = multiprocessing.get_context("forkserver")
        process = context.Process(target=_run, args=(words, dict(os.environ)))
        process.start()
        runtime_task.spawner_handle = ProcessSpawnerHandle(_Forked(process))
        return True

    async def terminate_task(self, runtime_task: Any) -> bool:
        if isinstance(runtime_task.spawner_handle, _Ended):
            return True
        return bool(await super().terminate_task(runtime_task))


class _Forked:
    """A fork of the fork server, as Avocado's spawner handles a process of asyncio's."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process
        loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = loop.create_future()
        loop.add_reader(process.sentinel, self._end)

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._process.sentinel)
        self._process.join()
        assert self._process.exitcode is not None
        self._ended.set_result(self._process.exitcode)

    async def wait(self) -> int:
        """Until it has ended. Returns its exit code, negative for a signal."""
        return await asyncio.shield(self._ended)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def _run(words: list[str], environment: dict[str, str]) -> None:
    """In the fork: what `avocado-runner-avocado-instrumented` does when it is called so."""
    os.environ.clear()
    os.environ.update(environment)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    os.close(nothing)
    # Avocado's runner starts the test itself in one more process: a fork of this one.
    multiprocessing.set_start_method("fork", force=True)
    sys.argv = [RunnerApp.PROG_NAME, *words]
    RunnerApp(lambda *_: None).run()


class _Ended:
    """The handle of a task that has no process."""

    @property
    def wait_task(self) -> asyncio.Future[int]:
        done: asyncio.Future[int] = asyncio.get_event_loop().create_future()
        done.set_result(0)
        return done


def _skip(task: Any, why: str) -> None:
    """What a test that cancels itself would say, to the timeline and to Avocado."""
    name, skip = sentence(task.runnable.uri), Verdict.SKIP
    text = f"{name}: {skip}"
    timeline_from_environment().record(
        VerdictReached(level="controller", text=text, test=name, verdict=skip, reason=why)
    )
    said = (
        messages.StartedMessage.get(output_dir=task.runnable.output_dir),
        messages.FinishedMessage.get("cancel", fail_reason=why),
    )
    for status in said:
        status.update(id=str(task.identifier), job_id=task.job_id)
        for service in task.status_services:
            service.post(status)
    for service in task.status_services:
        service.close()
