# SPDX-License-Identifier: MIT
"""One `serve` on a level serves all processes of a job.

A key exchange or a channel costs an emulated CPU up to a second, and each test is a process of its
own. So the job keeps one conversation with the helper of each level, and a test joins it over a
unix socket in the bench's private folder (mode 0700). It sends a JSON line with the level, gets the
helper's first line, and from then on both speak the helper's protocol (lib/helper/serve.h): the job
passes the frames on and only gives the streams other numbers. Flow control is between the test and
the helper, so that the job never holds more than the windows of the streams.

A program that is leased may be given back by the test that used it; the job keeps it for the next
test that asks for the same on that level (`Leased` in connection.py says when).
"""

from __future__ import annotations

import contextlib
import json
import queue
import shlex
import socket
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import paramiko

from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import BenchError, L2gateError
from l2gate.transport.connection import Connection, Leased, Remote
from l2gate.transport.serve import (
    KEEP,
    KEPT,
    Conversation,
    Frame,
    Frames,
    ServeConnection,
    converse,
    frame,
)

#: Seconds for a level that was lost to be reached again, and for one that was not to answer.
_CONNECT_SECONDS = 60
_ANSWER_SECONDS = 20


@dataclass(frozen=True)
class Served:
    """A level that tests reach: the job's own connection to it, and where its helper is."""

    connection: Connection
    helper: str


class Multiplexer:
    """The job's side. Close it before the connections."""

    def __init__(self, path: Path, levels: Mapping[str, Served]) -> None:
        self._levels = {name: _Level(served) for name, served in levels.items()}
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
        for level in self._levels.values():
            level.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, socket_: socket.socket) -> None:
        with socket_, contextlib.suppress(OSError, EOFError, ValueError):
            level = self._levels[json.loads(_line(socket_))["level"]]
            try:
                shared = level.shared()
            except (L2gateError, paramiko.SSHException, OSError, EOFError) as error:
                cause = error.cause if isinstance(error, L2gateError) else str(error)
                socket_.sendall(_told({"type": "serve", "error": cause}))
                return
            _Client(socket_, shared).carry()


class _Level:
    """A level's conversation, made again when it is found lost."""

    def __init__(self, served: Served) -> None:
        self._served, self._lock = served, threading.Lock()
        self._shared: _Shared | None = None

    def shared(self) -> _Shared:
        """One that answers. Raises BenchError."""
        with self._lock:
            if self._shared and self._shared.conversation.answers(_ANSWER_SECONDS):
                return self._shared
            self._drop()
            deadline = Deadline("a level is reached", _CONNECT_SECONDS)
            self._shared = _Shared(converse(self._served.connection, self._served.helper, deadline))
            return self._shared

    def close(self) -> None:
        # Whoever is just about to reach it is told by the end of the connection itself.
        if self._lock.acquire(timeout=1.0):
            self._drop()
            self._lock.release()

    def _drop(self) -> None:
        shared, self._shared = self._shared, None
        if shared:
            shared.conversation.close()


@dataclass
class _Owned:
    """A stream on a level: whose it is, by which number, and how much has come of it for them."""

    client: _Client
    number: int
    passed: int = 0


@dataclass
class _Kept:
    """A stream that was given back."""

    words: bytes
    may_send: int
    note: bytes


class _Shared:
    """A conversation, and whose its streams are."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self._lock = threading.Lock()
        self._last = 0
        self._owned: dict[int, _Owned] = {}
        self._kept: dict[int, _Kept] = {}
        #: What the streams that may be given back were opened with.
        self._words: dict[int, bytes] = {}
        self._clients: set[_Client] = set()
        conversation.begin(self._take, self._lose)

    def join(self, client: _Client) -> None:
        with self._lock:
            self._clients.add(client)
        if self.conversation.lost.is_set():
            client.lose(self.conversation.cause)

    def leave(self, client: _Client) -> None:
        """All that was its own ends."""
        with self._lock:
            self._clients.discard(client)
            own = [stream for stream, owned in self._owned.items() if owned.client is client]
            for stream in own:
                self._forget(stream)
        self._end(own)

    def open(self, client: _Client, number: int) -> int:
        with self._lock:
            self._last += 1
            self._owned[self._last] = _Owned(client, number)
            return self._last

    def close(self, stream: int) -> None:
        with self._lock:
            self._forget(stream)

    def lease(self, client: _Client, number: int, words: bytes) -> tuple[int, _Kept | None]:
        """One that was given back and was opened with ``words``, or a new stream."""
        with self._lock:
            for stream, kept in self._kept.items():
                if kept.words == words:
                    del self._kept[stream]
                    self._owned[stream] = _Owned(client, number)
                    return stream, kept
        stream = self.open(client, number)
        with self._lock:
            self._words[stream] = words
        return stream, None

    def keep(self, stream: int, payload: bytes) -> None:
        """It is nobody's now, unless something is on the way that its owner has not seen."""
        may_send, read = KEEP.unpack_from(payload)
        with self._lock:
            owned = self._owned.pop(stream, None)
            words = self._words.get(stream)
            if owned and words is not None and owned.passed == read:
                older = [s for s, kept in self._kept.items() if kept.words == words]
                for one in older:
                    self._forget(one)
                self._kept[stream] = _Kept(words, may_send, payload[KEEP.size :])
            else:
                older = [stream]
                self._forget(stream)
        self._end(older)

    def _forget(self, stream: int) -> None:
        self._owned.pop(stream, None)
        self._kept.pop(stream, None)
        self._words.pop(stream, None)

    def _end(self, streams: Iterable[int]) -> None:
        with contextlib.suppress(OSError):
            for stream in streams:
                self.conversation.send(Frame.CLOSE, stream)

    def _take(self, kind: Frame, stream: int, payload: bytes) -> None:
        with self._lock:
            owned, kept = self._owned.get(stream), self._kept.get(stream)
            if owned and kind in (Frame.OUT, Frame.ERR):
                owned.passed += len(payload)
            if kept and kind is Frame.TAKEN:
                kept.may_send += int.from_bytes(payload, "big")
            elif kept:  # it has ended, or says what nobody has asked
                self._forget(stream)
        if owned:
            owned.client.put(frame(kind, owned.number, payload))
        elif kept and kind is not Frame.TAKEN:
            # Not here: who reads must not wait for the other side to read.
            threading.Thread(target=self._end, args=([stream],), daemon=True).start()

    def _lose(self, cause: str) -> None:
        with self._lock:
            clients = list(self._clients)
        for client in clients:
            client.lose(cause)


