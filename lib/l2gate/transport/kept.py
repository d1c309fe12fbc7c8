# SPDX-License-Identifier: MIT
"""Programs at the far side that outlive the test that has started them, for the next one.

A test is a process of its own, and to start its programs again for each takes an emulated host
longer than what they do. The job keeps those that a test has given back: a unix socket in the
bench's private folder. The client sends a line with level and command and gets one byte, whether it
is an earlier program's; then come the program's lines, the first that it ever said first of all.
A line that begins with NUL is no line of the conversation: `keep` from the client, last words from
the job.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path

from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import BenchError, L2gateError
from l2gate.transport.connection import Channel, Connection, Remote

_OPEN_SECONDS = 60
_TAKEN_SECONDS = 5
#: An answer is waited for by whoever has asked; who passes it on has no deadline.
_EVER = 1e6
_KEEP = b"\0keep\n"
_KEPT, _NEW = b"k", b"n"


class Keeper:
    """The job's side. Close it before the connections: all that it keeps ends then."""

    def __init__(self, path: Path, connections: Mapping[str, Connection]) -> None:
        self._connections = connections
        self._kept: dict[tuple[str, str], _Program] = {}
        self._lock = threading.Lock()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        path.chmod(0o600)
        self._server.listen(16)
        self._thread = threading.Thread(target=self._accept, daemon=True, name="keeper")
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join(2.0)
        self._server.close()
        with self._lock:
            kept, self._kept = list(self._kept.values()), {}
        for program in kept:
            program.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, ValueError):
            level, command = json.loads(_line(client))
            program = self._take(level, command)
            client.sendall(_KEPT if program else _NEW)
            try:
                program = program or _Program(self._connections[level], command)
            except L2gateError as error:
                client.sendall(b"\0" + error.cause.encode())
                return
            try:
                program.converse(client)
            finally:
                if not (program.given_back and self._keep(level, command, program)):
                    program.close()

    def _take(self, level: str, command: str) -> _Program | None:
        with self._lock:
            program = self._kept.pop((level, command), None)
        if program and program.over:
            program.close()
            return None
        return program

    def _keep(self, level: str, command: str, program: _Program) -> bool:
        """Whether there was none yet."""
        with self._lock:
            return self._kept.setdefault((level, command), program) is program


class _Program:
    """One that runs at the far side. What it says goes to the client that it has just then; what it
    says to nobody is not a program's that can be kept."""

    def __init__(self, connection: Connection, command: str) -> None:
        """Raises L2gateError if it does not start."""
        deadline = Deadline("a program starts", _OPEN_SECONDS)
        channel = connection.execute(command, deadline)
        self._remote = Remote(connection.level, command, channel, None)
        self._lock = threading.Lock()
        self._client: socket.socket | None = None
        self._first = b""
        self.over = self.given_back = False
        threading.Thread(target=self._pass_on, daemon=True, name="kept program").start()

    def converse(self, client: socket.socket) -> None:
        """Until the client goes or gives it back."""
        with self._lock:
            self._client, self.given_back = client, False
            client.sendall(self._first)
        try:
            # As it comes, and not line by line: each piece would be a packet of its own.
            while data := client.recv(65536):
                self.given_back = data.endswith(_KEEP)
                if wanted := data.removesuffix(_KEEP):
                    self._remote.channel.sendall(wanted)
                if self.given_back:
                    return
        finally:
            with self._lock:
                self._client = None

    def close(self) -> None:
        self._remote.close()

    def _pass_on(self) -> None:
        try:
            while True:
                line = self._remote.read_line(Deadline("a program says something", _EVER))
                self._say(line.encode() + b"\n")
        except (L2gateError, OSError) as error:
            self._end(str(error))

    def _say(self, line: bytes) -> None:
        with self._lock:
            first, self._first = not self._first, self._first or line
            if self._client:
                with contextlib.suppress(OSError):
                    self._client.sendall(line)
            elif not first:
                self.over = True

    def _end(self, why: str) -> None:
        with self._lock:
            self.over = True
            if self._client:
                with contextlib.suppress(OSError):
                    self._client.sendall(b"\0" + (self._remote.words or why).encode())
                    self._client.shutdown(socket.SHUT_RDWR)


class KeptConnection(Connection):
    """A test's side: what it starts here may be what an earlier test has given back."""

    def __init__(self, path: str, level: str) -> None:
        super().__init__(level)
        self._path = path
        self._channels: weakref.WeakSet[_KeptChannel] = weakref.WeakSet()
        self._last: _KeptChannel | None = None

    def channel(self, deadline: Deadline) -> Channel:
        """Raises BenchError if the job is gone."""
        try:
            channel = _KeptChannel(self._path, self.level)
        except OSError as error:
            raise BenchError(f"the job's connection to {self.level} is lost ({error})") from error
        self._channels.add(channel)
        self._last = channel
        return channel

    @property
    def continued(self) -> bool:
        """Whether the last program that was started here is one that an earlier test has had."""
        return self._last is not None and self._last.continued

    def give_back(self) -> None:
        """All programs that were started here are as they were found, and owe no answer."""
        for channel in list(self._channels):
            channel.give_back()

    def abort(self) -> None:
        """From any thread: whoever waits for an answer is told that there is none."""
        for channel in list(self._channels):
            channel.abort()

    def close(self) -> None:
        """The connection is the job's."""


class _KeptChannel:
    """What l2gate uses of a paramiko.Channel, over the keeper's socket."""

    exit_status = -1

    def __init__(self, path: str, level: str) -> None:
        self._level = level
        self.continued = False
        self._words = b""
        self.status_event = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(path)
        except BaseException:
            self._socket.close()
            raise

    def exec_command(self, command: str) -> None:
        self._socket.sendall(json.dumps([self._level, command]).encode() + b"\n")
        self._socket.settimeout(_OPEN_SECONDS)
        self.continued = self._socket.recv(1) == _KEPT

    def settimeout(self, seconds: float | None) -> None:
        self._socket.settimeout(seconds)

    def sendall(self, data: bytes) -> None:
        self._socket.sendall(data)

    def shutdown_write(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def recv(self, size: int) -> bytes:
        data, nul, words = self._socket.recv(size).partition(b"\0")
        self._words += words
        if nul or not data:
            self.status_event.set()
        return data

    def recv_stderr(self, size: int) -> bytes:
        self.status_event.wait()
        words, self._words = self._words[:size], self._words[size:]
        return words

    def exit_status_ready(self) -> bool:
        return self.status_event.is_set()

    def recv_exit_status(self) -> int:
        self.status_event.wait()
        return self.exit_status

    def give_back(self) -> None:
        """Comes back when the next test can have it."""
        with contextlib.suppress(OSError):
            self._socket.sendall(_KEEP)
            self._socket.settimeout(_TAKEN_SECONDS)
            while self._socket.recv(4096):
                pass

    def abort(self) -> None:
        self.status_event.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.abort()
        self._socket.close()


def _line(source: socket.socket) -> bytes:
    """Up to the end of the line, and not a byte of what comes after it."""
    line = b""
    while not line.endswith(b"\n") and (byte := source.recv(1)):
        line += byte
    return line
