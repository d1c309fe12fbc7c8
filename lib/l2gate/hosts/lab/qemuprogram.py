# SPDX-License-Identifier: MIT
"""The QEMU of a lab host: found by name or by the setting `qemu`, and known by its version."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import MissingPrerequisite
from l2gate.transport.connection import Connection

#: Where a QEMU for x86 is, if nobody says: RHEL keeps it out of the PATH.
_NAMES = ("qemu-system-x86_64", "/usr/libexec/qemu-kvm", "qemu-kvm", "kvm")
#: The machine that L1 is; `acpi=` came with 5.2.
_MACHINE = "microvm"
OLDEST = (5, 2)


@dataclass(frozen=True)
class Qemu:
    """A QEMU program: its first words as they are run, and its version."""

    words: tuple[str, ...]
    version: str

    @property
    def program(self) -> str:
        return shlex.join(self.words)

    @property
    def number(self) -> tuple[int, int]:
        found = re.search(r"version (\d+)\.(\d+)", self.version)
        return (int(found.group(1)), int(found.group(2))) if found else (0, 0)

    @property
    def when_refused(self) -> str:
        """What it does when KVM refuses its own KVM_SET_VCPU_EVENTS (seen with 7.2 and 10.0)."""
        if self.number <= (7, 2):
            return "goes on in silence, and the event is lost"
        if self.number >= (10, 0):
            return "says so and stops the VM (internal-error)"
        return "not known for this version: 7.2 goes on in silence, 10.0 stops the VM"


def find(connection: Connection, asked: Sequence[str], deadline: Deadline) -> Qemu:
    """The QEMU that ``asked`` names (a program, with arguments if a lab wants some), else the
    first of the usual names. Raises MissingPrerequisite."""
    last = ""
    for words in [asked] if asked else [[name] for name in _NAMES]:
        done = connection.run([words[0], "--version"], deadline, check=False)
        if done.status != 0:
            last = (done.stderr.strip() or f"ended with {done.status}").splitlines()[-1]
            continue
        qemu = Qemu(tuple(words), done.stdout.strip().splitlines()[0])
        return _fit(connection, qemu, deadline)
    names = shlex.join(asked) or ", ".join(_NAMES)
    raise MissingPrerequisite(f"there is no {names} ({last})", "give its path with --qemu")


def _fit(connection: Connection, qemu: Qemu, deadline: Deadline) -> Qemu:
    if "QEMU" not in qemu.version:
        raise MissingPrerequisite(
            f"{qemu.program} is not QEMU: {qemu.version}", "give another program with --qemu"
        )
    if qemu.number < OLDEST:
        raise MissingPrerequisite(
            f"{qemu.version} is too old", f"{OLDEST[0]}.{OLDEST[1]} is the oldest that works"
        )
    machines = connection.run([qemu.words[0], "-machine", "help"], deadline, check=False).stdout
    if not re.search(rf"^{_MACHINE}\s", machines, re.MULTILINE):
        raise MissingPrerequisite(
            f"{qemu.program} has no machine `{_MACHINE}`",
            "give another QEMU with --qemu: Debian's and upstream's have it",
        )
    return qemu
