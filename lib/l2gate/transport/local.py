# SPDX-License-Identifier: MIT
"""`local`: this machine as a level, with processes where other hosts have SSH channels."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import threading
from contextlib import suppress
from typing import Any

from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import BenchError
from l2gate.transport.connection import Connection, Ending

#: Seconds for a program to end by itself once its stdin is closed.
_GRACE_SECONDS = 2.0


class LocalConnection(Connection):
    """This machine. Closing it ends nothing: each channel is closed by its owner."""

    def close(self) -> None:
        """Nothing is held."""

    def channel(self, deadline: Deadline) -> LocalChannel:
        return LocalChannel()

    def tunnel(self, address: str, port: int, deadline: Deadline) -> socket.socket:
        try:
            return socket.create_connection((address, port), timeout=max(1.0, deadline.remaining))
        except OSError as error:
            raise BenchError(f"{self.level}: no connection to {address}:{port}: {error}") from error


class LocalChannel(Ending):
    """What l2gate uses of a paramiko.Channel, for a command on this machine."""

    def __init__(self) -> None:
        super().__init__()
        self._timeout: float | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise OSError("no command was started")
        return self._process

    def exec_command(self, command: str) -> None:
        # A group of its own, so that what the shell has started can be ended with it.
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        threading.Thread(target=self._wait, daemon=True).start()

    def settimeout(self, seconds: float | None) -> None:
        self._timeout = seconds

    def sendall(self, data: bytes) -> None:
        stdin: Any = self._running.stdin
        rest = memoryview(data)
        while rest:
            rest = rest[stdin.write(rest) :]

    def shutdown_write(self) -> None:
        stdin = self._running.stdin
        if stdin:
            with suppress(OSError):
                stdin.close()

    def recv(self, size: int) -> bytes:
        stdout: Any = self._running.stdout
        if self._timeout is not None and not _readable(stdout, self._timeout):
            raise TimeoutError
        return bytes(os.read(stdout.fileno(), size))

    def recv_stderr(self, size: int) -> bytes:
        stderr: Any = self._running.stderr
        return bytes(os.read(stderr.fileno(), size))

    def close(self) -> None:
        """Hang up as an SSH server does: a program of ours ends at the end of its stdin."""
        if self._process is None:
            return
        self.shutdown_write()
        if not self.status_event.wait(_GRACE_SECONDS):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGHUP)

    def _wait(self) -> None:
        status = self._running.wait()
        self.exit_status = status if status >= 0 else 128 - status
        self.status_event.set()


def _readable(stream: Any, seconds: float) -> bool:
    return bool(select.select([stream], [], [], seconds)[0])
