# SPDX-License-Identifier: MIT
"""What the helper's `probe` says of a level (lib/helper/probe.c)."""

from __future__ import annotations

import json
from typing import Any

from l2gate.foundation.deadline import Budget
from l2gate.foundation.errors import HelperError
from l2gate.transport.connection import Connection, checked


def probe(
    connection: Connection, helper: str, level: str, budget: Budget, hint: str = ""
) -> dict[str, Any]:
    """Ask it. Raises HelperError, with ``hint`` if the helper does not run there."""
    done = connection.run([helper, "probe"], budget.deadline(f"probing {level}", 10), check=False)
    try:
        return checked(level, "helper probe", json.loads(done.stdout))
    except ValueError:
        words = (done.stderr or done.stdout).strip() or f"ended with {done.status}"
        raise HelperError(f"{level}: the helper does not run: {words}", hint) from None
