"""Running programs on the controller, with their last lines in the error when they fail."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from l2gate.errors import BenchError, MissingPrerequisite

_PR_SET_PDEATHSIG = 1


def run(
    argv: Sequence[str | Path],
    *,
    what: str,
    mend: str = "",
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
        raise BenchError(f"{what} failed:\n" + "\n".join(tail.splitlines()[-15:]), mend)
    return done.stdout


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
