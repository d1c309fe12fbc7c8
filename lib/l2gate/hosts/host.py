"""L0 as the rooms above see it: commands, a private folder, uploads, and the images it offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from l2gate.console import Console
from l2gate.deadline import Budget
from l2gate.hosts.connection import Endpoint, SshConnection

#: Where the helper is kept on L0 and on L1.
HELPER = "/run/l2gate/helper"


@dataclass(frozen=True)
class GuestFiles:
    """Where on L0 the files lie that L1 boots from."""

    qemu: str
    firmware: str
    disk: str
    kernel: str
    initrd: str


class Host(ABC):
    """A machine that is L0, up and reachable. Close it when done."""

    #: What `--host` said.
    spec: str
    budget: Budget

    @property
    @abstractmethod
    def endpoint(self) -> Endpoint: ...

    @property
    @abstractmethod
    def connection(self) -> SshConnection: ...

    @property
    @abstractmethod
    def console(self) -> Console | None:
        """L0's console if the host has one of its own."""

    @property
    @abstractmethod
    def folder(self) -> str:
        """A private folder on L0, mode 0700."""

    @property
    @abstractmethod
    def guest_files(self) -> GuestFiles: ...

    @property
    @abstractmethod
    def emulator(self) -> str:
        """What emulates this host, with its version; empty for a real machine."""

    @abstractmethod
    def close(self) -> None:
        """End what was started and give back what was taken. Idempotent."""

    def put_helper(self, binary: Path) -> str:
        """Upload the helper and return where it is."""
        deadline = self.budget.deadline("uploading the helper to L0", 20)
        self.connection.put(binary, HELPER, deadline, mode="700")
        return HELPER

    def check_console(self) -> None:
        """Raises GuestCrash if L0's console tells of a crash."""
        if self.console:
            self.console.check()
