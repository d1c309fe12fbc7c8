# SPDX-License-Identifier: MIT
"""The ways by which userspace makes an exception: a file for each, whose name is the path's, and a
line for each here.

A file has its PATH (what it is, what the commit's check covers, what is observed). One that injects
on QEMU's vCPU has also the session for the tests that do so by it.
"""

from __future__ import annotations

from l2gate.contract.paths import InjectionPath
from l2gate.foundation.errors import CaseTableError
from l2gate.injection.paths import gdbstub, guest_debug, mce, nmi, sync_regs, vcpu_events

PATHS: tuple[InjectionPath, ...] = (
    vcpu_events.PATH,
    sync_regs.PATH,
    guest_debug.PATH,
    mce.PATH,
    gdbstub.PATH,
    nmi.PATH,
)

BY_NAME = {path.name: path for path in PATHS}


def find(name: str) -> InjectionPath:
    """Raises CaseTableError for a path that has no file here."""
    if name not in BY_NAME:
        known = ", ".join(BY_NAME)
        raise CaseTableError(f"no file of l2gate/injection/paths is path {name}", f"known: {known}")
    return BY_NAME[name]
