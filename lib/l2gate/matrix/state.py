# SPDX-License-Identifier: MIT
"""What a matrix has found out so far, so that an interrupted one goes on where it stopped.

A folder below L2GATE_STATE, named by the content of what was asked: other kernels, other patches or
another suite are another folder. It holds one JSON file for each finished piece of work.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from l2gate.foundation.settings import state_dir

_FINISHED = "finished"


class State:
    """The folder of one matrix. One that had come to its end begins anew."""

    def __init__(self, kind: str, key: str) -> None:
        self.folder = state_dir() / kind / key
        if (self.folder / _FINISHED).exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def load(self, key: str) -> dict[str, Any] | None:
        """What was found out of ``key``; None if it is still to be done."""
        try:
            found = json.loads(self.path(key).read_text())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def save(self, key: str, value: dict[str, Any]) -> None:
        """Whole or not at all."""
        draft = self.path(key).with_suffix(".part")
        draft.write_text(json.dumps(value))
        draft.replace(self.path(key))

    def finish(self) -> None:
        """The next matrix of the same kind begins anew."""
        (self.folder / _FINISHED).touch()
