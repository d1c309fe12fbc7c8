# SPDX-License-Identifier: MIT
"""`l2gate completion`, and what a shell is told can come next."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from argcomplete.shell_integration import shellcode

from l2gate.foundation.settings import AUTO
from l2gate.hosts import kinds
from l2gate.hosts.kind import Can
from l2gate.hosts.persistent import persistent_hosts
from l2gate.kernels import kernel
from l2gate.plugins.known import known_tests


def completion(arguments: argparse.Namespace) -> int:
    """Print the code that a shell's start-up file evaluates."""
    print(shellcode(["l2gate"], shell=arguments.shell))
    return 0


def candidates(what: str) -> Sequence[str]:
    """The words that can stand for ``what``: hosts, booting, persistent, kernels or tests."""
    if what == "hosts":
        return [AUTO, *(word for kind in kinds.KINDS for word in kind.candidates())]
    if what == "booting":
        return kinds.names(Can.BOOT_KERNELS)
    if what == "persistent":
        return [host.name for host in persistent_hosts()]
    if what == "kernels":
        return [spec for spec, _ in kernel.known()]
    return [name for test in known_tests() for name in (test.partition(".")[0], test)]
