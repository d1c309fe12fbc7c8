# SPDX-License-Identifier: MIT
"""QMP without async: a facade over qemu.qmp with an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from qemu.qmp import QMPClient, QMPError

from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import BenchError
from l2gate.transport.connection import Channel, Connection

T = TypeVar("T")


class Qmp(Protocol):
    """Whatever takes commands to QEMU."""

    def execute(self, command: str, deadline: Deadline, **arguments: Any) -> Any:
        """Run a command. Raises BenchError with QEMU's own words, or DeadlineExpired."""

    def human(self, line: str, deadline: Deadline) -> str:
        """Run a line of the human monitor."""


class Monitor:
    """One QMP session. A monitor serves one client at a time: close it when done."""

    def __init__(self, target: str | socket.socket, deadline: Deadline) -> None:
        """Connect. Raises BenchError if there is no QMP at the far end."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="qmp")
        self._thread.start()
        self._pump: _Pump | None = None
        self._client = QMPClient("l2gate")
        # The library takes whatever comes first after its `qmp_capabilities` for the reply, be it
        # an event of a machine that is just starting, and does not say what it was.
        self._client.negotiate = False
        try:
            self._await(self._client.connect(target), deadline, "connecting to QMP")
            self.execute("qmp_capabilities", deadline)
        except BaseException:
            self.close()
            raise

    @classmethod
    def at(cls, path: Path, deadline: Deadline) -> Monitor:
        """The monitor of a QEMU on this machine."""
        return cls(str(path), deadline)

    @classmethod
    def over(cls, connection: Connection, helper: str, path: str, deadline: Deadline) -> Monitor:
        """The monitor of a QEMU on L0."""
        channel = connection.unix(path, helper, deadline)
        ours, theirs = socket.socketpair()
        pump = _Pump(channel, theirs)
        try:
            monitor = cls(ours, deadline)
        except BaseException:
            pump.close()
            raise
        monitor._pump = pump
        return monitor

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def execute(self, command: str, deadline: Deadline, **arguments: Any) -> Any:
        """Run a command. Raises BenchError with QEMU's own words, or DeadlineExpired."""
        names = named(arguments)
        return self._await(self._client.execute(command, names or None), deadline, command)

    def human(self, line: str, deadline: Deadline) -> str:
        """Run a line of the human monitor."""
        return str(self.execute("human-monitor-command", deadline, command_line=line))

    def close(self) -> None:
        with contextlib.suppress(Exception):  # a QEMU that has quit raises EOFError here
            self._await(self._client.disconnect(), Deadline("QMP disconnects", 3), "disconnect")
        self._stop_loop()
        if self._pump:
            self._pump.close()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(3)
        if not self._thread.is_alive():
            self._loop.close()

    def _await(self, work: Coroutine[Any, Any, T], deadline: Deadline, what: str) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(max(0.1, deadline.remaining))
        except TimeoutError:
            future.cancel()
            raise deadline.expire(f"QMP {what}") from None
        except (QMPError, OSError, EOFError) as error:
            lost = self._pump.why_lost if self._pump else ""
            raise BenchError(f"QMP {what}: {lost or error}") from error


def named(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a command by the names that QMP has for them."""
    return {name.replace("_", "-"): value for name, value in arguments.items()}


def forwarded_port(table: str) -> int:
    """The loopback port that `info usernet` says leads into the guest. Raises BenchError."""
    found = re.search(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)", table)
    if not found:
        raise BenchError(f"QEMU forwards no port into its guest: {table}")
    return int(found.group(1))


class _Pump:
    """Carries bytes between a channel and a socket, one thread each way."""

    def __init__(self, channel: Channel, end: socket.socket) -> None:
        self._channel, self._end = channel, end
        self._threads = [
            threading.Thread(target=self._inward, daemon=True),
            threading.Thread(target=self._outward, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def why_lost(self) -> str:
        """What has ended the way to the monitor; empty as long as it stands."""
        return str(getattr(self._channel, "cause", ""))

    def close(self) -> None:
        self._channel.close()
        with contextlib.suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(3)
        self._end.close()

    def _inward(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._channel.recv(65536):
                self._end.sendall(data)
            self._end.shutdown(socket.SHUT_RDWR)

    def _outward(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._end.recv(65536):
                self._channel.sendall(data)
            self._channel.shutdown_write()
