# SPDX-License-Identifier: MIT
"""The helper binary: compiled on the controller, static, so that it runs on any L0 and L1."""

from __future__ import annotations

from pathlib import Path

from l2gate.foundation import cache
from l2gate.foundation.events import Timeline
from l2gate.foundation.process import run
from l2gate.foundation.settings import checkout

#: Where it is on a level of ours.
HELPER = "/run/l2gate/helper"


def build(timeline: Timeline) -> Path:
    """The binary, compiled now if its sources have changed. Raises BenchError with gcc's words."""
    folder = checkout() / "lib/helper"
    sources = sorted(p for p in folder.iterdir() if p.suffix in {".c", ".h", ".S", ".def"})
    sources.append(folder / "Makefile")

    def make(target: Path) -> None:
        with timeline.step("controller", "compiling the helper"):
            run(
                ["make", "-s", "-C", folder, f"OUT={target}", "l2gate-helper"],
                what="compiling the helper",
                hint="run `make apt` for gcc and libc6-dev",
            )

    names = "".join(p.name for p in sources)
    return cache.make("helper", cache.digest(names, *sources), make) / "l2gate-helper"
