# SPDX-License-Identifier: MIT
"""A connection to a level: commands, long conversations and raw channels, whatever carries them."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import shlex
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import BenchError, HelperError

#: What makes a shell line root's; it never asks for a password.
SUDO = ("sudo", "-n", "--", "sh", "-c")
#: Bytes that are sooner sent again than asked after.
_SMALL = 1 << 20


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    command: str
    status: int
    stdout: str
    stderr: str


class Channel(Protocol):
    """What l2gate uses of an SSH channel, named as paramiko names it."""

    exit_status: int
    status_event: threading.Event

    def exec_command(self, command: str) -> None: ...
    def settimeout(self, seconds: float | None) -> None: ...
    def sendall(self, data: bytes) -> None: ...
    def shutdown_write(self) -> None: ...
    def recv(self, size: int) -> bytes: ...
    def recv_stderr(self, size: int) -> bytes: ...
    def exit_status_ready(self) -> bool: ...
    def recv_exit_status(self) -> int: ...
    def close(self) -> None: ...


class Ending:
    """How what runs on a channel has ended, named as paramiko names it."""

    def __init__(self) -> None:
        self.exit_status = -1
        self.status_event = threading.Event()

    def exit_status_ready(self) -> bool:
        return self.status_event.is_set()

    def recv_exit_status(self) -> int:
        self.status_event.wait()
        return self.exit_status


class Starter(Protocol):
    """Where a program can be started that stays."""

    def start(self, argv: Sequence[str], deadline: Deadline, log: Path | None = None) -> Remote: ...


class Connection(ABC):
    """A connection to a level. Close it, or use it in a `with`."""

    #: Whether commands become root's by sudo(8), which must not ask for a password.
    sudo = False

    def __init__(self, level: str) -> None:
        self.level = level

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def channel(self, deadline: Deadline) -> Channel:
        """A new channel. Raises BenchError if the connection is lost."""

    def tunnel(self, address: str, port: int, deadline: Deadline) -> Any:
        """A TCP connection made from the far side, as a socket. Raises BenchError."""
        raise NotImplementedError(f"{self.level}: no tunnel from here")

    def unix(self, path: str, helper: str, deadline: Deadline) -> Channel:
        """A connection to a unix socket of the far side: here by way of the helper's `bridge`.
        Raises BenchError, or ends at once, if nobody listens there."""
        return self.execute([helper, "bridge", "--unix", path], deadline)

    def serve(self, helper: str, deadline: Deadline) -> Channel:
        """The helper's `serve`. The shell stays, to tell by its own status what it died of."""
        return self.execute(f"{shlex.quote(helper)} serve; exit $?", deadline)

    def execute(
        self, command: Sequence[str] | str, deadline: Deadline, *, no_input: bool = False
    ) -> Channel:
        """A channel on which ``command``, a program or a line for the shell, runs: as root where
        `sudo` says. With ``no_input`` its stdin is at its end."""
        line = command if isinstance(command, str) else shlex.join(command)
        channel = self.channel(deadline)
        try:
            channel.exec_command(shlex.join([*SUDO, line]) if self.sudo else line)
            if no_input:
                channel.shutdown_write()
        except BaseException:
            channel.close()
            raise
        return channel

    def run(
        self,
        argv: Sequence[str] | str,
        deadline: Deadline,
        *,
        stdin: bytes | None = None,
        check: bool = True,
    ) -> Finished:
        """Run to the end. Raises BenchError if it fails (unless ``check`` is off)."""
        command = argv if isinstance(argv, str) else shlex.join(argv)
        with contextlib.closing(self.execute(argv, deadline, no_input=not stdin)) as channel:
            if stdin:
                # Beside the reading: a command may answer before it has read all.
                threading.Thread(target=_feed, args=(channel, stdin), daemon=True).start()
            out, err = self._drain(channel, deadline, command)
            done = Finished(
                command,
                channel.recv_exit_status(),
                out.decode(errors="replace"),
                err.decode(errors="replace"),
            )
        if check and done.status != 0:
            words = (done.stderr or done.stdout).strip()[-800:]
            raise BenchError(f"{self.level}: `{command}` ended with {done.status}: {words}")
        return done

    def start(self, argv: Sequence[str], deadline: Deadline, log: Path | None = None) -> Remote:
        """Start a program that stays; its stdin and stdout are the conversation."""
        return Remote(self.level, shlex.join(argv), self.execute(argv, deadline), log)

    def lease(self, argv: Sequence[str], deadline: Deadline, log: Path | None = None) -> Leased:
        """Such a program as `start` starts, or one that another test has given back.

        Here, where nobody keeps any, it is always new.
        """
        return Leased(self.start(argv, deadline, log))

    def put(self, source: Path, target: str, deadline: Deadline, mode: str = "600") -> None:
        """Copy a file there unless the same content is there already."""
        content = source.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        place = shlex.quote(target)
        there = f"echo '{digest}  '{place} | sha256sum -c >/dev/null 2>&1"
        if len(content) > _SMALL and self.run(there, deadline, check=False).status == 0:
            return
        # Under a name of its own until it is whole: another job may be doing the same.
        draft = f"{place}.part-$$"
        self.run(
            f"umask 077 && {{ gzip -dc >{draft} && chmod {mode} {draft} && mv {draft} {place}; }} "
            f"|| {{ rm -f {draft}; exit 1; }}",
            deadline,
            stdin=gzip.compress(content, 1),
        )

    def _drain(self, channel: Channel, deadline: Deadline, command: str) -> tuple[bytes, bytes]:
        # An unread stderr would stall stdout: both are read until the far side closes.
        out, err = bytearray(), bytearray()
        stderr = threading.Thread(target=_read_all, args=(channel.recv_stderr, err), daemon=True)
        channel.settimeout(None)
        stderr.start()
        channel.settimeout(max(0.1, deadline.remaining))
        try:
            while data := channel.recv(65536):
                out += data
                channel.settimeout(max(0.1, deadline.remaining))
        except TimeoutError:
            raise deadline.expire(f"`{command}` on {self.level}") from None
        if not channel.status_event.wait(max(0.1, deadline.remaining)):
            raise deadline.expire(f"`{command}` on {self.level}: no exit status")
        stderr.join(max(0.1, deadline.remaining))
        if channel.exit_status == -1:
            words = err.decode(errors="replace").strip() or why_ended(channel)
            raise BenchError(
                f"{self.level}: `{command}` ended unexpectedly: {words}",
                "look at that level's console in the job's results",
            )
        return bytes(out), bytes(err)


