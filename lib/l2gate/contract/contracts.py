# SPDX-License-Identifier: MIT
"""Which promise a kernel has made: decided by its capabilities, never by its version."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

REFUSE_COMMIT = '28d06353 ("kvm: nVMX: Disallow userspace-injected exceptions in guest mode")'
PAYLOAD_COMMIT = (
    '59073aaf6de0 ("kvm: x86: Add exception payload fields to kvm_vcpu_events"), '
    'c4f55198c7c2 ("kvm: x86: Introduce KVM_CAP_EXCEPTION_PAYLOAD")'
)


@dataclass(frozen=True)
class Contract:
    """``refuse``: userspace injection is refused while L2 is active. ``payload``: it is allowed
    and must keep the payload rules."""

    name: str
    why: str
    commit: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def decide(expect: str, payload_capability: int) -> Contract:
    """The contract of a kernel.

    ``payload_capability`` is what KVM_CHECK_EXTENSION(KVM_CAP_EXCEPTION_PAYLOAD) returned;
    ``expect`` is the setting: auto, refuse or payload.
    """
    has = "present" if payload_capability > 0 else "absent"
    seen = f"KVM_CAP_EXCEPTION_PAYLOAD is {has}"
    name = expect if expect != "auto" else ("payload" if payload_capability > 0 else "refuse")
    why = seen if expect == "auto" else f"asked for by expect={expect} ({seen})"
    return Contract(name, why, REFUSE_COMMIT if name == "refuse" else PAYLOAD_COMMIT)
