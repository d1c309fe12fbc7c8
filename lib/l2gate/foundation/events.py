# SPDX-License-Identifier: MIT
"""The timeline: every step of every level as one typed record, and who listens to it.

Several processes write one timeline (the job, each test, the command line), so the file sink
appends whole lines with a single write and readers follow the file.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Union

import msgspec
from msgspec import Struct

#: The variable that tells a test's process where the job's timeline is.
TIMELINE_VARIABLE = "L2GATE_TIMELINE"


class Event(Struct, frozen=True, kw_only=True, tag_field="kind"):
    """One thing that happened: a class for each kind, here and in l2gate/records/events.py.

    ``level`` is controller, L0, L1 or L2, ``text`` what a person reads, ``at`` seconds since 1970.
    """

    level: str
    text: str
    at: float = msgspec.field(default_factory=time.time)


class StepBegan(Event, frozen=True, kw_only=True, tag="begin"):
    """A step has begun; ``phase`` names it in the report's seconds (empty: it has none)."""

    phase: str = ""


class StepEnded(Event, frozen=True, kw_only=True, tag="end"):
    """It has ended after so many ``seconds``, ``failed`` or not."""

    seconds: float
    phase: str = ""
    failed: bool = False


class Note(Event, frozen=True, kw_only=True, tag="note"):
    """Something that a reader of the timeline should know; ``shown`` on the screen, too."""

    shown: bool = False


class JobBroke(Event, frozen=True, kw_only=True, tag="error"):
    """What broke the job, and the exit code that it means (l2gate/foundation/errors.py)."""

    cause: str
    hint: str
    exit_code: int


Subscriber = Callable[[Event], None]


def kinds() -> tuple[type[Event], ...]:
    """Every class of event that has been imported."""
    return tuple(Event.__subclasses__())


@cache
def _decoder(known: tuple[type[Event], ...]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(Union[known])  # noqa: UP007


def _decode(line: bytes) -> Event:
    """Raises msgspec.ValidationError for a line that is no event."""
    event = _decoder(kinds()).decode(line)
    assert isinstance(event, Event)
    return event


class Timeline:
    """Hands each event to every subscriber, in order."""

    def __init__(self, *subscribers: Subscriber) -> None:
        self._subscribers = list(subscribers)

    def subscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.append(subscriber)

    def record(self, event: Event) -> None:
        for subscriber in self._subscribers:
            subscriber(event)

    def note(self, level: str, text: str, *, shown: bool = False) -> None:
        self.record(Note(level=level, text=text, shown=shown))

    @contextmanager
    def step(self, level: str, text: str, phase: str = "") -> Iterator[None]:
        """A step with a beginning and an end; ``phase`` names it in the report's seconds."""
        self.record(StepBegan(level=level, text=text, phase=phase))
        start = time.monotonic()
        failed = True
        try:
            yield
            failed = False
        finally:
            took = time.monotonic() - start
            self.record(StepEnded(level=level, text=text, seconds=took, phase=phase, failed=failed))


class FileSink:
    """Appends events to a file, one JSON object a line, safe for several writers."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, event: Event) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, msgspec.json.encode(event) + b"\n")
        finally:
            os.close(descriptor)


def read_timeline(path: Path) -> list[Event]:
    """All events in a timeline file so far; an unfinished last line is left for later."""
    if not path.exists():
        return []
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    return [_decode(line) for line in whole.splitlines()]


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
        return [_decode(line) for line in whole.splitlines()]


def timeline_from_environment() -> Timeline:
    """The job's timeline, as the job plug-in announced it to this process."""
    path = os.environ.get(TIMELINE_VARIABLE)
    return Timeline(FileSink(Path(path))) if path else Timeline()
