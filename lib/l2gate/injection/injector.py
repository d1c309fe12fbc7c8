# SPDX-License-Identifier: MIT
"""The client of the helper's `inject`: QEMU's monitor, and KVM ioctls on QEMU's stopped vCPU.

Both are one conversation, with a process on the machine that QEMU runs on, so that what belongs
together goes there and back in one message.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from l2gate.contract.outcome import ExceptionRequest, InjectionOutcome, VcpuState
from l2gate.foundation.deadline import Budget, Deadline
from l2gate.foundation.errors import BenchError
from l2gate.transport.connection import Remote, Starter
from l2gate.transport.qmp import named

_ANSWER_SECONDS = 15
_EACH_SECONDS = 0.5
_QMP_SECONDS = 5


@dataclass(frozen=True)
class Order:
    """One KVM_SET_VCPU_EVENTS, or the same one repeated, between two looks at the state, without
    letting the vCPU run. ``undo`` takes an accepted exception back before anything sees it."""

    request: ExceptionRequest
    repeat: int = 1
    undo: bool = True

    @property
    def line(self) -> str:
        return f"set {self.request.to_words()} repeat={self.repeat} undo={int(self.undo)}"


class Injector:
    """Path `vcpu-events`, and QEMU's only monitor as long as it is open. The VM must be stopped
    while its vCPU is looked at or injected into; it goes on when this ends."""

    def __init__(
        self,
        connection: Starter,
        helper: str,
        pid: int,
        monitor: str,
        budget: Budget,
        by: str = "auto",
    ) -> None:
        """``by`` = fingerprint: do as on a kernel without KVM_GET_NESTED_STATE."""
        self._budget = budget
        deadline = budget.deadline("the helper starts on L0", _ANSWER_SECONDS)
        argv = [helper, "inject", "--pid", str(pid), "--vcpu", "0", "--monitor", monitor]
        if budget.scale > 1:  # on an emulated CPU it would wait for L1's whole time slice
            argv += ["--urgent", "yes"]
        if by == "fingerprint":
            argv += ["--old-kernel", "yes"]
        self._remote: Remote = connection.start(argv, deadline)
        try:
            self._remote.read_object(deadline)
        except BaseException:
            self._remote.close()
            raise

    def close(self) -> None:
        self._remote.close()

    # --- QEMU's monitor (l2gate.transport.qmp.Qmp) ------------------------------------------------

    def execute(self, command: str, deadline: Deadline, **arguments: Any) -> Any:
        """Run a command of QMP. Raises BenchError with QEMU's own words, or DeadlineExpired."""
        asked = {"execute": command, "arguments": named(arguments)}
        return _returned(command, self._remote.ask(f"qmp {json.dumps(asked)}", deadline))

    def human(self, line: str, deadline: Deadline) -> str:
        """Run a line of the human monitor."""
        return str(self.execute("human-monitor-command", deadline, command_line=line))

    # --- the vCPU ---------------------------------------------------------------------------------

    def stop(self) -> VcpuState:
        """Stop the VM, and what its vCPU holds then. Raises HelperError or BenchError."""
        deadline = self._budget.deadline("the vCPU is stopped", _QMP_SECONDS + _ANSWER_SECONDS)
        stopped, state = self._batch(["stop", "state"], deadline)
        _returned("stop", stopped)
        return VcpuState.from_answer(state)

    def go_on(self) -> None:
        """Let the VM run. Raises BenchError."""
        deadline = self._budget.deadline("QMP cont", _QMP_SECONDS)
        _returned("cont", self._remote.ask("cont", deadline))

    def state(self) -> VcpuState:
        """Nested state, registers and events. Raises HelperError."""
        deadline = self._budget.deadline("the vCPU's state", _ANSWER_SECONDS)
        return VcpuState.from_answer(self._remote.ask("state", deadline))

    def requeue(self) -> VcpuState:
        """Give an interrupt that is on its way back to the local APIC. Raises HelperError."""
        deadline = self._budget.deadline("the local APIC takes an interrupt back", _ANSWER_SECONDS)
        return VcpuState.from_answer(self._remote.ask("requeue", deadline))

    def conduct(self, orders: Sequence[Order], *, go_on: bool) -> list[InjectionOutcome]:
        """One order after another; then the VM runs, if it is to ``go_on``. Raises HelperError."""
        lines = [order.line for order in orders] + ["cont"] * go_on
        seconds = _ANSWER_SECONDS + _EACH_SECONDS * len(lines)
        answers = self._batch(lines, self._budget.deadline("KVM_SET_VCPU_EVENTS", seconds))
        if go_on:
            _returned("cont", answers[-1])
        return [
            InjectionOutcome.from_answer(order.request, answer)
            for order, answer in zip(orders, answers, strict=False)
        ]

    def _batch(self, lines: Sequence[str], deadline: Deadline) -> list[dict[str, Any]]:
        """The answers to so many requests, for one message there and one back."""
        if lines:
            self._remote.send("\n".join([f"batch {len(lines)}", *lines]))
        return [self._remote.read_object(deadline) for _ in lines]


def _returned(command: str, answer: dict[str, Any]) -> Any:
    """What QEMU has returned; raises BenchError with its own words if that was an error."""
    reply = answer["reply"]
    if "error" in reply:
        raise BenchError(f"QMP {command}: {reply['error']['desc']}")
    return reply["return"]
