# SPDX-License-Identifier: MIT
"""A kernel's log: what tells of a fault of its own is recognized, and nothing else is."""

from __future__ import annotations

import pytest
from l2gate.transport.kernel_log import Severity, sign_of

CRASHES = [
    "Kernel panic - not syncing: Fatal exception",
    "Oops: 0002 [#1] SMP NOPTI",
    "Oops: general protection fault, probably for non-canonical address 0x1: 0000 [#1] SMP",
    "BUG: unable to handle page fault for address: ffffc90000000000",
    "BUG: unable to handle kernel NULL pointer dereference at 0000000000000108",
    "general protection fault: 0000 [#1] SMP",
    "invalid opcode: 0000 [#1] SMP",
    "kernel BUG at arch/x86/kvm/x86.c:1234!",
]
COMPLAINTS = [
    "WARNING: CPU: 1 PID: 7 at arch/x86/kvm/svm/nested.c:1 f+0x1/0x2 [kvm_amd]",
    "WARNING: arch/x86/kvm/x86.c:9 at f+0x1/0x2 [kvm], CPU#0: q/3",
    "WARNING: possible circular locking dependency detected",
    "WARNING: suspicious RCU usage",
    "WARNING: bad unlock balance detected!",
    "INFO: possible recursive locking detected",
    "INFO: task CPU 0/KVM:9 blocked for more than 241 seconds.",
    "INFO: task q:9 blocked in I/O wait for more than 120 seconds.",
    "BUG: KASAN: use-after-free in nested_vmx_vmexit+0x1/0x2 [kvm_intel]",
    "BUG: KCSAN: data-race in f / g",
    "BUG: sleeping function called from invalid context at kernel/locking/mutex.c:1",
    "BUG: scheduling while atomic: q/9/0x00000002",
    "BUG kmalloc-64 (Not tainted): Redzone overwritten",
    "UBSAN: shift-out-of-bounds in arch/x86/kvm/svm/svm.c:1:2",
    "watchdog: Watchdog detected hard LOCKUP on cpu 0",
    "NMI watchdog: Watchdog detected hard LOCKUP on cpu 0",
    "list_add corruption. prev->next should be next (1), but was 2. (prev=3).",
    "list_del corruption, 1->next is LIST_POISON1 (2)",
    "refcount_t: addition on 0; use-after-free.",
    "unchecked MSR access error: RDMSR from 0x140 at rIP: 0xffffffff (f+0x1/0x2 [kvm])",
    "kvm_intel: vmread failed: field=681e",
    "kvm_intel: vmwrite failed: field=681e val=1 err=12",
    "vmwrite error: reg 6c16 value 0 (err 12)",
    "kvm: vmptrld ffff88 / 1000 failed",
    "kvm_intel: invept failed: ext=0x1 eptp=1 gpa=0x2",
    "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
]
STALLS = [
    "rcu: INFO: rcu_preempt self-detected stall on CPU",
    "rcu: INFO: rcu_sched detected stalls on CPUs/tasks:",
    "INFO: rcu_sched self-detected stall on CPU",
    "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-... } 6 jiffies",
    "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [q:9]",
    "BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 31s!",
]
KINDS = {Severity.CRASH: CRASHES, Severity.COMPLAINT: COMPLAINTS, Severity.STALL: STALLS}
EACH = [(kind, message) for kind, messages in KINDS.items() for message in messages]


@pytest.mark.parametrize("before", ["", "[    7.000001] ", "<4>[    7.000001] ", "[ 7.1][  T99] ",
                                    "<4>", "login: [    7.000001] "])  # fmt: skip
@pytest.mark.parametrize(("severity", "message"), EACH)
def test_what_a_kernel_says_of_itself_is_recognized(
    severity: Severity, message: str, before: str
) -> None:
    found = sign_of(before + message)
    assert found is not None and found.severity is severity and found.source


@pytest.mark.parametrize(
    "line",
    [
        "EDAC DEBUG: poll: MC0",
        "[    1.0] EDAC DEBUG: BUG: none",
        "[    1.0] systemd[1]: unit said WARNING: low on space",
        "[    1.0] Modules linked in: kvm_intel",
        "[    1.0] CPU: 0 PID: 9 Comm: q Tainted: G W SMP KASAN NOPTI",
        "[    1.0] Spectre V2 : WARNING: Unprivileged eBPF is enabled",
        "[    1.0] kvm_intel: set kvm_intel.dump_invalid_vmcs=1 to dump internal KVM state.",
        "[    1.0] kvm [85]: vcpu0, guest rIP: 0xffffffff8109a0b7 unhandled rdmsr: 0x64e",
        "[    1.0] rcu: Hierarchical RCU implementation.",
        "[    1.0] NMI watchdog: Enabled. Permanently consumes one hw-PMU counter.",
        "[    1.0] kmemleak: Kernel memory leak detector initialized",
        "WARNING: CPU: 0 PID: 0 at arch/x86/kernel/fpu/xstate.c:878 f+0x1/0x2",
        "WARNING: CPU: 0 PID: 91 at arch/x86/kvm/x86.c:1289 kvm_set_tsc_khz+0x1ec/0x200",
    ],
)
def test_what_is_no_fault_is_none(line: str) -> None:
    assert sign_of(line) is None