def why_ended(channel: Channel) -> str:
    """In words, of a channel whose stdout is at its end: its exit status may be about to come."""
    if cause := getattr(channel, "cause", ""):
        return str(cause)
    if not channel.status_event.wait(1.0) or channel.exit_status < 0:
        return str(getattr(channel, "cause", "")) or "it ended without an exit status"
    status = channel.exit_status
    return f"killed by signal {status - 128}" if status > 128 else f"it ended with {status}"


def _feed(channel: Channel, stdin: bytes) -> None:
    # One that has ended without it, or takes too long, tells more by its status and its words.
    with contextlib.suppress(OSError):
        channel.sendall(stdin)
        channel.shutdown_write()


def _read_all(read: Callable[[int], bytes], into: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := read(65536):
            into += data


class Remote:
    """A program running at the far side of an SSH connection, spoken to line by line.

    With ``log``, what it writes to stderr goes to that file; else its last words are kept for
    error messages.
    """

    def __init__(self, level: str, command: str, channel: Channel, log: Path | None) -> None:
        self.level, self.command, self.channel = level, command, channel
        self._log = log
        self._rest = b""
        #: The first line that it ever said.
        self.first = ""
        self._words = bytearray()
        self._reader = threading.Thread(target=self._read_stderr, daemon=True)
        self._reader.start()

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel: a program of ours ends at the end of its stdin."""
        self.channel.close()
        self._reader.join(2.0)

    @property
    def words(self) -> str:
        """The last of what it said on stderr."""
        return bytes(self._words[-2000:]).decode(errors="replace").strip()

    @property
    def ended(self) -> bool:
        return self.channel.exit_status_ready()

    @property
    def at_rest(self) -> bool:
        """Whether it goes on, and no part of an answer is left over."""
        return not self.ended and not self._rest

    def send(self, line: str) -> None:
        try:
            self.channel.sendall(line.encode() + b"\n")
        except OSError as error:
            raise self._broke_off(str(error)) from error

    def read_line(self, deadline: Deadline) -> str:
        """The next line of stdout. Raises HelperError if the program has ended."""
        while b"\n" not in self._rest:
            self.channel.settimeout(max(0.01, deadline.remaining))
            try:
                data = self.channel.recv(65536)
            except TimeoutError:
                raise deadline.expire(f"no answer from `{self.command}`") from None
            if not data:
                raise self._broke_off(why_ended(self.channel))
            self._rest += data
        found, _, self._rest = self._rest.partition(b"\n")
        line = found.decode(errors="replace")
        self.first = self.first or line
        return line

    def say_again(self, line: str) -> None:
        """Have ``line`` read before what the program says next."""
        self._rest = line.encode() + b"\n" + self._rest

    def read_object(self, deadline: Deadline) -> dict[str, Any]:
        """The next JSON line. Raises HelperError for an error line or what is no JSON."""
        return checked(self.level, self.command, self.read_raw(deadline))

    def read_raw(self, deadline: Deadline) -> Any:
        """The next JSON line, an error line too. Raises HelperError for what is no JSON."""
        line = self.read_line(deadline)
        try:
            return json.loads(line)
        except ValueError:
            raise HelperError(f"{self.level}: `{self.command}` said {line!r}") from None

    def ask(self, line: str, deadline: Deadline) -> dict[str, Any]:
        """Send a line and read its answer."""
        self.send(line)
        return self.read_object(deadline)

    def _read_stderr(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.channel.recv_stderr(4096):
                self._words += data
                if self._log:
                    with self._log.open("ab") as handle:
                        handle.write(data)

    def _broke_off(self, why: str) -> HelperError:
        words = f": {self.words}" if self.words else ""
        return HelperError(f"{self.level}: `{self.command}` ended unexpectedly ({why}){words}")


class Leased:
    """A program that may outlive the test that has started it.

    Who gives it back says in what state it is: nothing is unread, nothing asked is unanswered, and
    ``note`` tells the next one what it needs to know of it (its `ready` line, for instance). Who
    takes it over asks it first whether it goes on. One that is closed, or whose test ends or dies
    without giving it back, is ended; so is one that says or asks for something while nobody has it,
    and one that has died is never handed out.
    """

    def __init__(self, remote: Remote, note: str | None = None) -> None:
        """``note`` is what the one before has said of it; None: it is new."""
        self.remote, self.note = remote, note

    def give_back(self, note: str) -> None:
        """Whoever asks next for the same program of the same level gets it; else it is ended."""
        keep = getattr(self.remote.channel, "keep", None)
        if self.remote.at_rest and keep:
            keep(note)
        self.remote.close()

    def close(self) -> None:
        self.remote.close()


def checked(level: str, command: str, answer: Any) -> dict[str, Any]:
    """``answer`` itself; raises HelperError if it is the helper's error line."""
    if not isinstance(answer, dict) or "type" not in answer:
        raise HelperError(f"{level}: `{command}` answered {answer!r}")
    if answer["type"] == "error":
        name = answer.get("name") or ""
        cause = f"{level}: helper: {answer.get('what')} {f'({name})' if name else ''}".rstrip()
        raise HelperError(cause, answer.get("hint") or "")
    return answer
