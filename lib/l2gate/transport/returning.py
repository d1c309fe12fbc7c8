# SPDX-License-Identifier: MIT
"""A connection to a level that may start anew: it is made again when it is found lost."""

from __future__ import annotations

import threading
from collections.abc import Callable

from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import BenchError
from l2gate.transport.connection import Channel, Connection


class Returning(Connection):
    """``connect`` makes the connection, now and whenever the last one is lost."""

    def __init__(self, level: str, connect: Callable[[], Connection]) -> None:
        super().__init__(level)
        self._connect, self._lock = connect, threading.Lock()
        self._inner = connect()

    def channel(self, deadline: Deadline) -> Channel:
        with self._lock:
            try:
                return self._inner.channel(deadline)
            except BenchError:
                self._inner.close()
                self._inner = self._connect()
                return self._inner.channel(deadline)

    def close(self) -> None:
        self._inner.close()
