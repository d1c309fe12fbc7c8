# SPDX-License-Identifier: MIT
"""The client of the helper's `inject`: KVM ioctls on QEMU's stopped vCPU, one line a time."""

from __future__ import annotations

from l2gate.contract.outcome import ExceptionRequest, InjectionOutcome, VcpuState
from l2gate.foundation.deadline import Budget
from l2gate.transport.connection import Connection, Remote

_ANSWER_SECONDS = 15


class Injector:
    """Path `vcpu-events`. The VM must be stopped by QMP while it is used."""

    def __init__(
        self, connection: Connection, helper: str, pid: int, budget: Budget, by: str = "auto"
    ) -> None:
        """``by`` = fingerprint: do as on a kernel without KVM_GET_NESTED_STATE."""
        self._budget = budget
        deadline = budget.deadline("the helper starts on L0", _ANSWER_SECONDS)
        argv = [helper, "inject", "--pid", str(pid), "--vcpu", "0"]
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

    def state(self) -> VcpuState:
        """Nested state, registers and events. Raises HelperError."""
        deadline = self._budget.deadline("the vCPU's state", _ANSWER_SECONDS)
        return VcpuState.from_answer(self._remote.ask("state", deadline))

    def requeue(self) -> VcpuState:
        """Give an interrupt that is on its way back to the local APIC. Raises HelperError."""
        deadline = self._budget.deadline("the local APIC takes an interrupt back", _ANSWER_SECONDS)
        return VcpuState.from_answer(self._remote.ask("requeue", deadline))

    def set_events(
        self, request: ExceptionRequest, *, repeat: int = 1, undo: bool = True
    ) -> InjectionOutcome:
        """KVM_SET_VCPU_EVENTS, between two looks at the state, without letting the vCPU run.

        ``undo`` takes an accepted exception back before anything sees it.
        """
        deadline = self._budget.deadline("KVM_SET_VCPU_EVENTS", _ANSWER_SECONDS)
        line = f"set {request.to_words()} repeat={repeat} undo={int(undo)}"
        return InjectionOutcome.from_answer(request, self._remote.ask(line, deadline))
