# SPDX-License-Identifier: MIT
"""What is recorded of a case: what was asked, what was seen, what was said of it, and the proof.

There are two kinds: on the vCPU of L0's QEMU, and of a table, on a VM of the helper's own.
"""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from l2gate.contract.judge import Verdict
from l2gate.contract.outcome import Registers
from l2gate.contract.paths import HELPER, QEMU


class Afterwards(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who was alive when the vCPU had run again. ``hits`` is what L2's handlers had, in the
    helper's words; ``l2_heartbeat`` L2's count before and after, where it was asked for."""

    l1: bool
    l2: bool
    hits: list[Registers] = []
    l2_heartbeat: tuple[int, int] | None = None


class Tries(Struct, frozen=True):
    """How often an errno (null: accepted) was the answer."""

    errno: str | None
    count: int


class Proof(Struct, frozen=True, kw_only=True):
    """Which level was active, by what that is known, and what the ioctl has changed.

    ``guest_mode`` is what KVM says (false where it has no word for it), ``how`` by what it is
    known, ``cr3`` and ``rip`` are hexadecimal words.
    """

    guest_mode: bool
    how: str
    cr3: str
    rip: str
    unchanged: bool
    changed: list[str]
    liveness: Afterwards


class VcpuProof(Proof, frozen=True, kw_only=True, omit_defaults=True):
    """``fingerprint`` is R15. ``events_before`` and ``events_after`` are struct kvm_vcpu_events,
    ``outcomes`` what each try came to (where QEMU injects: none of its own)."""

    fingerprint: str = ""
    events_before: Registers | None = None
    events_after: Registers | None = None
    outcomes: list[Tries] = []


class TableProof(Proof, frozen=True, kw_only=True, omit_defaults=True):
    """``returned`` is what KVM_GET_VCPU_EVENTS said right afterwards, ``exit`` L1's record of its
    VM-exit, ``earlier`` of the one before; in the helper's words (lib/helper/cases.c)."""

    returned: Registers | None = None
    earlier: Registers | None = None
    exit: Registers | None = None


class _Case(Struct, frozen=True, kw_only=True):
    """``active_level`` is L1 or L2, an ``error_code`` of null is none, an errno of null is
    acceptance. ``covered``: the commit's check is in the way of this ``path``; ``own_struct``:
    userspace writes struct kvm_vcpu_events itself by it. ``who`` had the exception (empty: not
    looked for). ``deviations`` are known ones that were seen, ``finding`` is what neither is known
    nor was promised by the kernel's era; empty if nothing. ``seconds`` of wall time."""

    test: str
    path: str
    covered: bool
    own_struct: bool
    vector: int
    error_code: int | None
    injected: bool
    repeat: int = 1
    active_level: str
    expected_errno: str | None
    seen_errno: str | None
    who: str = ""
    verdict: Verdict
    reason: str
    seconds: float
    deviations: list[str] = []
    finding: str = ""


class VcpuCase(_Case, frozen=True, kw_only=True, tag_field="kind", tag="vcpu"):
    """One on QEMU's vCPU. ``qemu`` is the state of QEMU's VM afterwards and ``qemu_says`` what QEMU
    had to say, where QEMU itself was made to inject; null: it went past QEMU."""

    proof: VcpuProof
    qemu: str | None = None
    qemu_says: str = ""

    @property
    def vm(self) -> str:
        return QEMU

    @property
    def by_qemu(self) -> bool:
        """Whether QEMU itself was made to inject."""
        return self.qemu is not None


class TableCase(_Case, frozen=True, kw_only=True, tag_field="kind", tag="table"):
    """One of a ``table`` (l2gate/contract/table.py), from its ``line``, by the name ``case``.
    ``asked`` are the words for the helper, ``sent`` those of them that went to KVM, ``expected`` is
    by column. ``proof`` is null where the case could not be conducted."""

    table: str
    line: int
    case: str
    asked: str
    sent: str
    expected: dict[str, str]
    proof: TableProof | None

    @property
    def vm(self) -> str:
        return HELPER

    @property
    def by_qemu(self) -> bool:
        return False

    @property
    def row(self) -> str:
        """`errnos.txt:40 name`."""
        return f"{self.table}.txt:{self.line} {self.case}"


CaseResult: TypeAlias = VcpuCase | TableCase
