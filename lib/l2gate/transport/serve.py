# SPDX-License-Identifier: MIT
"""The client of the helper's `serve`: many streams over one channel (lib/helper/serve.h).

What the channel is does not matter: paramiko's, a process's pipes, a stream of another `serve`.
Opening a command or a verb costs one frame and no answer is waited for.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import struct
import threading
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, Protocol

from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import BenchError
from l2gate.transport.connection import Channel, Connection, Ending, why_ended

PROTOCOL = 1
#: Bytes of each direction of a stream that may be under way.
WINDOW = 256 << 10
PAYLOAD = 132 << 10
_CHUNK = 32 << 10
#: What both sides must hold for the same.
_SPOKEN = {"protocol": PROTOCOL, "window": WINDOW, "payload": PAYLOAD}
HEAD = struct.Struct("!BII")
_NUMBER = struct.Struct("!I")
_CREDIT = struct.Struct("!BI")
_EXIT = struct.Struct("!BI")
#: Of KEEP: what may be sent to it, and what was read of it by the one who gives it back; the note.
KEEP = struct.Struct("!IQ")
#: Of KEPT, if it is not new: what may be sent to it; the note.
KEPT = _NUMBER
#: Seconds in which a far side that takes nothing counts as gone.
_STALL_SECONDS = 60.0
#: For the job to take back what a test gives back.
_KEEP_SECONDS = 5.0
#: What a login shell may say before the helper does, in bytes.
_NOISE = 64 << 10


class Frame(IntEnum):
    """The types of frames."""

    OPEN = 1
    DATA = 2
    CREDIT = 3
    CLOSE = 4
    PING = 5
    OPENED = 17
    FAILED = 18
    OUT = 19
    ERR = 20
    TAKEN = 21
    EXIT = 22
    PONG = 23
    ERROR = 24
    #: Between a test and its job alone: see `StreamChannel.lease` and `keep`.
    LEASE = 64
    KEEP = 65
    KEPT = 66


class Wire(Protocol):
    """What carries a conversation: a channel or a socket."""

    def settimeout(self, seconds: float | None, /) -> None: ...
    def recv(self, size: int, /) -> bytes: ...
    def sendall(self, data: bytes, /) -> None: ...
    def close(self) -> None: ...


def frame(kind: Frame, stream: int, payload: bytes = b"") -> bytes:
    return HEAD.pack(kind, stream, len(payload)) + payload


class Frames:
    """Takes frames out of a flow of bytes."""

    def __init__(self, rest: bytes = b"") -> None:
        self._data = bytearray(rest)

    def add(self, data: bytes) -> None:
        self._data += data

    def next(self) -> tuple[Frame, int, bytes] | None:
        """The next whole one. Raises ValueError for what is none."""
        if len(self._data) < HEAD.size:
            return None
        kind, stream, size = HEAD.unpack_from(self._data)
        if size > PAYLOAD:
            raise ValueError(f"a frame of {size} bytes")
        end = HEAD.size + size
        if len(self._data) < end:
            return None
        payload = bytes(self._data[HEAD.size : end])
        del self._data[:end]
        return Frame(kind), stream, payload


class Conversation:
    """One `serve`, spoken to in frames. Close it to end what it has started."""

    def __init__(
        self,
        level: str,
        wire: Wire,
        why: Callable[[], str],
        deadline: Deadline,
        *,
        about: str = "",
        helper: str = "",
    ) -> None:
        """Wait for the helper's first line; ``why`` tells why the wire has ended, ``about`` comes
        before it; ``helper`` is where the helper is. Raises BenchError if there is no helper or it
        speaks another protocol."""
        self.level, self._wire, self._why, self._about = level, wire, why, about
        self._lock = threading.Lock()
        self._pong = threading.Event()
        self.lost = threading.Event()
        #: Why it is lost.
        self.cause = ""
        try:
            self.hello, self._frames = self._greet(deadline)
            self.helper = helper or str(self.hello.get("helper", ""))
            wire.settimeout(_STALL_SECONDS)
        except BaseException:
            wire.close()
            raise

    def begin(
        self, take: Callable[[Frame, int, bytes], None], tell_lost: Callable[[str], None]
    ) -> None:
        """From now on, in a thread of its own: ``take`` gets each frame, ``tell_lost`` the cause
        once there is no more."""
        self._take, self._tell_lost = take, tell_lost
        threading.Thread(target=self._read, daemon=True, name=f"serve {self.level}").start()

    def send(self, kind: Frame, stream: int, payload: bytes = b"") -> None:
        """Raises OSError if it is lost."""
        self.send_frames(frame(kind, stream, payload))

    def send_frames(self, frames: bytes | bytearray) -> None:
        """Whole ones, at once. Raises OSError if it is lost."""
        if not frames:
            return
        if self.lost.is_set():
            raise OSError(self.cause)
        try:
            with self._lock:
                self._wire.sendall(bytes(frames))
        except OSError as error:
            if isinstance(error, TimeoutError):  # a part of it is on the way
                self.close()
            raise OSError(self.cause or str(error) or "it takes nothing any more") from error

    def answers(self, seconds: float) -> bool:
        """Whether it does, within so many seconds."""
        self._pong.clear()
        try:
            self.send(Frame.PING, 0)
        except OSError:
            return False
        return self._pong.wait(seconds) and not self.lost.is_set()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._wire.close()

    def _greet(self, deadline: Deadline) -> tuple[dict[str, Any], Frames]:
        said = bytearray()
        while len(said) < _NOISE:
            self._wire.settimeout(max(0.1, deadline.remaining))
            try:
                data = self._wire.recv(4096)
            except TimeoutError:
                raise deadline.expire(f"{self.level}: the helper does not speak") from None
            except OSError as error:
                raise BenchError(f"{self.level}: {self._about}{error}") from error
            if not data:
                noise = said.decode(errors="replace").strip()[-400:]
                raise BenchError(
                    f"{self.level}: {self._about}{self._why()}" + (f" ({noise})" if noise else "")
                )
            said += data
            if found := _hello(bytes(said)):
                line, rest = found
                return self._checked(line), Frames(rest)
        raise BenchError(f"{self.level}: no helper speaks there, but {bytes(said[:80])!r}")

    def _checked(self, line: bytes) -> dict[str, Any]:
        try:
            told: dict[str, Any] = json.loads(line)
        except ValueError:
            raise BenchError(f"{self.level}: the helper said {line!r}") from None
        if cause := told.get("error"):  # the job's, which has no helper there either
            raise BenchError(str(cause))
        if [told.get(name) for name in _SPOKEN] != list(_SPOKEN.values()):
            theirs = ", ".join(f"{name} {told.get(name)}" for name in _SPOKEN)
            ours = ", ".join(f"{name} {value}" for name, value in _SPOKEN.items())
            raise BenchError(
                f"{self.level}: the helper there speaks {theirs}; this l2gate speaks {ours}",
                "bring the helper of this checkout there",
            )
        return told

    def _read(self) -> None:
        why = ""
        try:
            while True:
                while found := self._frames.next():
                    kind, stream, payload = found
                    if kind is Frame.PONG:
                        self._pong.set()
                    elif kind is Frame.ERROR:
                        why = payload.decode(errors="replace")
                    else:
                        self._take(kind, stream, payload)
                with contextlib.suppress(TimeoutError):
                    data = self._wire.recv(65536)
                    if not data:
                        break
                    self._frames.add(data)
        except (OSError, EOFError, ValueError) as error:
            why = why or str(error)
        self.cause = f"{self._about}{why or self._why()}"
        self.lost.set()
        self._pong.set()
        self._tell_lost(self.cause)
        self.close()


def _hello(said: bytes) -> tuple[bytes, bytes] | None:
    """The helper's first line and what came after it. A login shell may have spoken before."""
    start = said.find(b'{"type":"serve"')
    end = said.find(b"\n", start) if start >= 0 else -1
    return (said[start : end + 1], said[end + 1 :]) if end >= 0 else None


