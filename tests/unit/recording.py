# SPDX-License-Identifier: MIT
"""Results that were recorded, cut down to some vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from l2gate.report.result import Result


def recorded(name: str) -> dict[str, Any]:
    """The JSON that a run has written."""
    raw: dict[str, Any] = json.loads(
        (Path(__file__).parent / "recorded" / f"{name}.json").read_text()
    )
    return raw


def result_of(raw: dict[str, Any]) -> Result:
    """The same as what the report is made from; without its provenance."""
    return Result.from_json({**raw, "provenance": None})
