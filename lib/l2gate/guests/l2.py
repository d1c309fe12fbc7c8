# SPDX-License-Identifier: MIT
"""L2, the nested guest: flat code of ours, or Linux."""

from __future__ import annotations

import os
import shlex
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from l2gate.foundation.deadline import Budget, Deadline
from l2gate.foundation.errors import BenchError, DeadlineExpired, HelperError
from l2gate.guests.fingerprint import NO_FINGERPRINT, Fingerprint
from l2gate.images import userland
from l2gate.transport.connection import Connection, Remote, Starter

_START_SECONDS = 20
_ANSWER_SECONDS = 12

#: Where the Linux L2's QEMU has its serial port, its process id and its last words, in L1.
_SERIAL, _PID, _WORDS = "/run/l2gate/l2-serial", "/run/l2gate/l2.pid", "/run/l2gate/l2.log"


@dataclass(frozen=True)
class L2State:
    """Whether L2 goes on, and what it was hit by."""

    alive: bool
    heartbeat: int
    hits: tuple[dict[str, Any], ...] = field(default=())
    why: str = ""


class L2Guest(ABC):
    """A running L2. Close it to end it."""

    fingerprint: Fingerprint

    @abstractmethod
    def advance(self) -> L2State:
        """L2's state after it was seen to make progress, or the reason why it did not."""

    @abstractmethod
    def clear(self) -> None:
        """Forget the hits so far."""

    @abstractmethod
    def close(self) -> None: ...


def _state(answer: dict[str, Any]) -> L2State:
    alive = bool(answer["alive"] and answer["advanced"])
    why = "" if alive else f"heartbeat stands at {answer['heartbeat']}: {answer['last_exit']}"
    return L2State(alive, answer["heartbeat"], tuple(answer["hits"]), why)


class TinyL2(L2Guest):
    """The helper's flat guest (lib/helper/l2.c): an IDT that records what hits it."""

    def __init__(self, connection: Starter, helper: str, budget: Budget) -> None:
        self._budget = budget
        deadline = budget.deadline("the tiny L2 starts", _START_SECONDS)
        self._remote = connection.start([helper, "l2"], deadline)
        try:
            ready = self._remote.read_object(deadline)
        except BaseException:
            self._remote.close()
            raise
        self.fingerprint = Fingerprint(
            *(int(ready[name], 16) for name in ("cr3", "r15", "rip_first", "rip_last"))
        )

    def advance(self) -> L2State:
        return _state(self._ask("wait 1000"))

    def clear(self) -> None:
        self._ask("clear")

    def trap(self, beats: int = 1000) -> None:
        """Let it execute an INT3 of its own after ``beats`` heartbeats."""
        self._remote.send(f"trap {beats}")

    def expect_beats(self, beats: int) -> None:
        """Ask for its state after so many beats, to be read by `seen`."""
        self._remote.send(f"wait {beats}")

    def seen(self, patience: float) -> L2State | None:
        """The state asked for, or None if it has not come within ``patience`` seconds."""
        try:
            return _state(self._remote.read_object(Deadline("L2 has beaten on", patience)))
        except DeadlineExpired:
            return None

    def close(self) -> None:
        self._remote.close()

    def _ask(self, line: str) -> dict[str, Any]:
        return self._remote.ask(line, self._budget.deadline("the tiny L2 answers", _ANSWER_SECONDS))


class LinuxL2(L2Guest):
    """A Linux guest under QEMU in L1, which answers each line on its serial port.

    Its boot is dear, so it outlives the session: the next one finds it by its socket, and starts a
    new one only if it does not answer. It ends with L1. Its one serial port carries the
    conversation only: its kernel has no console.
    """

    fingerprint = NO_FINGERPRINT

    def __init__(self, connection: Connection, helper: str, budget: Budget) -> None:
        self._connection, self._helper, self._budget = connection, helper, budget
        self._remote: Remote | None = None
        self._asked = 0
        self._count: int | None = None
        if not self._attached():
            self._start()

    def advance(self) -> L2State:
        before = self._count
        try:
            self._count, spinner = self._ping()
        except (HelperError, BenchError) as error:
            return L2State(False, before or 0, (), str(error))
        alive = spinner and (before is None or self._count == before + 1)
        why = "" if alive else f"answer {self._count} after {before}, its process alive: {spinner}"
        return L2State(alive, self._count, (), why)

    def clear(self) -> None:
        """A Linux guest records no hits: a hit process dies, and its answers tell."""

    def close(self) -> None:
        """Let go of the serial port; the guest goes on."""
        if self._remote:
            self._remote.close()

    def _attached(self) -> bool:
        """Whether there is one that answers as it should."""
        deadline = self._budget.deadline("looking for a Linux L2", _ANSWER_SECONDS)
        if self._connection.run(f"test -S {_SERIAL}", deadline, check=False).status:
            return False
        self._remote = self._connection.start([self._helper, "bridge", "--unix", _SERIAL], deadline)
        return self.advance().alive

    def _start(self) -> None:
        self.close()
        self._count = None
        deadline = self._budget.deadline("the Linux L2 boots", _START_SECONDS * 2)
        # An earlier one that does not answer is ended by its process id.
        end = f"test -f {_PID} && kill -9 $(cat {_PID}); rm -f {_PID} {_SERIAL}"
        start = f"exec {shlex.join(self._command())} </dev/null >/dev/null 2>{_WORDS}"
        # In a session of its own, or it would end with the SSH channel that started it.
        self._connection.run(f"{end}; setsid sh -c {shlex.quote(start)} &", deadline)
        argv = [self._helper, "bridge", "--unix", _SERIAL, "--within", str(int(deadline.seconds))]
        self._remote = self._connection.start(argv, deadline)
        while "l2gate: ready" not in self._remote.read_line(deadline):
            pass

    def _ping(self) -> tuple[int, bool]:
        """L2's count of its answers, and whether its spinning process is alive."""
        assert self._remote is not None
        self._asked += 1
        word = f"ping-{os.getpid()}-{self._asked}"
        deadline = self._budget.deadline("the Linux L2 answers", _ANSWER_SECONDS)
        self._remote.send(word)
        while True:
            fields = self._remote.read_line(deadline).split()
            if fields[:2] == ["answer", word]:
                return int(fields[2].partition("=")[2]), fields[3] == "spinner=yes"

    @staticmethod
    def _command() -> list[str]:
        machine = "microvm,acpi=off,pcie=off,rtc=on,pic=on,pit=off,isa-serial=on"
        words = [userland.QEMU_SMALL, "-nodefaults", "-no-user-config", "-display", "none"]
        words += ["-no-reboot", "-M", machine, "-L", "/usr/share/seabios", "-L", "/usr/share/qemu"]
        words += ["-enable-kvm", "-cpu", "host", "-m", "160", "-kernel", userland.L1_KERNEL]
        words += ["-initrd", userland.L2_INITRD, "-pidfile", _PID]
        words += ["-chardev", f"socket,id=serial,path={_SERIAL},server=on,wait=on"]
        words += ["-serial", "chardev:serial"]
        words += ["-append", f"quiet console= panic=-1 {userland.LEAN} noxsave lpj=4000000"]
        return words


def start_l2(
    kind: str, connection: Connection, tiny: Starter, helper: str, budget: Budget
) -> L2Guest:
    """The L2 that the setting `l2` names; the tiny one by ``tiny``, which may have kept one."""
    return TinyL2(tiny, helper, budget) if kind == "tiny" else LinuxL2(connection, helper, budget)
