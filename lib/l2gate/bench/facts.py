# SPDX-License-Identifier: MIT
"""What a test needs to reach the bench that its job has booted."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from l2gate.contract.contracts import Contract
from l2gate.foundation.errors import BenchError, MissingPrerequisite
from l2gate.foundation.settings import L2Kind, Proof
from l2gate.transport.console import Console
from l2gate.vendors import vendors
from l2gate.vendors.vendor import Vendor

#: The variable that tells a test where the bench is described.
BENCH_VARIABLE = "L2GATE_BENCH"
#: The variable that tells a test why none can run here: cause and hint, as a JSON list.
CANNOT_RUN_VARIABLE = "L2GATE_CANNOT_RUN"


@dataclass(frozen=True)
class BenchFacts:
    """What a test needs to reach the bench, as written to bench.json."""

    #: The socket of the job's multiplexer.
    multiplexer: str
    #: Of L1's QEMU on L0; empty and 0 on a bench without L1.
    monitor: str
    qemu_pid: int
    #: Where the helper is on L0, and in L1.
    helper: str
    l1_helper: str
    consoles: dict[str, str]
    contract: Contract
    scale: float
    l2: L2Kind
    #: How L2 is shown to be active: auto or fingerprint.
    proof: Proof
    #: The way of injecting that was asked for, or `all`.
    path: str
    #: The words of the cases that were asked for; empty: all.
    case: str
    #: Process id of the job that owns the bench.
    owner: int
    #: Whether KVM can deliver #BP and #OF onto any instruction. On SVM without NRIPS it can do so
    #: only onto an INT3 or INTO, and drops it elsewhere (svm.c: svm_update_soft_interrupt_rip).
    soft_exceptions: bool
    #: vmx or svm (l2gate.vendors).
    format: str
    #: Which steps of contract/eras.py the kernel has.
    steps: dict[str, bool | None]

    @property
    def vendor(self) -> Vendor:
        return vendors.named(self.format)

    def console(self, level: str) -> Console:
        """That level's console, for a test to watch."""
        return Console(level, Path(self.consoles[level]))

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1))
        path.chmod(0o600)

    @classmethod
    def read(cls, path: Path) -> BenchFacts:
        raw = json.loads(path.read_text())
        raw["contract"] = Contract(**raw["contract"])
        return cls(**raw)

    @classmethod
    def from_environment(cls) -> BenchFacts:
        """Raises MissingPrerequisite where the job found that the suite cannot run, BenchError
        where no job has set up a bench."""
        if cannot := os.environ.get(CANNOT_RUN_VARIABLE):
            raise MissingPrerequisite(*json.loads(cannot))
        path = os.environ.get(BENCH_VARIABLE)
        if not path or not Path(path).exists():
            raise BenchError(
                "there is no bench: l2gate's job plug-in has not booted one",
                "run the tests by `make run` or by .venv/bin/avocado run tests/",
            )
        return cls.read(Path(path))
