# SPDX-License-Identifier: MIT
"""How long each piece of work took the last time, kept below `state_dir`: for what comes first and
for what is expected to remain. It is a guess: a file that cannot be read or written is no error."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from l2gate.foundation.files import write_whole
from l2gate.foundation.settings import state_dir


class Durations:
    """Seconds by name, in one file for each ``kind`` of work."""

    def __init__(self, kind: str) -> None:
        self._path = state_dir() / kind / "seconds.json"
        self._known = _read(self._path)

    def known(self, name: str) -> float | None:
        """Seconds it took the last time; None if it never did."""
        return self._known.get(name)

    def guess(self, name: str, otherwise: float) -> float:
        return self._known.get(name, otherwise)

    def note(self, name: str, seconds: float) -> None:
        self.note_all({name: seconds})

    def note_all(self, seconds: dict[str, float]) -> None:
        """Keep them, beside what others have noted meanwhile."""
        self._known |= {name: round(one, 1) for name, one in seconds.items()}
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._path, json.dumps(_read(self._path) | self._known, indent=1))


def _read(path: Path) -> dict[str, float]:
    try:
        found: Any = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        str(name): float(seconds)
        for name, seconds in found.items()
        if isinstance(seconds, int | float) and 0 <= seconds < 10**6
    }