class _Inlet:
    """What has come of stdout or of stderr, and is not read yet."""

    def __init__(self) -> None:
        self.data, self.ended = bytearray(), False
        #: Bytes that were read: all, and those that no CREDIT was given for.
        self.total, self.read = 0, 0


class StreamChannel(Ending):
    """What l2gate uses of a paramiko.Channel, as one stream of a `serve`."""

    def __init__(self, owner: ServeConnection) -> None:
        super().__init__()
        self._owner, self._stream = owner, 0
        self._conversation: Conversation | None = None
        self._changed = threading.Condition()
        self._inlets = {Frame.OUT: _Inlet(), Frame.ERR: _Inlet()}
        self._may_send = WINDOW
        self._timeout: float | None = None
        self._opened = self._closed = self._leased = False
        self._note: str | None = None
        #: Why it is lost; empty as long as it is not.
        self.cause = ""

    def exec_command(self, command: str) -> None:
        """Raises BenchError."""
        self.open("exec", command)

    def open(self, *words: str, no_input: bool = False) -> None:
        """Raises BenchError if the connection is lost."""
        self._stream, self._conversation = self._owner.opened(self, words, no_input=no_input)

    def wait_opened(self, what: str, deadline: Deadline) -> None:
        """Raises BenchError if it cannot be."""
        with self._changed:
            done = self._changed.wait_for(
                lambda: self._opened or self.cause, max(0.1, deadline.remaining)
            )
        if not done:
            raise deadline.expire(f"{self._owner.level}: no connection to {what}")
        if self.cause:
            raise BenchError(f"{self._owner.level}: no connection to {what}: {self.cause}")

    def lease(self, words: Sequence[str], deadline: Deadline) -> str | None:
        """Open it, or take one over that was given back: the note of that. Raises BenchError."""
        self._stream, self._conversation = self._owner.opened(self, words, kind=Frame.LEASE)
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._leased or self.cause, max(0.1, deadline.remaining)
            ):
                raise deadline.expire("no answer from the job")
        if self.cause:
            raise BenchError(f"{self._owner.level}: {self.cause}")
        return self._note

    def keep(self, note: str) -> bool:
        """Give it back to the job; false, and nothing done, if it is not at rest."""
        with self._changed:
            inlets = self._inlets.items()
            if self._closed or self._over or any(i.data or i.ended for _, i in inlets):
                return False
            self._closed = True
            owed = [
                frame(Frame.CREDIT, self._stream, _CREDIT.pack(kind, inlet.read))
                for kind, inlet in inlets
                if inlet.read
            ]
            read = sum(inlet.total for _, inlet in inlets)
            kept = KEEP.pack(self._may_send, read) + note.encode()
            self._leased = False
        with contextlib.suppress(OSError):
            self._running.send_frames(b"".join(owed) + frame(Frame.KEEP, self._stream, kept))
        # Else the next test might ask for it before the job has it.
        with self._changed:
            self._changed.wait_for(lambda: self._leased or self.cause, _KEEP_SECONDS)
        self._owner.forget(self._stream)
        self.lose("given back")
        return True

    def settimeout(self, seconds: float | None) -> None:
        self._timeout = seconds

    def sendall(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self.send(rest) :]

    def send(self, data: bytes | memoryview) -> int:
        """Raises TimeoutError, or OSError where nobody takes it any more."""
        conversation = self._running
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._may_send or self._over, self._timeout
            ):  # fmt: skip
                raise TimeoutError
            if self._over:
                raise OSError(self.cause or "it has ended")
            part = bytes(data[: min(self._may_send, _CHUNK)])
            self._may_send -= len(part)
        conversation.send(Frame.DATA, self._stream, part)
        return len(part)

    def shutdown_write(self) -> None:
        if not self._over:
            self._running.send(Frame.DATA, self._stream)

    def recv(self, size: int) -> bytes:
        """Raises TimeoutError."""
        return self._recv(Frame.OUT, size, self._timeout)

    def recv_stderr(self, size: int) -> bytes:
        return self._recv(Frame.ERR, size, None)

    def close(self) -> None:
        """What runs there is ended, if it has not ended by itself at the end of its stdin."""
        if self._closed or self._conversation is None:
            return
        self._closed = True
        self._owner.forget(self._stream)
        with contextlib.suppress(OSError):
            self._conversation.send(Frame.CLOSE, self._stream)
        self.lose("closed")

    def take(self, kind: Frame, payload: bytes) -> None:
        """In the conversation's thread."""
        with self._changed:
            if kind in (Frame.OUT, Frame.ERR):
                inlet = self._inlets[kind]
                inlet.data += payload
                inlet.ended = inlet.ended or not payload
            elif kind is Frame.TAKEN:
                self._may_send += _NUMBER.unpack(payload)[0]
            elif kind is Frame.OPENED:
                self._opened = True
            elif kind is Frame.KEPT:
                self._leased = True
                if payload:
                    (self._may_send,) = KEPT.unpack_from(payload)
                    self._note = payload[KEPT.size :].decode()
            elif kind is Frame.EXIT:
                signalled, number = _EXIT.unpack(payload)
                self.exit_status = 128 + number if signalled else number
                self.status_event.set()
            self._changed.notify_all()
        if kind is Frame.FAILED:
            self.lose(payload.decode(errors="replace"))

    def lose(self, cause: str) -> None:
        """Nothing more comes; from any thread."""
        with self._changed:
            if self._over and all(inlet.ended for inlet in self._inlets.values()):
                return
            self.cause = self.cause or cause
            for inlet in self._inlets.values():
                inlet.ended = True
            self.status_event.set()
            self._changed.notify_all()

    @property
    def _running(self) -> Conversation:
        if self._conversation is None:
            raise OSError("nothing was started")
        return self._conversation

    @property
    def _over(self) -> bool:
        return bool(self.cause) or self.status_event.is_set()

    def _recv(self, kind: Frame, size: int, timeout: float | None) -> bytes:
        inlet = self._inlets[kind]
        with self._changed:
            if not self._changed.wait_for(lambda: inlet.data or inlet.ended, timeout):
                raise TimeoutError
            data = bytes(inlet.data[:size])
            del inlet.data[:size]
            inlet.read += len(data)
            inlet.total += len(data)
            credit = inlet.read if inlet.read >= WINDOW // 2 and not inlet.ended else 0
            inlet.read -= credit
        if credit:
            with contextlib.suppress(OSError):
                self._running.send(Frame.CREDIT, self._stream, _CREDIT.pack(kind, credit))
        return data


