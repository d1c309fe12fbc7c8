# SPDX-License-Identifier: MIT
"""How a process of l2gate ends: its exit code says what kind of thing happened, whatever it was.

1 means that the kernel broke the promise, and nothing else may end with it, so an exception that is
none of ours ends with 2: cause and hint on the screen, the traceback in a file.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from l2gate.foundation.errors import BenchError, L2gateError
from l2gate.foundation.settings import state_dir

INTERRUPTED = 130
_FAULT = BenchError.exit_code
#: What tells a process to end. It passes through every `finally`, as Ctrl-C does.
_ENDING = (signal.SIGTERM, signal.SIGHUP)
_LOGS_KEPT = 20


def guarded(body: Callable[[], int]) -> int:
    """The exit code of ``body``, and that of what went wrong in it, which is told on stderr."""
    try:
        with _ending_is_an_interrupt():
            _take_standard_files()
            _tolerate_any_locale()
            code = _ended(body)
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return _say(INTERRUPTED, "interrupted")
    except L2gateError as error:
        return _say(error.exit_code, error.cause, error.hint)
    except BrokenPipeError:
        return _say(_FAULT, "what reads the output was closed before everything was said",
                    "read it to its end, or write it to a file")  # fmt: skip
    except Exception as error:
        return _say(_FAULT, *told(error))
    finally:
        _give_up_stdout()


def _ended(body: Callable[[], int]) -> int:
    """The exit code of ``body``, however it ends itself."""
    try:
        return body()
    except SystemExit as end:  # a library's: 1 is not for it to say
        if end.code is None:
            return 0
        return end.code if isinstance(end.code, int) and end.code != 1 else _FAULT


def told(error: Exception) -> tuple[str, str]:
    """Cause and hint of an exception that is none of ours; its traceback is written to a file."""
    log = _write_traceback(error)
    where = f"the traceback is in {log}" if log else "it could not be written to a file"
    return _cause(error), f"{_hint(error)}; {where}"


def _cause(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"the Python package {error.name} is missing"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"l2gate itself went wrong: {type(error).__name__}: {error}"


def _hint(error: Exception) -> str:
    if isinstance(error, ImportError):
        return "run `make venv`"
    if isinstance(error, OSError):
        return "see that the folder is there, can be written and has room"
    return "please report it with the traceback"


def _faults() -> str:
    return str(state_dir() / "faults")


def _write_traceback(error: Exception) -> Path | None:
    """None if there is no folder that takes it. Old ones go."""
    text = "".join(traceback.format_exception(error))
    for place in (_faults, tempfile.gettempdir):
        with suppress(OSError, L2gateError):
            folder = Path(place())
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            kept = sorted(folder.glob("l2gate-fault-*.log"))
            for old in kept[:-_LOGS_KEPT]:
                old.unlink(missing_ok=True)
            stamp = time.strftime("%Y%m%dT%H%M%S")
            handle, name = tempfile.mkstemp(".log", f"l2gate-fault-{stamp}-", folder)
            with os.fdopen(handle, "w", errors="backslashreplace") as file:
                file.write(f"{' '.join(sys.argv)}\n{text}")
            return Path(name)
    return None


def complain(cause: str, hint: str = "") -> None:
    """Tell it on stderr, if somebody listens."""
    with suppress(OSError, ValueError, AttributeError):
        print(f"l2gate: {cause}", file=sys.stderr)
        if hint:
            print(f"  hint: {hint}", file=sys.stderr)
        sys.stderr.flush()


def _say(code: int, cause: str, hint: str = "") -> int:
    complain(cause, hint)
    return code


@contextmanager
def _ending_is_an_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP end this process as Ctrl-C does: what it has begun is cleaned up."""
    before = {number: signal.signal(number, interrupt) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interrupt(*_: object) -> None:
    """A signal's handler: what it ends passes through every `finally`, as at Ctrl-C."""
    raise KeyboardInterrupt


def _take_standard_files() -> None:
    """What l2gate opens must not become the standard output of the programs that it starts.

    Raises BenchError if standard output is closed: the answer would be lost.
    """
    closed = [number for number in range(3) if not _is_open(number)]
    for number in closed:
        nowhere = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
        if nowhere != number:
            os.dup2(nowhere, number)
            os.close(nowhere)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    if 1 in closed:
        raise BenchError("standard output is closed", "write it to a file, or to /dev/null")


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _tolerate_any_locale() -> None:
    """A terminal that has no letter for something shows its number instead."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="backslashreplace")


def _give_up_stdout() -> None:
    """What a reader that is gone has left unread must not be tried again by the interpreter, which
    would end with 120 for it."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except (OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        with suppress(OSError, ValueError):
            os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
