# SPDX-License-Identifier: MIT
"""Bochs machines that are parked: copies of a booted one that wait, use no CPU, and are forked.

A booted Bochs is a process of one thread, so fork() copies the whole machine, in milliseconds, and
what it has in memory is shared until somebody changes it. images/bochs/park.c, loaded into Bochs,
does that at a point where no device is at work; this is the side that asks for it.

A parked machine is nobody's child and holds nothing of the job that made it: no terminal, no port,
none of its files. It is found by its folder (mode 0700), with the control socket and what the
console had said. It ends when it is told to, or when it was idle for the time that it was given.

Between two forks the guests differ in nothing: the same keys, the same random pool, the same clock,
which stands while the machine is parked, and the same disks, which none of them may write to.
"""

from __future__ import annotations

import math
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from l2gate.foundation import cache
from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import BenchError
from l2gate.foundation.process import end_other, run
from l2gate.hosts.persistent import born_at
from l2gate.images import userland

#: Where a template has its parked machine.
PARKED = "parked"
_RECIPE = "1"
_FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-fvisibility=hidden")
_CONTROL = "control"
_CONSOLE = "console"
_MESSAGE = 256
#: A machine that has booted has said long ago that it listens.
_HERE_SECONDS = 5.0
_LOOK_SECONDS = 1.0


def library() -> Path:
    """What is loaded into Bochs, compiled now if its source has changed."""
    source = userland.recipe("bochs/park.c")

    def make(folder: Path) -> None:
        words = ["gcc", *_FLAGS, "-o", str(folder / "park.so"), str(source), "-ldl"]
        run(words, what="compiling what parks Bochs", hint="run `make apt`")

    return cache.make("park", cache.digest(_RECIPE, source), make) / "park.so"


class Link:
    """The owner's end of the link to a machine. When it is closed, the machine ends."""

    def __init__(self, *, here: bool = False) -> None:
        """``here``: the machine is known to listen."""
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._here = here

    @contextmanager
    def preload(self) -> Iterator[tuple[dict[str, str], tuple[int, ...]]]:
        """What a Bochs that is started inside needs: environment, and descriptors to inherit."""
        loaded = os.open(library(), os.O_RDONLY)
        try:
            # By number: LD_PRELOAD knows no way to write a path with a blank or a colon in it.
            words = [f"/proc/self/fd/{loaded}", *os.environ.get("LD_PRELOAD", "").split()]
            number = self._theirs.fileno()
            yield {"LD_PRELOAD": " ".join(words), "L2GATE_PARK": str(number)}, (loaded, number)
        finally:
            os.close(loaded)
            self._theirs.close()

    @contextmanager
    def handed(self) -> Iterator[int]:
        """The machine's end, for one that is forked inside."""
        try:
            yield self._theirs.fileno()
        finally:
            self._theirs.close()

    def park(
        self, console: Path, log: Path, folder: Path, idle: float, deadline: Deadline
    ) -> Parked:
        """Have the machine, which writes to ``console`` and ``log``, leave a parked copy of itself
        in ``folder``, which is made. The machine runs on.

        The copy ends after ``idle`` seconds without use; 0 is never. Raises BenchError.
        """
        self._expect_here(deadline)
        try:
            folder.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise BenchError(f"cannot park in {folder}: {error}", "name a new folder") from error
        try:
            return self._park(console, log, folder, idle, deadline)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise BenchError(f"cannot park the machine in {folder}: {error}") from error
            raise

    def _park(
        self, console: Path, log: Path, folder: Path, idle: float, deadline: Deadline
    ) -> Parked:
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control,
            console.open("rb") as said,
            log.open("rb") as told,
        ):
            with _place(folder) as place:
                control.bind(place)
            (folder / _CONTROL).chmod(0o600)
            control.listen(8)
            files = [said.fileno(), told.fileno(), control.fileno()]
            request = f"park {max(0, math.ceil(idle))}"
            pid, size = _ask(self._ours, request, files, "parked", deadline).numbers
            (folder / _CONSOLE).write_bytes(said.read(size))
        # Until it is asked something it does not stay.
        parked = Parked.find(folder, deadline)
        if not parked or parked.pid != pid:
            raise BenchError(f"the copy that was parked in {folder} does not answer")
        return parked

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()

    def _expect_here(self, deadline: Deadline) -> None:
        """Raises BenchError if this Bochs has not loaded our library, or never got to it."""
        if not self._here:
            self._ours.settimeout(max(0.01, min(_HERE_SECONDS, deadline.remaining)))
            with suppress(OSError):
                self._here = self._ours.recv(_MESSAGE) == b"here"
        if not self._here:
            raise BenchError(
                "this Bochs cannot be parked: it loads no library, or its display does not ask "
                "ncurses' wgetch for keys",
                "leave the setting `bochs` empty to use Debian's, or do without templates",
            )


