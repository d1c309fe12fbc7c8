# SPDX-License-Identifier: MIT
"""The timeline: every step of every level as one typed record, and who listens to it.

Several processes write one timeline (the job, each test, the command line), so the file sink
appends whole lines with a single write and readers follow the file.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

#: The variable that tells a test's process where the job's timeline is.
TIMELINE_VARIABLE = "L2GATE_TIMELINE"


@dataclass(frozen=True)
class Event:
    """One step.

    ``level`` is controller, L0, L1 or L2; ``kind`` is what a reader dispatches on (``begin``,
    ``end``, ``note``, ``case``, ``verdict``); ``seconds`` is the duration of a finished step.
    """

    level: str
    kind: str
    text: str
    seconds: float | None = None
    data: dict[str, Any] = field(default_factory=dict)
    at: float = field(default_factory=time.time)

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str) -> Event:
        return cls(**json.loads(line))


Subscriber = Callable[[Event], None]


class Timeline:
    """Hands each event to every subscriber, in order."""

    def __init__(self, *subscribers: Subscriber) -> None:
        self._subscribers = list(subscribers)

    def subscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.append(subscriber)

    def record(self, event: Event) -> None:
        for subscriber in self._subscribers:
            subscriber(event)

    def note(self, level: str, text: str, **data: Any) -> None:
        self.record(Event(level, "note", text, data=data))

    @contextmanager
    def step(self, level: str, text: str, phase: str = "") -> Iterator[None]:
        """A step with a beginning and an end; ``phase`` names it in the report's seconds."""
        self.record(Event(level, "begin", text, data={"phase": phase}))
        start = time.monotonic()
        failed = True
        try:
            yield
            failed = False
        finally:
            took = time.monotonic() - start
            self.record(Event(level, "end", text, took, {"phase": phase, "failed": failed}))


class FileSink:
    """Appends events to a file, one JSON object a line, safe for several writers."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, event: Event) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, (event.to_json() + "\n").encode())
        finally:
            os.close(descriptor)


def read_timeline(path: Path) -> list[Event]:
    """All events in a timeline file so far; an unfinished last line is left for later."""
    if not path.exists():
        return []
    whole, _, _ = path.read_text().rpartition("\n")
    return [Event.from_json(line) for line in whole.splitlines()]


class Follower:
    """Reads a growing timeline file piece by piece."""

    def __init__(self, path: Path) -> None:
        self._path, self._at = path, 0

    def new(self) -> list[Event]:
        """What has come since the last call; an unfinished last line is left for the next."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as handle:
            handle.seek(self._at)
            whole, newline, _ = handle.read().rpartition(b"\n")
        self._at += len(whole) + len(newline)
        return [Event.from_json(line.decode()) for line in whole.splitlines()]


def timeline_from_environment() -> Timeline:
    """The job's timeline, as the job plug-in announced it to this process."""
    path = os.environ.get(TIMELINE_VARIABLE)
    return Timeline(FileSink(Path(path))) if path else Timeline()
