# SPDX-License-Identifier: MIT
"""What a system test is written with: the base class, the decorator, and on what it asks.

A test of tests/injection says what KVM must do, by the methods that begin with `must_`:

    VcpuEvents      freezes QEMU's vCPU in L1 or L2 and injects past QEMU: `must_refuse` an
                    exception, `must_accept` it, a process of L1 `must_receive` a signal
    StandaloneVm    a VM of the helper's own, without L1's Linux: it `must_keep` a table of cases
    Nmi, GdbStub,   QEMU itself is made to inject: the exception `must_reach` L1 or L2, or
    MachineCheck    `must_be_refused`

What is said is what is judged: nothing else decides what a case must come to.
"""

from __future__ import annotations

from l2gate.contract.vectors import (
    BREAKPOINT,
    DEBUG,
    DIVIDE_ERROR,
    EXCEPTIONS,
    GENERAL_PROTECTION,
    INVALID_OPCODE,
    NEVER_EXCEPTIONS,
)
from l2gate.injection.paths.gdbstub import GdbStub
from l2gate.injection.paths.mce import MachineCheck
from l2gate.injection.paths.nmi import Nmi
from l2gate.injection.paths.vcpu_events import VcpuEvents
from l2gate.injection.standalone import StandaloneVm
from l2gate.testing.systemtest import (
    EITHER,
    ContractTest,
    SystemTest,
    about,
    contract_test,
    why_skipped,
)

__all__ = [
    "BREAKPOINT",
    "DEBUG",
    "DIVIDE_ERROR",
    "EITHER",
    "EXCEPTIONS",
    "GENERAL_PROTECTION",
    "INVALID_OPCODE",
    "NEVER_EXCEPTIONS",
    "ContractTest",
    "GdbStub",
    "MachineCheck",
    "Nmi",
    "StandaloneVm",
    "SystemTest",
    "VcpuEvents",
    "about",
    "contract_test",
    "why_skipped",
]