@dataclass(frozen=True)
class Status:
    """Of a parked machine: how many run that were forked from it, seconds since it had something to
    do, and its memory in MB: all that is resident, and what it shares with nobody."""

    machines: int
    idle: int
    resident: int
    private: int


@dataclass(frozen=True)
class Parked:
    """A parked machine: its folder, its process, and when that was started (proc(5))."""

    folder: Path
    pid: int
    born: str

    @classmethod
    def find(cls, folder: Path, deadline: Deadline) -> Parked | None:
        """The one that belongs to ``folder``, or None if there is none any more.

        Raises BenchError if there is one that does not answer.
        """
        try:
            client = _connect(folder, deadline)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError as error:
            raise _unreachable(folder, error) from error
        with client:
            pid = _ask(client, "status", (), "status", deadline).numbers[0]
        return cls(folder, pid, born_at(pid))

    @property
    def alive(self) -> bool:
        """Whether it is there; born_at knows those that have ended."""
        return bool(self.born) and born_at(self.pid) == self.born

    @property
    def console(self) -> Path:
        """What its console had said when it was parked."""
        return self.folder / _CONSOLE

    def status(self, deadline: Deadline) -> Status:
        """Raises BenchError if it is gone or does not answer."""
        with self._client(deadline) as client:
            _, machines, idle = _ask(client, "status", (), "status", deadline).numbers
        return Status(machines, idle, *memory(self.pid))

    def fork(self, console: Path, log: Path, deadline: Deadline) -> Forked:
        """A machine that goes on from where this one was parked, and belongs to this process.

        Its port is a new one of 127.0.0.1; ``console`` begins with what was said before, ``log``
        is empty. Raises BenchError.
        """
        link = Link(here=True)
        client = None
        try:
            client = self._client(deadline)
            return self._fork(client, link, console, log, deadline)
        except BaseException as error:
            link.close()
            if client:
                client.close()
            if isinstance(error, OSError):
                raise BenchError(f"cannot fork the parked machine: {error}") from error
            raise

    def _fork(
        self, client: socket.socket, link: Link, console: Path, log: Path, deadline: Deadline
    ) -> Forked:
        shutil.copyfile(self.console, console)
        with ExitStack() as stack:
            port = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            said = stack.enter_context(console.open("ab"))
            told = stack.enter_context(log.open("ab"))
            owner = os.pidfd_open(os.getpid())
            stack.callback(os.close, owner)
            theirs = stack.enter_context(link.handed())
            files = [port.fileno(), said.fileno(), told.fileno(), theirs, owner]
            answer = _ask(client, "fork", files, "forked", deadline)
            number = int(port.getsockname()[1])
        return Forked(answer.numbers[0], answer.descriptor, client, link, number)

    def end(self, deadline: Deadline) -> None:
        """End it, and remove its folder; machines that were forked from it run on. Idempotent.

        Raises DeadlineExpired if it does not end.
        """
        try:
            asked = Deadline(deadline.what, deadline.remaining / 2)
            with self._client(asked) as client:
                _ask(client, "end", (), "ended", asked)
        except BenchError:
            # It does not listen.
            end_other(self.pid, lambda: self.alive, signal.SIGKILL, deadline.remaining)
        deadline.poll(lambda: not self.alive, 0.01)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _client(self, deadline: Deadline) -> socket.socket:
        try:
            return _connect(self.folder, deadline)
        except OSError as error:
            raise _unreachable(self.folder, error) from error


