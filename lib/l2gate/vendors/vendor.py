# SPDX-License-Identifier: MIT
"""What l2gate must know of a vendor's virtualization, and how what L1 is told at a VM-exit is read.

An exit is the helper's record of it (lib/helper/cases.c): texts of hexadecimal numbers by the names
of the VMCS's or VMCB's fields.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

NMI = 2
#: In interruption information, IDT-vectoring information, EXITINTINFO: it is valid (SDM volume 3,
#: table 25-16; APM volume 2, 15.7.2).
VALID = 1 << 31

Exit = Mapping[str, Any]


class Vendor(ABC):
    """VMX or SVM."""

    #: As people call it: VMX.
    name: ClassVar[str]
    #: The flag in /proc/cpuinfo, the word in a case table and in the helper's answers: vmx.
    format: ClassVar[str]
    #: KVM's module, the option of the kernel's configuration that builds it, and the parameters
    #: that levels of l2gate's own load it with.
    module: ClassVar[str]
    config: ClassVar[str]
    module_parameters: ClassVar[tuple[str, ...]]
    #: The module's parameter that turns nested paging on.
    paging: ClassVar[str]
    #: What may be true of such a CPU, as words of a table's column `where`.
    properties: ClassVar[tuple[str, ...]]
    #: What tells whether the CPU checks error codes at VM entry; empty where none does.
    code_check_told_by: ClassVar[str] = ""
    #: The bits of an error code that reach the receiver.
    code_mask: ClassVar[int]
    #: Whether a VM-exit says that there is no error code.
    tells_missing_code: ClassVar[bool]
    #: The step of contract/eras.py since which KVM asks L1 about every exception that it queued
    #: itself, and whether such exceptions may have gone past L1 before.
    asks_l1_since: ClassVar[str]
    passed_l1_by: ClassVar[bool]
    #: The step since which L1 outlives that QEMU writes its vCPU's registers back, and what was
    #: seen before it; empty: always.
    survives_qemu_since: ClassVar[str] = ""
    without_that: ClassVar[str] = ""
    #: The step since which KVM offers QEMU no MSR that it then refuses; empty: always.
    honest_msrs_since: ClassVar[str] = ""
    #: Why a case may come to something else on this vendor's CPUs, by (kind of case, vector):
    #: `l2gate compare` takes such a difference for known.
    differences: ClassVar[Mapping[tuple[str, int], str]] = {}

    @property
    def module_file(self) -> str:
        """kvm-intel.ko."""
        return f"{self.module.replace('_', '-')}.ko"

    def wheres(self, *, soft: bool, coded: bool) -> frozenset[str]:
        """The words of a table's column `where` that such a CPU answers to. ``soft``: it has what
        KVM needs to deliver #BP and #OF anywhere, if that is a question here; ``coded``: its VM
        entry refuses an error code that does not fit its vector."""
        return frozenset({"any", self.format, *self._true_of(soft=soft, coded=coded)})

    @abstractmethod
    def _true_of(self, *, soft: bool, coded: bool) -> frozenset[str]:
        """Which of `properties` are true."""

    @abstractmethod
    def injectable(self, *, tcg: bool, cet: bool) -> frozenset[int]:
        """The vectors that the CPU takes as an exception at a VM entry. ``tcg``: QEMU emulates it,
        ``cet``: it has control-flow enforcement."""

    @abstractmethod
    def exit_kind(self, exit_: Exit) -> str:
        """`exception`, `triple-fault`, or the reason's number."""

    @abstractmethod
    def exit_code(self, exit_: Exit) -> str:
        """The error code that L1 is told; `none` where it is told that there is none."""

    @abstractmethod
    def exit_qualification(self, exit_: Exit) -> str:
        """What L1 is told beside it: of a #PF, where."""

    @abstractmethod
    def exit_event(self, exit_: Exit) -> str:
        """The number by which L1 is told what was intercepted."""

    @abstractmethod
    def exit_vectoring(self, exit_: Exit) -> int:
        """What was on its way to L2 at the exit. Vector, type, and whether there is an error code
        lie in the same bits of both vendors' field (SDM volume 3, table 25-17; APM volume 2,
        15.7.2)."""

    @abstractmethod
    def not_this_exception(self, vector: int, exit_: Exit) -> str | None:
        """What the exit says instead of naming that exception or NMI; None if it names it."""


def number(exit_: Exit, field: str) -> int:
    """A field's value."""
    return int(exit_[field], 16)
