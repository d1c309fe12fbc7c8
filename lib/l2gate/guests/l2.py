"""L2, the nested guest: flat code of ours, or Linux."""

from __future__ import annotations

import contextlib
import shlex
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from l2gate.deadline import Budget
from l2gate.errors import BenchError, HelperError
from l2gate.guests.marks import NO_MARKS, Marks
from l2gate.hosts.connection import Connection, Remote
from l2gate.images import userland

_START_SECONDS = 20
_ANSWER_SECONDS = 12


@dataclass(frozen=True)
class L2State:
    """Whether L2 goes on, and what it was hit by."""

    alive: bool
    heartbeat: int
    hits: tuple[dict[str, Any], ...] = field(default=())
    why: str = ""


class L2Guest(ABC):
    """A running L2. Close it to end it."""

    marks: Marks

    @abstractmethod
    def advance(self) -> L2State:
        """L2's state after it was seen to make progress, or the reason why it did not."""

    @abstractmethod
    def clear(self) -> None:
        """Forget the hits so far."""

    @abstractmethod
    def close(self) -> None: ...


class TinyL2(L2Guest):
    """The helper's flat guest (lib/helper/l2.c): an IDT that records what hits it."""

    def __init__(self, connection: Connection, helper: str, budget: Budget) -> None:
        self._budget = budget
        deadline = budget.deadline("the tiny L2 starts", _START_SECONDS)
        self._remote = connection.start([helper, "l2"], deadline)
        try:
            ready = self._remote.read_object(deadline)
        except BaseException:
            self._remote.close()
            raise
        self.marks = Marks(
            *(int(ready[name], 16) for name in ("cr3", "r15", "rip_first", "rip_last"))
        )

    def advance(self) -> L2State:
        answer = self._ask("wait 1000")
        hits = tuple(answer["hits"])
        alive = bool(answer["alive"] and answer["advanced"])
        why = "" if alive else f"heartbeat stands at {answer['heartbeat']}: {answer['last_exit']}"
        return L2State(alive, answer["heartbeat"], hits, why)

    def clear(self) -> None:
        self._ask("clear")

    def close(self) -> None:
        self._remote.close()

    def _ask(self, line: str) -> dict[str, Any]:
        return self._remote.ask(line, self._budget.deadline("the tiny L2 answers", _ANSWER_SECONDS))


class LinuxL2(L2Guest):
    """A Linux guest under QEMU in L1, which answers each line on its serial port.

    Its one serial port carries the conversation only: its kernel has no console.
    """

    marks = NO_MARKS

    def __init__(self, connection: Connection, budget: Budget) -> None:
        self._budget = budget
        self._count = 0
        deadline = budget.deadline("the Linux L2 boots", _START_SECONDS * 2)
        self._connection = connection
        run = f"echo $$; exec {shlex.join(self._command())}"
        self._remote: Remote = connection.start(["sh", "-c", run], deadline)
        try:
            self._pid = int(self._remote.read_line(deadline))
            while "l2gate: ready" not in self._remote.read_line(deadline):
                pass
        except BaseException:
            self._remote.close()
            raise

    @staticmethod
    def _command() -> list[str]:
        machine = "microvm,acpi=off,pcie=off,rtc=off,pic=on,pit=off,isa-serial=on"
        words = [userland.QEMU_SMALL, "-nodefaults", "-no-user-config", "-display", "none"]
        words += ["-no-reboot", "-M", machine, "-L", "/usr/share/seabios", "-L", "/usr/share/qemu"]
        words += ["-enable-kvm", "-cpu", "host", "-m", "160", "-kernel", userland.L1_KERNEL]
        words += ["-initrd", userland.L2_INITRD, "-serial", "stdio"]
        words += ["-append", "quiet console= panic=-1 nokaslr mitigations=off tsc=reliable "
                  "no_timer_check cryptomgr.notests lpj=4000000"]  # fmt: skip
        return words

    def advance(self) -> L2State:
        self._count += 1
        deadline = self._budget.deadline("the Linux L2 answers", _ANSWER_SECONDS)
        try:
            self._remote.send(f"ping-{self._count}")
            while not (line := self._remote.read_line(deadline)).startswith("answer "):
                pass
        except (HelperError, BenchError) as error:
            return L2State(False, self._count, (), str(error))
        expected = f"answer ping-{self._count} count={self._count} spinner=yes"
        alive = line.strip() == expected
        return L2State(alive, self._count, (), "" if alive else f"it said {line.strip()!r}")

    def clear(self) -> None:
        """A Linux guest records no hits: a hit process dies, and `spinner=no` tells."""

    def close(self) -> None:
        """End QEMU in L1: unlike a program of ours it does not end with its stdin."""
        deadline = self._budget.deadline("the Linux L2's QEMU ends", _ANSWER_SECONDS)
        with contextlib.suppress(BenchError):
            self._connection.run(
                f"kill {self._pid} && while kill -0 {self._pid} 2>/dev/null; do :; done",
                deadline,
                check=False,
            )
        self._remote.close()


def start_l2(kind: str, connection: Connection, helper: str, budget: Budget) -> L2Guest:
    """The L2 that the setting `l2` names."""
    return TinyL2(connection, helper, budget) if kind == "tiny" else LinuxL2(connection, budget)
