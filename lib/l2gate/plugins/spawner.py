# SPDX-License-Identifier: MIT
"""How Avocado starts a test of l2gate: in a process of its own, or not at all where none can run.

Avocado's cost for a test that is skipped is that of any test, an interpreter and all imports. Where
the job has found that the suite cannot run on its host, each test is told so without one.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from avocado.core.utils import messages
from avocado.plugins.spawners.process import ProcessSpawner

from l2gate.bench.facts import CANNOT_RUN_VARIABLE
from l2gate.contract.judge import Verdict
from l2gate.foundation.errors import MissingPrerequisite
from l2gate.foundation.events import Event, timeline_from_environment
from l2gate.report.result import sentence

NAME = "l2gate"


class Spawner(ProcessSpawner):  # type: ignore[misc]
    """Avocado's own process spawner, but for jobs whose host is not fit."""

    description = "processes, and no process for a test that cannot run"

    async def spawn_task(self, runtime_task: Any) -> bool:
        cannot = os.environ.get(CANNOT_RUN_VARIABLE)
        if cannot is None:
            return bool(await super().spawn_task(runtime_task))
        self.create_task_output_dir(runtime_task)
        runtime_task.spawner_handle = _Ended()
        _skip(runtime_task.task, str(MissingPrerequisite(*json.loads(cannot))))
        return True

    async def terminate_task(self, runtime_task: Any) -> bool:
        if isinstance(runtime_task.spawner_handle, _Ended):
            return True
        return bool(await super().terminate_task(runtime_task))


class _Ended:
    """The handle of a task that has no process."""

    @property
    def wait_task(self) -> asyncio.Future[int]:
        done: asyncio.Future[int] = asyncio.get_event_loop().create_future()
        done.set_result(0)
        return done


def _skip(task: Any, why: str) -> None:
    """What a test that cancels itself would say, to the timeline and to Avocado."""
    name, skip = sentence(task.runnable.uri), Verdict.SKIP.value
    data = {"test": name, "verdict": skip, "reason": why}
    timeline_from_environment().record(Event("controller", "verdict", f"{name}: {skip}", data=data))
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
