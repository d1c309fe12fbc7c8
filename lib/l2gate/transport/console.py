# SPDX-License-Identifier: MIT
"""Consoles: what a level's kernel says, on a channel of its own; watched for words and crashes."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path

from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import GuestCrash, HelperError
from l2gate.transport import kernel_log

#: What init of ours says when a level cannot come up, and QEMU when its VM cannot go on.
_ENDED = re.compile(
    r"l2gate: no userland image|l2gate: sshd did not start|l2gate: the RAM image went astray|"
    r"emulation failure|entry failed"
)


#: Between two looks of a watch; a crash that is found so much later costs nobody anything.
_LOOK_SECONDS = 0.5


class Console:
    """A level's console log on the controller, growing while the level runs."""

    def __init__(self, level: str, log: Path) -> None:
        self.level, self.log = level, log

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def forgive(self) -> None:
        """What it has said so far was meant to happen: `crash` looks at what comes after."""
        self._forgiven.write_text(str(len(self.text())))

    @property
    def _forgiven(self) -> Path:
        return self.log.with_suffix(".forgiven")

    def crash(self) -> str | None:
        """The first line that tells of a panic, oops, WARN or stall, if there is one."""
        for line in self._lines():
            if kernel_log.sign_of(line) or _ENDED.search(line):
                return line.strip()
        return None

    @property
    def broken(self) -> bool:
        """Whether its kernel has crashed, and not only complained: it may answer no more."""
        signs = (kernel_log.sign_of(line) for line in self._lines())
        return any(sign and sign.severity is kernel_log.Severity.CRASH for sign in signs)

    def _lines(self) -> list[str]:
        """All that was not forgiven."""
        start = int(self._forgiven.read_text()) if self._forgiven.exists() else 0
        return self.text()[start:].splitlines()

    def check(self) -> None:
        """Raises GuestCrash if the level is not well."""
        if line := self.crash():
            raise GuestCrash(f"{self.level} crashed: {line}", f"the whole console: {self.log}")

    def wait_for(
        self, words: str, deadline: Deadline, alive: Callable[[], str | None] = lambda: None
    ) -> None:
        """Wait until ``words`` are there.

        ``alive`` returns why the level can no longer say them, or None. Raises GuestCrash at the
        first sign of a crash, DeadlineExpired with the console's last line.
        """

        def seen() -> bool:
            self.check()
            if words in self.text():
                return True
            if why := alive():
                raise GuestCrash(
                    f"{self.level} ended before it said {words!r}: {why}. Its last words: "
                    f"{self.last_line()}",
                    f"the whole console: {self.log}",
                )
            if deadline.expired:
                raise deadline.expire(f"{self.last_line()!r}; console: {self.log}")
            return False

        deadline.poll(seen)

    def last_line(self) -> str:
        lines = [line for line in self.text().splitlines() if line.strip()]
        return lines[-1].strip() if lines else "nothing"


class CrashWatch:
    """Looks at a console, in a thread of its own, while others wait for what a crashed level will
    never say: when it has crashed, ``call`` is called, once. Close it."""

    def __init__(self, console: Console, call: Callable[[], None]) -> None:
        self._console, self._call = console, call
        self._size = -1
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True, name="crash-watch")
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join(5)

    def _look(self) -> None:
        while not self._closed.wait(_LOOK_SECONDS):
            if self._crashed():
                self._call()
                return

    def _crashed(self) -> bool:
        """Whether it tells of a crash; what has not grown is not read again."""
        log = self._console.log
        size = log.stat().st_size if log.exists() else 0
        if size == self._size:
            return False
        self._size = size
        return self._console.broken


class ConsolePump:
    """Copies a console that arrives over a channel into its log, in a thread of its own."""

    def __init__(self, read: Callable[[int], bytes], log: Path) -> None:
        self._read, self._log = read, log
        self._thread = threading.Thread(target=self._copy, daemon=True, name=f"console {log.name}")
        self._thread.start()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def _copy(self) -> None:
        with self._log.open("ab", buffering=0) as handle:
            try:
                while data := self._read(65536):
                    handle.write(data)
            except (OSError, HelperError):
                return
