# SPDX-License-Identifier: MIT
"""`l2gate schema`: what a program that reads a result can rely on."""

from __future__ import annotations

import argparse
import json

from l2gate.report import result


def schema(_: argparse.Namespace) -> int:
    """Print the JSON Schema of a result."""
    print(json.dumps(result.schema(), indent=1))
    return 0
