# SPDX-License-Identifier: MIT
"""Starting L1 anew in the same QEMU, when what was injected has stopped or ended it."""

from __future__ import annotations

from l2gate.foundation.deadline import Budget
from l2gate.foundation.errors import BenchError, MissingPrerequisite
from l2gate.transport.console import Console
from l2gate.transport.qmp import Qmp

_BOOT_SECONDS = 20
_READY = "l2gate: ready"


class Restart:
    """Makes a reset a restart; without it a reset ends QEMU, as for a job's L1 it should.

    Raises MissingPrerequisite for a QEMU without `set-action` (it came with 6.0). Close it once L1
    is up again.
    """

    def __init__(self, monitor: Qmp, console: Console, budget: Budget) -> None:
        self._monitor, self._console, self._budget = monitor, console, budget
        self._ready = console.text().count(_READY)
        try:
            self._set("reset")
        except BenchError as error:
            raise MissingPrerequisite(
                f"this QEMU cannot restart L1 ({error.cause})", "use QEMU 6.0 or later"
            ) from error

    def now(self) -> None:
        """Reset L1 and wait until it is up; what it has said before is forgiven."""
        deadline = self._budget.deadline("QEMU resets L1", 10)
        self._monitor.execute("system_reset", deadline)

        def runs() -> bool:
            # A VM that QEMU has stopped for good goes on only after the reset was done.
            try:
                self._monitor.execute("cont", deadline)
            except BenchError:
                return False
            return bool(status(self._monitor, self._budget) == "running")

        deadline.poll(runs)
        self.wait()

    def wait(self) -> None:
        """Until L1 is up again."""
        deadline = self._budget.deadline("L1 starts anew", _BOOT_SECONDS)
        deadline.poll(lambda: self._console.text().count(_READY) > self._ready)
        self._console.forgive()
        self.close()

    def close(self) -> None:
        self._set("shutdown")

    def _set(self, action: str) -> None:
        deadline = self._budget.deadline("QMP set-action", 5)
        self._monitor.execute("set-action", deadline, reboot=action)


def status(monitor: Qmp, budget: Budget) -> str:
    """What QEMU says of its VM: running, paused, internal-error, ..."""
    return str(monitor.execute("query-status", budget.deadline("QMP query-status", 5))["status"])
