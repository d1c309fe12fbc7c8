# SPDX-License-Identifier: MIT
"""Asking the question as a person does: one `l2gate run` in a process of its own, and its JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l2gate.foundation.settings import checkout

INTEL, AMD = "emulated-intel", "emulated-amd"

EVERY = "RefusedWhileL2IsActive.test_every_exception"
HUNDREDTH = "RefusedWhileL2IsActive.test_the_hundredth_time_as_the_first"
ZERO = "RefusedWhileL2IsActive.test_nothing_is_injected_when_nothing_is_asked"
CONTROL = "AcceptedWhileL1IsActive.test_every_exception"
REFUSED = "tests/injection/refused_while_l2_active.py"
ACCEPTED = "tests/injection/accepted_while_l1_active.py"


@dataclass(frozen=True)
class Run:
    """How a run ended, and the JSON that it wrote."""

    code: int
    result: dict[str, Any]

    def failing(self, test: str) -> list[dict[str, Any]]:
        return [c for c in self.result["cases"] if c["test"] == test and c["verdict"] == "fail"]


def l2gate_says(*words: str) -> subprocess.CompletedProcess[str]:
    """A verb of l2gate, run to its end."""
    command = [sys.executable, "-m", "l2gate", *words]
    return subprocess.run(command, cwd=checkout(), capture_output=True, text=True, timeout=900)


def l2gate(host: str, kernel: str, folder: Path, *words: str) -> Run:
    target = folder / "result.json"
    command = ["run", "--host", host, "--json", str(target), *words]
    done = l2gate_says(*command, *(["--kernel", kernel] if kernel else []))
    print(done.stdout[-6000:], done.stderr[-3000:])
    assert target.exists(), "no result was written"
    return Run(done.returncode, json.loads(target.read_text()))