class Forked:
    """A machine that was forked, for its owner what subprocess.Popen is for a child. It ends when
    `close` is called, and when this process ends, however it does."""

    def __init__(
        self, pid: int, descriptor: int, client: socket.socket, link: Link, port: int
    ) -> None:
        """``descriptor`` is its pidfd; over ``client`` the parked machine says how it ended."""
        self.pid, self.port, self.link = pid, port, link
        #: As Popen's: negative is a signal. 1 if the parked machine had gone, and nobody knows.
        self.returncode: int | None = None
        self._descriptor, self._client = descriptor, client

    def poll(self) -> int | None:
        """Its return code, if it has ended."""
        if self.returncode is None and self._gone(0):
            self.returncode = self._how()
            self.link.close()
            self._client.close()
            os.close(self._descriptor)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired after ``timeout`` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            left = _LOOK_SECONDS if end is None else end - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired("a forked Bochs", timeout or 0)
            self._gone(min(left, _LOOK_SECONDS))
        return code

    def kill(self) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def close(self) -> None:
        """Power off. Idempotent."""
        self.kill()
        self.wait()

    def _gone(self, seconds: float) -> bool:
        """Whether it has ended within that time (pidfd_open(2))."""
        watch = select.poll()
        watch.register(self._descriptor, select.POLLIN)
        return bool(watch.poll(seconds * 1000))

    def _how(self) -> int:
        self._client.settimeout(_LOOK_SECONDS)
        try:
            words = self._client.recv(_MESSAGE).split()
        except OSError:
            words = []
        return os.waitstatus_to_exitcode(int(words[1])) if len(words) == 2 else 1


def memory(pid: int) -> tuple[int, int]:
    """What a process has in memory, in MB: all, and what it shares with nobody; zeros if gone."""
    try:
        rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return 0, 0
    sizes = {row.split(":")[0]: int(row.split()[1]) for row in rows}
    private = sizes.get("Private_Clean", 0) + sizes.get("Private_Dirty", 0)
    return sizes.get("Rss", 0) >> 10, private >> 10


@dataclass(frozen=True)
class _Answer:
    numbers: list[int]
    descriptor: int


def _ask(
    client: socket.socket, words: str, files: Sequence[int], expected: str, deadline: Deadline
) -> _Answer:
    """One request with descriptors, and its answer. Raises BenchError, DeadlineExpired."""
    try:
        client.settimeout(max(0.01, deadline.remaining))
        socket.send_fds(client, [words.encode()], list(files))
        data, descriptors, _, _ = socket.recv_fds(client, _MESSAGE, 1)
    except TimeoutError:
        raise deadline.expire(f"Bochs does not answer `{words}`") from None
    except OSError as error:
        raise BenchError(f"Bochs was asked to {words}, and is gone: {error}") from error
    said, _, rest = data.decode(errors="replace").partition(" ")
    if said != expected:
        raise BenchError(
            f"Bochs was asked to {words}, and said: {rest or said or 'nothing, and ended'}",
            "run it again without a template",
        )
    return _Answer([int(number) for number in rest.split()], descriptors[0] if descriptors else -1)


@contextmanager
def _place(folder: Path) -> Iterator[str]:
    """The control socket's address: below 108 bytes, wherever the folder is."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{_CONTROL}"
    finally:
        os.close(descriptor)


def _connect(folder: Path, deadline: Deadline) -> socket.socket:
    """Raises OSError."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        client.settimeout(max(0.01, deadline.remaining))
        with _place(folder) as place:
            client.connect(place)
    except BaseException:
        client.close()
        raise
    return client


def _unreachable(folder: Path, error: OSError) -> BenchError:
    return BenchError(
        f"the machine that was parked in {folder} is not there: {error}",
        "it has ended, or was ended; run without it",
    )
