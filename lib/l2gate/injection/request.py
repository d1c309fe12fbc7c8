# SPDX-License-Identifier: MIT
"""What userspace hands to KVM, and what it reads back, as typed values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


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
    """What the helper read from a stopped vCPU, in one go."""

    raw: dict[str, Any]

    @property
    def has_nested_state(self) -> bool:
        """Whether the kernel knows KVM_GET_NESTED_STATE (4.20 and later)."""
        return bool(self.raw["nested"]["supported"])

    @property
    def nested_format(self) -> str:
        """`VMX` or `SVM`: the format of the nested state (enum kvm_nested_state format)."""
        return str(self.raw["nested"].get("format", "")).upper()

    @property
    def guest_mode(self) -> bool:
        """Whether KVM says that L2 runs on the vCPU (KVM_STATE_NESTED_GUEST_MODE)."""
        return bool(self.raw["nested"].get("guest_mode"))

    @property
    def cr3(self) -> int:
        return int(self.raw["sregs"]["cr3"], 16)

    @property
    def rip(self) -> int:
        return int(self.raw["regs"]["rip"], 16)

    @property
    def r15(self) -> int:
        return int(self.raw["regs"]["r15"], 16)

    @property
    def in_flight(self) -> str | None:
        """The event that KVM is about to deliver, or None.

        A vCPU can take one event at an entry. KVM delivers the exception, and forgets the
        interrupt at the next exit (svm.c, vmx.c: *_complete_interrupts): in service at the local
        APIC and never ended, it would hold back every later one.
        """
        kinds = ("exception", "interrupt", "nmi")
        return next((kind for kind in kinds if self.events[f"{kind}.injected"]), None)

    @property
    def events(self) -> dict[str, Any]:
        events: dict[str, Any] = self.raw["events"]
        return events


@dataclass(frozen=True)
class InjectionOutcome:
    """One KVM_SET_VCPU_EVENTS, or the same one repeated, with the state around it."""

    request: ExceptionRequest
    repeat: int
    #: (errno name or None for success, how often), in the order first seen.
    outcomes: tuple[tuple[str | None, int], ...]
    first_different: int | None
    before: VcpuState
    events_after: dict[str, Any]
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
    def from_answer(cls, request: ExceptionRequest, answer: dict[str, Any]) -> InjectionOutcome:
        return cls(
            request=request,
            repeat=answer["repeat"],
            outcomes=tuple((o["name"], o["count"]) for o in answer["outcomes"]),
            first_different=answer["first_different"],
            before=VcpuState(answer["before"]),
            events_after=answer["events_after"],
            changed=tuple(answer["changed"]),
            undone=answer["undone"],
        )
