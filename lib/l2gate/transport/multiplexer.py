# SPDX-License-Identifier: MIT
"""One SSH connection to a level serves all processes of a job.

A key exchange costs an emulated CPU a second, and each test is a process of its own. So the job
keeps its connections, and a test asks the job for channels on them, over a unix socket in the
bench's private folder (mode 0700). One socket connection is one channel: the client sends a JSON
line with level and command and then stdin; it gets frames of stdout, stderr, exit status or error.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import weakref
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any

import paramiko
from paramiko.buffered_pipe import BufferedPipe, PipeTimeout

from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import BenchError, L2gateError
from l2gate.transport.connection import Channel, Connection

_HEAD = struct.Struct("!BI")
_OPEN_SECONDS = 60


class _Frame(IntEnum):
    OUT = 1
    ERR = 2
    STATUS = 3
    ERROR = 4


class Multiplexer:
    """The job's side. Close it before the connections."""

    def __init__(self, path: Path, connections: Mapping[str, Connection]) -> None:
        self._connections = connections
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        path.chmod(0o600)
        self._server.listen(16)
        self._thread = threading.Thread(target=self._accept, daemon=True, name="multiplexer")
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join(2.0)
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, EOFError):
            asked = json.loads(_line(client))
            try:
                deadline = Deadline("a channel opens", _OPEN_SECONDS)
                channel = self._connections[asked["level"]].execute(asked["command"], deadline)
            except (L2gateError, paramiko.SSHException, OSError, EOFError) as error:
                cause = error.cause if isinstance(error, L2gateError) else str(error)
                client.sendall(_framed(_Frame.ERROR, cause.encode()))
                return
            with contextlib.closing(channel):
                _Patch(client, channel).carry()


class _Patch:
    """Carries one channel's three streams and its exit status."""

    def __init__(self, client: socket.socket, channel: Channel) -> None:
        self._client, self._channel = client, channel
        self._lock = threading.Lock()

    def carry(self) -> None:
        self._channel.settimeout(None)
        outward = threading.Thread(target=self._stdin, daemon=True)
        errors = threading.Thread(target=self._stream, args=(_Frame.ERR,), daemon=True)
        outward.start()
        errors.start()
        self._stream(_Frame.OUT)
        errors.join()
        status = self._channel.recv_exit_status()
        self._send(_Frame.STATUS, struct.pack("!i", status))

    def _stdin(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._client.recv(65536):
                self._channel.sendall(data)
            self._channel.shutdown_write()

    def _stream(self, kind: _Frame) -> None:
        read = self._channel.recv if kind is _Frame.OUT else self._channel.recv_stderr
        with contextlib.suppress(OSError):
            while data := read(65536):
                self._send(kind, data)

    def _send(self, kind: _Frame, data: bytes) -> None:
        with self._lock:
            self._client.sendall(_framed(kind, data))


class SharedConnection(Connection):
    """A test's side: the job's connection to ``level``, reached through its multiplexer."""

    def __init__(self, path: str, level: str) -> None:
        super().__init__(level)
        self._path = path
        self._channels: weakref.WeakSet[_SharedChannel] = weakref.WeakSet()

    def channel(self, deadline: Deadline) -> Channel:
        """Raises BenchError if the job is gone."""
        try:
            channel = _SharedChannel(self._path, self.level)
        except OSError as error:
            raise BenchError(f"the job's connection to {self.level} is lost ({error})") from error
        self._channels.add(channel)
        return channel

    def abort(self) -> None:
        """From any thread: whoever waits for an answer is told that there is none."""
        for channel in list(self._channels):
            channel.abort()

    def close(self) -> None:
        """The connection is the job's."""


class _SharedChannel:
    """What l2gate uses of a paramiko.Channel, over the multiplexer's socket."""

    def __init__(self, path: str, level: str) -> None:
        self._level = level
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(path)
        except BaseException:
            self._socket.close()
            raise
        # Any: types-paramiko has it that these pipes carry str; they carry bytes.
        self._pipes: dict[_Frame, Any] = {_Frame.OUT: BufferedPipe(), _Frame.ERR: BufferedPipe()}
        self._timeout: float | None = None
        self.status_event = threading.Event()
        self.exit_status = -1
        self._reader = threading.Thread(target=self._read, daemon=True)

    def exec_command(self, command: str) -> None:
        asked = json.dumps({"level": self._level, "command": command})
        self._socket.sendall(asked.encode() + b"\n")
        self._reader.start()

    def settimeout(self, seconds: float | None) -> None:
        self._timeout = seconds

    def sendall(self, data: bytes) -> None:
        self._socket.sendall(data)

    def shutdown_write(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def recv(self, size: int) -> bytes:
        try:
            return bytes(self._pipes[_Frame.OUT].read(size, self._timeout))
        except PipeTimeout:
            raise TimeoutError from None

    def recv_stderr(self, size: int) -> bytes:
        return bytes(self._pipes[_Frame.ERR].read(size, None))

    def exit_status_ready(self) -> bool:
        return self.status_event.is_set()

    def recv_exit_status(self) -> int:
        self.status_event.wait()
        return self.exit_status

    def abort(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.abort()
        if self._reader.is_alive():
            self._reader.join(2.0)
        self._socket.close()

    def _read(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                kind, size = _HEAD.unpack(_exactly(self._socket, _HEAD.size))
                data = _exactly(self._socket, size)
                if kind == _Frame.STATUS:
                    (self.exit_status,) = struct.unpack("!i", data)
                    break
                self._pipes[_Frame.ERR if kind == _Frame.ERROR else _Frame(kind)].feed(data)
        for pipe in self._pipes.values():
            pipe.close()
        self.status_event.set()


def _framed(kind: _Frame, data: bytes) -> bytes:
    return _HEAD.pack(kind, len(data)) + data


def _exactly(source: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        got = source.recv(size - len(data))
        if not got:
            raise EOFError
        data += got
    return bytes(data)


def _line(source: socket.socket) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        line += _exactly(source, 1)
    return bytes(line)
