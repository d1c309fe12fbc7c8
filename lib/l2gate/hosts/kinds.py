"""The kinds of hosts that `--host` can name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from l2gate.errors import UsageError
from l2gate.hosts import bochs, tcg
from l2gate.hosts.emulated import EmulatedHost
from l2gate.settings import Settings

AUTO = "auto"


@dataclass(frozen=True)
class Kind:
    """A kind of host.

    ``emulator`` names what emulates it, with its version, or raises MissingPrerequisite with
    cause and mend where it cannot be used.
    """

    name: str
    what: str
    emulator: Callable[[Settings], str]
    host: type[EmulatedHost]


KINDS = (
    Kind(
        "emulated-intel",
        "Bochs emulates an Intel machine with VMX: needs no virtualization hardware",
        bochs.emulator,
        bochs.BochsHost,
    ),
    Kind(
        "emulated-amd",
        "QEMU (TCG) emulates an AMD machine with SVM: needs no virtualization hardware, faster",
        tcg.emulator,
        tcg.TcgHost,
    ),
)


def find(name: str) -> Kind:
    """The kind that ``name`` means; `auto` is emulated-intel. Raises UsageError."""
    for kind in KINDS:
        if name == kind.name or (name == AUTO and kind is KINDS[0]):
            return kind
    names = ", ".join([AUTO, *(kind.name for kind in KINDS)])
    raise UsageError(f"host = {name!r} is not known", f"use one of: {names}")
