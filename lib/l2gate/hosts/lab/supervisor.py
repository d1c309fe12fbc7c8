# SPDX-License-Identifier: MIT
"""The owner, on a lab host, of what a job has there: `supervise` (lib/helper/supervise.c).

It holds the host's lock and the job's folder, starts QEMU, and at the job's end, or when the
controller is not heard of any more, ends QEMU, puts the KVM module back and removes the folder.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import BenchError, DeadlineExpired, L2gateError
from l2gate.transport.connection import Connection, Remote

#: Seconds without a heartbeat after which the controller counts as gone.
SILENCE = 30


class Supervisor:
    """One job's `supervise`. Close it: what it holds ends with it."""

    def __init__(
        self,
        connection: Connection,
        argv: Sequence[str],
        within: Deadline,
        log: Path | None,
        waiting: Callable[[str], None],
    ) -> None:
        """Wait for the host's lock; ``waiting`` is told who has it.

        Raises DeadlineExpired when ``within`` has passed, HelperError for what `supervise` refuses.
        """
        self._remote = connection.start([*argv, "--within", str(SILENCE)], within, log)
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._over = threading.Event()
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True, name="heartbeat")
        self._heart.start()
        try:
            self.pid = self._wait_for_lock(within, waiting)
        except BaseException:
            self._over.set()
            self._remote.close()
            raise
        self._reader = threading.Thread(target=self._read, daemon=True, name="supervisor")
        self._reader.start()

    def start(self, line: str, deadline: Deadline) -> Supervised:
        """Start a line of the shell. Raises BenchError if the supervisor is gone."""
        self._remote.send(f"start {line}")
        try:
            answer = self._answers.get(timeout=max(0.1, deadline.remaining))
        except queue.Empty:
            raise deadline.expire("no answer from the supervisor") from None
        if answer["type"] != "started":
            raise BenchError(f"L0: {answer.get('what', answer)}", str(answer.get("hint") or ""))
        return Supervised(self._remote, self._ended)

    def close(self, deadline: Deadline) -> None:
        """Let it end what it keeps, and wait until it has. Idempotent."""
        if self._over.is_set():
            return
        self._over.set()
        with contextlib.suppress(OSError, L2gateError):
            self._remote.channel.shutdown_write()
            self._remote.channel.status_event.wait(max(0.1, deadline.remaining))
        self._remote.close()
        self._heart.join(2.0)
        self._reader.join(2.0)

    def _wait_for_lock(self, within: Deadline, waiting: Callable[[str], None]) -> int:
        holder = "another job"
        while True:
            try:
                answer = self._remote.read_object(within)
            except DeadlineExpired:
                raise DeadlineExpired(
                    f"the host is in use by {holder}: its lock was not free within "
                    f"{within.seconds:.0f} s",
                    "wait for that job, end it, or raise the setting `wait`",
                ) from None
            if answer["type"] == "ready":
                return int(answer["pid"])
            holder = answer.get("holder") or holder
            waiting(holder)

    def _beat(self) -> None:
        with contextlib.suppress(OSError, L2gateError):
            while not self._over.wait(SILENCE / 6):
                self._remote.send("")

    def _read(self) -> None:
        forever = Deadline("the supervisor says something", 10.0**7)
        with contextlib.suppress(OSError, L2gateError, ValueError):
            while True:
                answer = self._remote.read_raw(forever)
                if answer.get("type") == "ended":
                    self._ended.set()
                else:
                    self._answers.put(answer)
        # A supervisor that is gone has ended its program first.
        self._ended.set()


class Supervised:
    """The program that a supervisor has started."""

    def __init__(self, remote: Remote, ended: threading.Event) -> None:
        self._remote, self._ended = remote, ended

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    @property
    def words(self) -> str:
        return self._remote.words

    def close(self) -> None:
        """Kill it if it still runs; the supervisor waits for it."""
        if not self.ended:
            with contextlib.suppress(OSError, L2gateError):
                self._remote.send("stop")
                self._ended.wait(10.0)
