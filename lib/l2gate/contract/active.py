# SPDX-License-Identifier: MIT
"""When a level counts as active on a stopped vCPU, and by what that is known."""

from __future__ import annotations

from typing import Protocol

from l2gate.contract.outcome import VcpuState


class Marked(Protocol):
    """A guest's fingerprint (l2gate/guests/fingerprint.py)."""

    @property
    def cr3(self) -> int | None: ...
    @property
    def words(self) -> str:
        """Which registers it is in; empty for a guest without one."""

    def missing(self, state: VcpuState, /) -> str | None:
        """What of it the vCPU does not bear, or None if it bears all."""


def unproven(level: str, state: VcpuState, fingerprint: Marked) -> str | None:
    """Why it is not certain that ``level`` is on the vCPU, or None if it is.

    ``fingerprint`` is that of the guest that must be there: of L2, or of a process of L1.
    """
    if level == "L2":
        return _not_l2(state, fingerprint)
    if state.guest_mode:
        return "KVM_GET_NESTED_STATE says guest mode"
    if state.in_flight:  # what is injected beside it would cost L1 that event
        return f"an {state.in_flight} is on its way"
    return fingerprint.missing(state)


def _not_l2(state: VcpuState, fingerprint: Marked) -> str | None:
    if state.has_nested_state and not state.guest_mode:
        return "KVM_GET_NESTED_STATE does not say guest mode"
    if not state.has_nested_state and fingerprint.cr3 is None:
        return "the kernel has no KVM_GET_NESTED_STATE and this L2 has no fingerprint"
    return fingerprint.missing(state)


def shown_by(level: str, state: VcpuState, fingerprint: Marked) -> str:
    """By what it is known that ``level`` was active, where `unproven` finds nothing amiss."""
    how = []
    if state.has_nested_state:
        says = "says" if state.guest_mode else "denies"
        how.append(f"KVM_GET_NESTED_STATE ({state.nested_format}) {says} guest mode")
    if fingerprint.words and (level == "L2" or not how):
        how.append(fingerprint.words)
    return ", ".join(how)
