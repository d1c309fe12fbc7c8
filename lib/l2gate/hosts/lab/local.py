# SPDX-License-Identifier: MIT
"""`local`: this machine and its running kernel."""

from __future__ import annotations

import shutil

from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import UsageError
from l2gate.foundation.settings import Settings
from l2gate.hosts.checks import Check
from l2gate.hosts.lab.access import Lab
from l2gate.hosts.lab.kind import LabKind
from l2gate.transport.connection import Connection
from l2gate.transport.local import LocalConnection


class LocalKind(LabKind):
    """Reached by processes."""

    def connect(self, settings: Settings, deadline: Deadline) -> Connection:
        return LocalConnection("L0")

    def check_access(self, settings: Settings) -> None:
        if settings.qemu and shutil.which(settings.qemu[0]) is None:
            raise UsageError(f"qemu: there is no program {settings.qemu[0]} here",
                             "name a QEMU for x86 on this machine, or leave it out")  # fmt: skip

    def reached(self, lab: Lab) -> Check:
        return Check("host", "SSH", "not needed", True)


KIND = LocalKind(
    name="local",
    what="this machine and its running kernel",
    options=frozenset({"qemu", "modules", "wait"}),
)
