# SPDX-License-Identifier: MIT
"""Programs at the far side that outlive the test that has started them, for the next one.

A test is a process of its own, and to start its programs again for each takes an emulated host
longer than what they do. The job's multiplexer keeps those that a test has given back; the first
line that such a program ever said is handed on with it, and read once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from l2gate.foundation.deadline import Deadline
from l2gate.transport.connection import Connection, Leased, Remote


class KeptPrograms:
    """Those of one level: what is started here may be what an earlier test has given back."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._leased: list[Leased] = []

    def start(self, argv: Sequence[str], deadline: Deadline, log: Path | None = None) -> Remote:
        """As `Connection.start`. Raises BenchError if the connection is lost."""
        leased = self._connection.lease(argv, deadline, log)
        if leased.note is not None:
            leased.remote.say_again(leased.note)
        self._leased.append(leased)
        return leased.remote

    @property
    def continued(self) -> bool:
        """Whether the last program that was started here is one that an earlier test has had."""
        return bool(self._leased) and self._leased[-1].note is not None

    def give_back(self) -> None:
        """All programs that were started here, and not closed, are as they were found, and owe no
        answer. Comes back when the next test can have them."""
        for leased in self._leased:
            leased.give_back(leased.remote.first)
        self._leased.clear()
