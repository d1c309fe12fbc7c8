# SPDX-License-Identifier: MIT
"""L0 as the rooms above see it: commands, a private folder, L1's files, its kernel's words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from l2gate.foundation.deadline import Budget, Deadline
from l2gate.foundation.errors import BenchError
from l2gate.foundation.events import Timeline
from l2gate.foundation.settings import Settings
from l2gate.hosts.templates import Template
from l2gate.images.build import Images
from l2gate.kernels.kernel import KernelUnderTest
from l2gate.transport import kernel_log
from l2gate.transport.connection import Connection
from l2gate.transport.console import Console
from l2gate.transport.ssh import Endpoint


@dataclass(frozen=True)
class HostContext:
    """What a host is made from."""

    settings: Settings
    images: Images
    #: The bench's private folder on the controller, and the one for logs.
    folder: Path
    logs: Path
    timeline: Timeline


@dataclass(frozen=True)
class GuestFiles:
    """Where on L0 the files lie that L1 boots from."""

    #: QEMU's first words: the program, and what a lab wants added.
    qemu: tuple[str, ...]
    bios: str
    disk: str
    kernel: str
    initrd: str


class Program(Protocol):
    """A program that stays, on L0."""

    @property
    def ended(self) -> bool: ...
    @property
    def words(self) -> str:
        """The last of what it said on stderr."""

    def close(self) -> None: ...


class Host(ABC):
    """A machine that is L0. `boot` makes it reachable and equips it; close it when done, however
    far it has come."""

    #: What `--host` said.
    spec: str
    budget: Budget
    #: Where the helper is, on L0.
    helper: str
    #: Whether a kernel that did not get on in time has a fault of its own, not a slow machine.
    keeps_time: ClassVar[bool] = True
    #: When the template was booted that it was started from; empty: it is no template's.
    template_booted: str = ""

    @abstractmethod
    def boot(self) -> None:
        """Raises L2gateError; MissingPrerequisite where the suite cannot run there."""

    @property
    @abstractmethod
    def connection(self) -> Connection: ...

    @property
    @abstractmethod
    def console(self) -> Console:
        """What L0's kernel says, from the beginning of the job on."""

    @property
    @abstractmethod
    def folder(self) -> str:
        """A private folder of this job on L0, mode 0700."""

    @property
    @abstractmethod
    def guest_files(self) -> GuestFiles: ...

    @property
    @abstractmethod
    def emulator(self) -> str:
        """What emulates this host, with its version; empty for a machine that was there."""

    @abstractmethod
    def close(self) -> None:
        """End what was started and give back what was taken. Idempotent."""

    def exchange_kvm(self, kernel: KernelUnderTest) -> None:
        """Load the KVM modules of ``kernel`` instead of those that are there. Nothing may use KVM.
        Raises BenchError where this host cannot do it."""
        raise BenchError(
            f"the KVM modules of {self.spec} cannot be exchanged", "use an emulated host"
        )

    def start_program(self, line: str, deadline: Deadline, log: Path) -> Program:
        """Start a line of the shell as a program that stays no longer than this job."""
        return self.connection.start(["sh", "-c", line], deadline, log)

    def check_console(self) -> None:
        """Raises GuestCrash if L0's console tells of a crash."""
        self.console.check()

    def complaint(self) -> str | None:
        """What L0's kernel has said of a fault of its own since the job began, or None."""
        for line in self.console.text().splitlines():
            sign = kernel_log.sign_of(line)
            if sign and (self.keeps_time or sign.severity is not kernel_log.Severity.STALL):
                return line.strip()
        return None


class PersistentCapable(Host):
    """One that can stay up after the job that booted it, owned by a process."""

    @property
    @abstractmethod
    def endpoint(self) -> Endpoint:
        """How to reach it, for others as well."""

    @abstractmethod
    def wait(self) -> None:
        """Until it ends by itself."""


class TemplateCapable(Host):
    """One that can be kept once it is booted, for later jobs to start from (hosts/templates.py)."""

    #: Where it may be kept once it is booted, set before `boot`; None: it is not to be kept.
    template: Path | None = None

    @property
    @abstractmethod
    def template_key(self) -> str:
        """A name made from all that a template of it depends on: the kernel, the images, the
        emulator, l2gate itself."""

    @abstractmethod
    def keep(self, about: dict[str, Any]) -> Template:
        """Keep it in the folder `template`, with what the bench wants to know ``about`` L1, and end
        it: `resume` brings it back. Nothing but its connection is in use. Raises L2gateError."""

    @abstractmethod
    def stays(self) -> None:
        """What was kept is not this host's any more: `close` leaves it alone."""

    @abstractmethod
    def resume(self, template: Template) -> None:
        """Instead of `boot`: go on where ``template`` stands. Raises L2gateError."""

    @abstractmethod
    def follow_program(self, deadline: Deadline, log: Path) -> Program:
        """The program that `start_program` has started before it was kept."""
