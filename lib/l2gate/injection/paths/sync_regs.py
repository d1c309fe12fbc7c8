# SPDX-License-Identifier: MIT
"""Path `sync-regs`: userspace writes struct kvm_vcpu_events into the mapped struct kvm_run, and
KVM_RUN takes it (KVM_SYNC_X86_EVENTS, since 4.17).

Conducted on the helper's own VM, by tables (lib/helper/inject.c): QEMU does not use it. KVM_RUN
calls the function that KVM_SET_VCPU_EVENTS calls (x86.c, sync_regs): the commit's check covers it.
"""

from __future__ import annotations

from l2gate.contract.paths import HELPER, QEMU, InjectionPath, Way

PATH = InjectionPath(
    "sync-regs",
    "KVM_RUN's errno, and who got the exception in that very run",
    (Way((HELPER, QEMU), "KVM_RUN with KVM_SYNC_X86_EVENTS", True),),
    own_struct=True,
)
