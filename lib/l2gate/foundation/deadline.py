# SPDX-License-Identifier: MIT
"""Every wait has a deadline and names what it waits for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from l2gate.foundation.errors import DeadlineExpired

T = TypeVar("T")


@dataclass(frozen=True)
class Deadline:
    """A point in time by which ``what`` must have happened.

    ``seconds`` is wall time from creation; one deadline can be handed through several waits.
    """

    what: str
    seconds: float
    _end: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_end", time.monotonic() + self.seconds)

    @property
    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._end - time.monotonic())

    @property
    def expired(self) -> bool:
        return self.remaining == 0.0

    def expire(self, detail: str = "") -> DeadlineExpired:
        """The error to raise when the deadline has passed."""
        seen = f" (last seen: {detail})" if detail else ""
        return DeadlineExpired(
            f"{self.what}: not within {self.seconds:.0f} s{seen}",
            "look at the consoles in the job's results; on a slow or busy machine "
            "raise the setting `patience`",
        )

    def poll(self, condition: Callable[[], T | None], interval: float = 0.05) -> T:
        """Call ``condition`` until it returns something true, and return that.

        Raises DeadlineExpired naming ``what``.
        """
        while True:
            if value := condition():
                return value
            if self.expired:
                raise self.expire()
            time.sleep(min(interval, self.remaining))


@dataclass(frozen=True)
class Budget:
    """Turns nominal seconds (a hardware host's) into a host's own, by its measured slowness."""

    scale: float = 1.0

    def deadline(self, what: str, seconds: float) -> Deadline:
        return Deadline(what, seconds * self.scale)
