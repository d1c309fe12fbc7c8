# SPDX-License-Identifier: MIT
"""Running programs on the controller, with their last lines in the error when they fail."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from l2gate.foundation.errors import BenchError, MissingPrerequisite

_PR_SET_PDEATHSIG = 1
#: Seconds in which a program that was asked to end must have ended.
_ENDING_SECONDS = 60
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(
    argv: Sequence[str | Path],
    *,
    what: str,
    hint: str = "",
    stdin: bytes | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> bytes:
    """Run to the end and return stdout.

    Raises MissingPrerequisite if the program is not installed, BenchError (naming ``what``,
    with the last lines of its output) if it fails.
    """
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(words, input=stdin, capture_output=True, cwd=cwd, env=env)
    except FileNotFoundError:
        raise MissingPrerequisite(
            f"{what}: the program {words[0]} is not installed", "run `make apt`"
        ) from None
    if done.returncode != 0:
        tail = (done.stderr.strip() or done.stdout.strip()).decode(errors="replace")
        raise BenchError(f"{what} failed:\n" + "\n".join(tail.splitlines()[-15:]), hint)
    return done.stdout


@contextmanager
def owned(argv: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process, and those that it starts, that do not outlive the block: left by an exception,
    they are all asked to end (they may have something of their own to remove), and ended if they do
    not. mmdebstrap waits for its children, so it is not enough to ask itself."""
    # A signal that came while it is started would leave it without an owner.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)

    def as_before() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    try:
        process = subprocess.Popen(argv, process_group=0, preexec_fn=as_before, **options)
    except BaseException:
        as_before()
        raise
    try:
        as_before()
        yield process
    finally:
        end(process, lambda number: os.killpg(process.pid, number))


def end(
    process: subprocess.Popen[bytes], send: Callable[[signal.Signals], None] | None = None
) -> None:
    """Ask it to end, if it runs, and end it if it does not within a minute. ``send`` hands the
    signal to more than the process."""
    send = send or process.send_signal
    if process.poll() is not None:
        return
    send(signal.SIGTERM)
    try:
        process.wait(_ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        send(signal.SIGKILL)
        process.wait()


def die_with_parent(number: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """A preexec_fn: the child gets the signal when this process ends, however it ends.

    PR_SET_PDEATHSIG follows the *thread* that forked: call Popen from the main thread.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:  # the parent died between fork and prctl
            os.kill(os.getpid(), number)

    return prepare


def start_logged(
    argv: Sequence[str], log: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a job of ours that writes to ``log`` and gets SIGTERM when this process ends.

    In a session of its own: Ctrl-C reaches it once, from its owner, not twice. Call it in the main
    thread.
    """
    with log.open("wb") as output:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGTERM),
        )


def end_other(pid: int, is_it: Callable[[], bool], number: signal.Signals, seconds: float) -> bool:
    """Send a signal to a process that is no child of this one, if ``is_it`` says that the number
    still means it. Whether it has ended within that time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        if not is_it():
            return True
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, number)
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def end_with(pid: int) -> None:
    """End this process as soon as the process ``pid``, not its parent, has ended.

    Raises BenchError if there is no such process any more.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        raise BenchError(f"the job (process {pid}) is gone") from None

    def watch() -> None:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll()
        os._exit(BenchError.exit_code)

    threading.Thread(target=watch, daemon=True, name=f"ends with {pid}").start()