class ServeConnection(Connection):
    """A level whose commands, verbs and sockets are streams of one `serve`."""

    def __init__(
        self,
        level: str,
        connect: Callable[[Deadline], Conversation],
        closing: Callable[[], None] = lambda: None,
    ) -> None:
        """``connect`` is called at the first stream, and again whenever the last one is lost;
        ``closing`` ends what ends with it."""
        super().__init__(level)
        self._connect, self._closing = connect, closing
        #: The second one guards what is below; the first is held while a connection is made.
        self._connecting, self._lock = threading.Lock(), threading.Lock()
        self._conversation: Conversation | None = None
        self._channels: dict[int, tuple[StreamChannel, Conversation]] = {}
        self._last = 0

    def close(self) -> None:
        with self._lock:
            conversation, self._conversation = self._conversation, None
        if conversation:
            conversation.close()
        self._closing()

    def abort(self) -> None:
        """From any thread: whoever waits for an answer is told that there is none."""
        self._lose("broken off")

    def channel(self, deadline: Deadline) -> StreamChannel:
        """Raises BenchError if the connection is lost and cannot be made anew."""
        self._alive(deadline)
        return StreamChannel(self)

    def execute(
        self, command: Sequence[str] | str, deadline: Deadline, *, no_input: bool = False
    ) -> StreamChannel:
        channel = self.channel(deadline)
        words = ("exec", command) if isinstance(command, str) else self._words(command)
        channel.open(*words, no_input=no_input)
        return channel

    def tunnel(self, address: str, port: int, deadline: Deadline) -> StreamChannel:
        return self._connected(f"{address}:{port}", deadline, "tcp", address, str(port))

    def unix(self, path: str, helper: str, deadline: Deadline) -> StreamChannel:
        return self._connected(path, deadline, "unix", path)

    def serve(self, helper: str, deadline: Deadline) -> Channel:
        return self.execute([helper, "serve"], deadline)

    def opened(
        self,
        channel: StreamChannel,
        words: Sequence[str],
        *,
        no_input: bool = False,
        kind: Frame = Frame.OPEN,
    ) -> tuple[int, Conversation]:
        """Ask for a stream. Returns its number, and the conversation that it belongs to."""
        with self._lock:
            conversation = self._conversation
            if conversation is None:
                raise BenchError(f"{self.level}: the connection is closed")
            self._last += 1
            stream = self._last
            self._channels[stream] = channel, conversation
        try:
            asked = b"".join(word.encode() + b"\0" for word in words)
            end = frame(Frame.DATA, stream) if no_input else b""
            conversation.send_frames(frame(kind, stream, asked) + end)
        except OSError as error:
            self.forget(stream)
            raise BenchError(f"{self.level}: {error}") from error
        return stream, conversation

    def forget(self, stream: int) -> None:
        with self._lock:
            self._channels.pop(stream, None)

    def _alive(self, deadline: Deadline) -> None:
        with self._connecting:
            if self._conversation and not self._conversation.lost.is_set():
                return
            new = self._connect(deadline)
            with self._lock:
                self._conversation = new
            new.begin(self._take, lambda cause: self._lose(cause, new))

    def _words(self, argv: Sequence[str]) -> tuple[str, ...]:
        """Of the helper itself a verb is run, without another program."""
        conversation = self._conversation
        ours = conversation and argv[0] == conversation.helper
        return ("verb", *argv[1:]) if ours else ("exec", shlex.join(argv))

    def _connected(self, what: str, deadline: Deadline, *words: str) -> StreamChannel:
        channel = self.channel(deadline)
        channel.open(*words)
        try:
            channel.wait_opened(what, deadline)
        except BaseException:
            channel.close()
            raise
        return channel

    def _take(self, kind: Frame, stream: int, payload: bytes) -> None:
        with self._lock:
            channel, _ = self._channels.get(stream, (None, None))
        if channel:
            channel.take(kind, payload)

    def _lose(self, cause: str, which: Conversation | None = None) -> None:
        """The streams of a conversation, or all."""
        with self._lock:
            channels = [one for one, its in self._channels.values() if which in (None, its)]
        for channel in channels:
            channel.lose(cause)


def converse(carrier: Connection, helper: str, deadline: Deadline) -> Conversation:
    """Start `serve` there. Raises BenchError with its cause."""
    channel = carrier.serve(helper, deadline)
    words = bytearray()

    def listen() -> None:
        with contextlib.suppress(OSError):
            while data := channel.recv_stderr(4096):
                words.extend(data)
                del words[:-2000]

    def why() -> str:
        reader.join(1.0)
        said = bytes(words).decode(errors="replace").strip()
        return why_ended(channel) + (f": {said}" if said else "")

    reader = threading.Thread(target=listen, daemon=True)
    channel.settimeout(None)
    reader.start()
    about = f"the helper's connection to {carrier.level} ended: "
    return Conversation(carrier.level, channel, why, deadline, about=about, helper=helper)


def served(carrier: Connection, helper: str) -> ServeConnection:
    """``carrier``'s level by one channel of it: what is opened is a stream on that. ``carrier`` is
    closed with it."""
    return ServeConnection(
        carrier.level, lambda deadline: converse(carrier, helper, deadline), carrier.close
    )
