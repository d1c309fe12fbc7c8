# SPDX-License-Identifier: MIT
"""Path `guest-debug`: KVM_SET_GUEST_DEBUG with KVM_GUESTDBG_INJECT_DB or KVM_GUESTDBG_INJECT_BP.

Conducted on the helper's own VM, by tables (lib/helper/inject.c). The ioctl queues its #DB or #BP
by itself (x86.c, kvm_arch_vcpu_ioctl_set_guest_debug): the commit's check never covered it.
"""

from __future__ import annotations

from l2gate.contract.paths import HELPER, QEMU, InjectionPath, Way

PATH = InjectionPath(
    "guest-debug",
    "errno (EBUSY while another exception is queued), and who got the #DB or #BP",
    (Way((HELPER, QEMU), "KVM_SET_GUEST_DEBUG, INJECT_DB and INJECT_BP", False),),
)
