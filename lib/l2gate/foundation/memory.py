# SPDX-License-Identifier: MIT
"""This machine's memory."""

from __future__ import annotations

from pathlib import Path


def available_memory() -> int:
    """Bytes that programs can be given without swapping (proc(5): meminfo, MemAvailable)."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