class _Client:
    """A test's process: its frames go to the level, those of its streams come back."""

    def __init__(self, socket_: socket.socket, shared: _Shared) -> None:
        self._socket, self._shared = socket_, shared
        self._streams: dict[int, int] = {}
        #: Bounded by the windows of its streams; None: the end.
        self._waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def carry(self) -> None:
        """Until it goes away."""
        conversation = self._shared.conversation
        self._waiting.put(_told(conversation.hello | {"helper": conversation.helper}))
        writer = threading.Thread(target=self._write, daemon=True)
        writer.start()
        self._shared.join(self)
        try:
            self._read()
        finally:
            self._shared.leave(self)
            self._waiting.put(None)
            writer.join()

    def put(self, data: bytes) -> None:
        self._waiting.put(data)

    def lose(self, cause: str) -> None:
        self._waiting.put(frame(Frame.ERROR, 0, cause.encode()))
        self._waiting.put(None)

    def _read(self) -> None:
        frames = Frames()
        while data := self._socket.recv(65536):
            frames.add(data)
            passed = bytearray()
            while found := frames.next():
                passed += self._renumbered(*found)
            with contextlib.suppress(OSError):  # lost: `lose` tells the test why
                self._shared.conversation.send_frames(passed)

    def _renumbered(self, kind: Frame, number: int, payload: bytes) -> bytes:
        """The frame as the level is to have it; empty if the stream is not known."""
        if kind is Frame.OPEN:
            self._streams[number] = self._shared.open(self, number)
        elif kind is Frame.LEASE:
            self._streams[number], kept = self._shared.lease(self, number, payload)
            told = KEPT.pack(kept.may_send) + kept.note if kept else b""
            self.put(frame(Frame.KEPT, number, told))
            if kept:
                return b""
            kind = Frame.OPEN
        stream = self._streams.get(number)
        if stream is None:
            return b""
        if kind in (Frame.CLOSE, Frame.KEEP):
            del self._streams[number]
        if kind is Frame.KEEP:
            self._shared.keep(stream, payload)
            self.put(frame(Frame.KEPT, number))
            return b""
        if kind is Frame.CLOSE:
            self._shared.close(stream)
        return frame(kind, stream, payload)

    def _write(self) -> None:
        with contextlib.suppress(OSError):
            while (data := self._waiting.get()) is not None:
                self._socket.sendall(data)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


class SharedConnection(ServeConnection):
    """A test's side: the job's conversation with ``level``, joined at the first stream."""

    def __init__(self, path: str, level: str) -> None:
        super().__init__(level, self._join)
        self._path = path
        self._wire: _Joined | None = None

    def lease(self, argv: Sequence[str], deadline: Deadline, log: Path | None = None) -> Leased:
        channel = self.channel(deadline)
        note = channel.lease(self._words(argv), deadline)
        return Leased(Remote(self.level, shlex.join(argv), channel, log), note)

    def abort(self) -> None:
        super().abort()
        if self._wire:  # it may still be waiting for the job
            self._wire.hang_up()

    def _join(self, deadline: Deadline) -> Conversation:
        """Raises BenchError if the job is gone or the level is."""
        end = socket.socket(socket.AF_UNIX)
        lost = f"the job's connection to {self.level} is lost"
        try:
            end.connect(self._path)
            end.sendall(_told({"level": self.level}))
        except OSError as error:
            end.close()
            raise BenchError(f"{lost} ({error})") from error
        self._wire = _Joined(end)
        return Conversation(self.level, self._wire, lambda: lost, deadline)


class _Joined:
    """A socket as a wire."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self.settimeout, self.recv, self.sendall = end.settimeout, end.recv, end.sendall

    def hang_up(self) -> None:
        """Who waits for it in another thread sees its end."""
        with contextlib.suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.hang_up()
        self._end.close()


def _told(line: Mapping[str, object]) -> bytes:
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def _line(source: socket.socket) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        got = source.recv(1)
        if not got:
            raise EOFError
        line += got
    return bytes(line)
