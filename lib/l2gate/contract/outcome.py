# SPDX-License-Identifier: MIT
"""What userspace hands to KVM and what became of it, as typed values: injection/ fills them in, the
judges of this room read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: A value that the helper tells by a name of its own: registers are hexadecimal words.
Told = int | str | bool | None
Registers = dict[str, Told]


@dataclass(frozen=True)
class ExceptionRequest:
    """The exception part of struct kvm_vcpu_events (include/uapi: asm/kvm.h); the rest stays as
    KVM_GET_VCPU_EVENTS returned it."""

    vector: int
    error_code: int | None = None
    injected: bool = True

    def to_words(self) -> str:
        """The helper's key=value form (lib/helper/inject.c)."""
        code = 0 if self.error_code is None else self.error_code
        return (
            f"nr={self.vector} injected={int(self.injected)} pending=0 "
            f"has_error_code={int(self.error_code is not None)} error_code={code}"
        )


@dataclass(frozen=True)
class VcpuState:
    """What a stopped vCPU shows of itself, all read at once.

    ``has_nested_state``: the kernel knows KVM_GET_NESTED_STATE (4.20 and later); then
    ``nested_format`` is `VMX` or `SVM` (enum kvm_nested_state format), and ``guest_mode`` whether
    KVM says that L2 runs on the vCPU (KVM_STATE_NESTED_GUEST_MODE). ``events`` is struct
    kvm_vcpu_events, by its members' names.
    """

    has_nested_state: bool
    nested_format: str
    guest_mode: bool
    cr3: int
    rip: int
    r15: int
    events: Registers

    @classmethod
    def from_answer(cls, raw: Mapping[str, Any]) -> VcpuState:
        """From the helper's words (lib/helper/inject.c)."""
        nested = raw["nested"]
        return cls(
            has_nested_state=bool(nested["supported"]),
            nested_format=str(nested.get("format", "")).upper(),
            guest_mode=bool(nested.get("guest_mode")),
            cr3=int(raw["sregs"]["cr3"], 16),
            rip=int(raw["regs"]["rip"], 16),
            r15=int(raw["regs"]["r15"], 16),
            events=dict(raw["events"]),
        )

    @property
    def in_flight(self) -> str | None:
        """The event that KVM is about to deliver, or None.

        A vCPU can take one event at an entry. KVM delivers the exception, and forgets the
        interrupt at the next exit (svm.c, vmx.c: *_complete_interrupts): in service at the local
        APIC and never ended, it would hold back every later one.
        """
        kinds = ("exception", "interrupt", "nmi")
        return next((kind for kind in kinds if self.events[f"{kind}.injected"]), None)


@dataclass(frozen=True)
class InjectionOutcome:
    """One KVM_SET_VCPU_EVENTS, or the same one repeated, with the state around it."""

    request: ExceptionRequest
    repeat: int
    #: (errno name or None for success, how often), in the order first seen.
    outcomes: tuple[tuple[str | None, int], ...]
    first_different: int | None
    before: VcpuState
    events_after: Registers
    changed: tuple[str, ...]
    undone: bool

    @property
    def errno(self) -> str | None:
        """The first try's errno; None means that KVM accepted."""
        return self.outcomes[0][0]

    @property
    def accepted(self) -> bool:
        return self.errno is None

    @property
    def steady(self) -> bool:
        """Whether every try ended as the first one did."""
        return len(self.outcomes) == 1

    @classmethod
    def from_answer(cls, request: ExceptionRequest, answer: Mapping[str, Any]) -> InjectionOutcome:
        """From the helper's words (lib/helper/inject.c)."""
        return cls(
            request=request,
            repeat=answer["repeat"],
            outcomes=tuple((o["name"], o["count"]) for o in answer["outcomes"]),
            first_different=answer["first_different"],
            before=VcpuState.from_answer(answer["before"]),
            events_after=dict(answer["events_after"]),
            changed=tuple(answer["changed"]),
            undone=answer["undone"],
        )


@dataclass(frozen=True)
class Liveness:
    """L1 and L2 after the vCPU ran again; ``hits`` are exceptions that L2 saw and nobody sent."""

    l1: bool
    l2: bool
    heartbeat: tuple[int, int]
    hits: tuple[Registers, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class QemuOutcome:
    """What became of an exception that QEMU was made to inject.

    ``status`` is what QEMU says of its VM, ``l1`` by what it shows that L1 had the exception
    (empty: it had not), ``l2_alive`` whether L2 was seen to go on, ``hits`` what L2's own handlers
    had.
    ``stopped_at`` is the vCPU where QEMU has stopped the VM, ``words`` what QEMU has said then.
    """

    status: str
    l1: str = ""
    l2_alive: bool = False
    hits: tuple[Registers, ...] = ()
    stopped_at: VcpuState | None = None
    words: str = ""

    def hit(self, vector: int) -> bool:
        """Whether L2 had it as its own."""
        return any(hit["vector"] == vector for hit in self.hits)

    def had_by_somebody(self, vector: int) -> bool:
        """By L1, by L2, or by QEMU, which was refused and has stopped the VM or stands still."""
        return bool(self.l1 or self.hit(vector)) or self.status != "running" or not self.l2_alive

    def who(self, vector: int) -> str:
        """`L1`, `L2` or `nobody`."""
        return "L1" if self.l1 else "L2" if self.hit(vector) else "nobody"
