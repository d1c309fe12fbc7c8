# SPDX-License-Identifier: MIT
"""A VM of QEMU's to a file and back, by its migration; RAM that is a file stays where it is."""

from __future__ import annotations

from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import BenchError
from l2gate.transport.qmp import Monitor

_LOOK_SECONDS = 0.01


def send(monitor: Monitor, line: str, deadline: Deadline) -> None:
    """Stop the VM and hand its state to the stdin of a ``line`` of the shell. Raises BenchError."""
    _leave_shared_ram_out(monitor, deadline)
    monitor.execute("migrate", deadline, uri=f"exec:exec {line}")
    _await_end(monitor, deadline)


def receive(monitor: Monitor, line: str, deadline: Deadline) -> None:
    """Give a VM that was started with `-incoming defer` what a ``line`` of the shell prints. It
    runs if it ran when it was sent. Raises BenchError."""
    _leave_shared_ram_out(monitor, deadline)
    monitor.execute("migrate-incoming", deadline, uri=f"exec:exec {line}")
    _await_end(monitor, deadline)


def _leave_shared_ram_out(monitor: Monitor, deadline: Deadline) -> None:
    """QEMU leaves out what the sender has mapped with share=on; the receiver maps the file."""
    wanted = {"capability": "x-ignore-shared", "state": True}
    monitor.execute("migrate-set-capabilities", deadline, capabilities=[wanted])


def _await_end(monitor: Monitor, deadline: Deadline) -> None:
    def ended() -> bool:
        told = monitor.execute("query-migrate", deadline)
        status = told.get("status")
        if status in ("failed", "cancelled"):
            raise BenchError(f"QEMU's migration {status}: {told.get('error-desc', 'no reason')}")
        return bool(status == "completed")

    deadline.poll(ended, _LOOK_SECONDS)
