# SPDX-License-Identifier: MIT
"""What is to be said of a way of injecting: a value, of which l2gate/injection/paths has one for
each."""

from __future__ import annotations

from dataclasses import dataclass

ALL = "all"
#: The commit whose check covers some: it checks in kvm_vcpu_ioctl_x86_set_vcpu_events alone.
COMMIT = "28d06353"

#: On whose vCPU a case is conducted.
HELPER, QEMU = "the helper's VM", "QEMU's VM"


@dataclass(frozen=True)
class Way:
    """A path as it is on ``vms``: what makes the exception there, and whether the commit's check
    covers that."""

    vms: tuple[str, ...]
    how: str
    covered: bool


@dataclass(frozen=True)
class InjectionPath:
    """``name`` as `--path` has it, ``observes`` by what it is known what became of the exception.
    ``own_struct``: userspace writes struct kvm_vcpu_events itself, so it can leave `injected` out;
    that this is accepted is then a control."""

    name: str
    observes: str
    ways: tuple[Way, ...]
    own_struct: bool = False

    def covered_on(self, vm: str) -> bool:
        """Whether the commit's check is in its way on that VM."""
        return any(way.covered for way in self.ways if vm in way.vms)
