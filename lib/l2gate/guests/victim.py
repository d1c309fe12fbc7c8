# SPDX-License-Identifier: MIT
"""A user process in L1 that shows an exception delivered to L1 as the signal that it becomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from l2gate.foundation.deadline import Budget, Deadline
from l2gate.foundation.errors import DeadlineExpired
from l2gate.guests.fingerprint import Fingerprint
from l2gate.transport.connection import Connection

_ANSWER_SECONDS = 15


@dataclass(frozen=True)
class Delivered:
    """A signal that the process took, with the vector the kernel took it from."""

    signal: str
    vector: int


def _last(answer: dict[str, Any]) -> Delivered | None:
    if not answer["signals"]:
        return None
    last = answer["signals"][-1]
    return Delivered(last["name"], last["trapno"])


class Victim:
    """The helper's spinning process (lib/helper/victim.c), known by R15 and RIP."""

    def __init__(self, connection: Connection, helper: str, budget: Budget) -> None:
        self._budget = budget
        deadline = budget.deadline("the process in L1 starts", _ANSWER_SECONDS)
        self._remote = connection.start([helper, "victim"], deadline)
        try:
            ready = self._remote.read_object(deadline)
        except BaseException:
            self._remote.close()
            raise
        #: Where its INT3 is, and an address in its code at which nothing is ever executed.
        self.int3, self.spare = int(ready["int3"], 16), int(ready["spare"], 16)
        self.fingerprint = Fingerprint(
            None, *(int(ready[name], 16) for name in ("r15", "rip_first", "rip_last"))
        )

    def wait_signal(self) -> Delivered | None:
        """The last signal once there is at least one since `clear`, or None if none came."""
        deadline = self._budget.deadline("the process in L1 takes a signal", _ANSWER_SECONDS)
        return _last(self._remote.ask("waitsignal 1", deadline))

    def expect_signal(self) -> None:
        """Ask for its next signal, to be read by `seen`."""
        self._remote.send("waitsignal 1")

    def seen(self, patience: float) -> Delivered | None:
        """The signal asked for, or None if nothing has come within ``patience`` seconds."""
        try:
            return _last(self._remote.read_object(Deadline("the process goes on", patience)))
        except DeadlineExpired:
            return None

    def advance(self) -> None:
        """Come back when it has made progress."""
        deadline = self._budget.deadline("the process in L1 goes on", _ANSWER_SECONDS)
        self._remote.ask("wait 1000", deadline)

    def trap(self) -> None:
        """Let it execute an INT3 of its own, soon."""
        self._remote.send("trap 1000")

    def clear(self) -> None:
        self._remote.ask("clear", self._budget.deadline("the process in L1", _ANSWER_SECONDS))

    def close(self) -> None:
        self._remote.close()
