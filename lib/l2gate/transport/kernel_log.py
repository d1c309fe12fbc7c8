# SPDX-License-Identifier: MIT
"""What a kernel says when it is not well: one list for consoles and for logs, with its sources.

A pattern stands at the beginning of a message, so that words in the middle of one, `EDAC DEBUG: `
or a name, are none. Some have something in front in real logs (`rcu: `, `watchdog: `), which is
part of the pattern.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """How a kernel is that says so."""

    #: It is broken, or does not go on.
    CRASH = "crash"
    #: It has found a fault of its own, and goes on.
    COMPLAINT = "complaint"
    #: It did not get on in time, which a slow or busy machine may be the reason of.
    STALL = "stall"


@dataclass(frozen=True)
class Sign:
    """A message of a kernel; ``source`` is where it is printed."""

    severity: Severity
    pattern: str
    source: str


_CRASH, _COMPLAINT, _STALL = Severity.CRASH, Severity.COMPLAINT, Severity.STALL

SIGNS = (
    Sign(_CRASH, r"Kernel panic - not syncing", "kernel/panic.c"),
    Sign(_CRASH, r"Oops(: |\[)", "arch/x86/kernel/dumpstack.c"),
    Sign(_CRASH, r"[Kk]ernel BUG at ", "arch/x86/kernel/traps.c, lib/bug.c"),
    Sign(_CRASH, r"BUG: unable to handle ", "arch/x86/mm/fault.c"),
    Sign(_CRASH, r"BUG: kernel NULL pointer dereference", "arch/x86/mm/fault.c"),
    Sign(_CRASH, r"BUG: stack guard page was hit", "arch/x86/kernel/traps.c"),
    Sign(_CRASH, r"general protection fault.*\[#", "arch/x86/kernel/traps.c, before 5.5"),
    Sign(_CRASH, r"(invalid opcode|divide error|stack segment|double fault): \w+ \[#", "traps.c"),
    Sign(_CRASH, r"PANIC: (double|early) ", "arch/x86/kernel/traps.c, arch/x86/mm/extable.c"),
    Sign(_CRASH, r"Fixing recursive fault but reboot is needed", "kernel/exit.c"),
    Sign(_COMPLAINT, r"WARNING: (CPU: \d|\S+:\d+ at )", "kernel/panic.c: __warn"),
    Sign(_COMPLAINT, r"WARNING: [\w -]*(lock|RCU|irq)", "kernel/locking/lockdep.c"),
    Sign(_COMPLAINT, r"INFO: possible (circular|recursive|irq)", "lockdep.c, before 4.12"),
    Sign(_COMPLAINT, r"INFO: (suspicious RCU usage|inconsistent lock state)", "as above"),
    Sign(_COMPLAINT, r"INFO: trying to register non-static key", "kernel/locking/lockdep.c"),
    Sign(_COMPLAINT, r"INFO: task .+:\d+ blocked ", "kernel/hung_task.c"),
    Sign(_COMPLAINT, r"BUG(: (?!soft lockup|workqueue lockup)| \S+ .*\): )", "mm/kasan, slub.c"),
    Sign(_COMPLAINT, r"UBSAN: ", "lib/ubsan.c"),
    Sign(_COMPLAINT, r"(kcsan|kfence|KFENCE): ", "kernel/kcsan/report.c, mm/kfence/report.c"),
    Sign(_COMPLAINT, r"list_(add|del) corruption", "lib/list_debug.c"),
    Sign(_COMPLAINT, r"list_add double add", "lib/list_debug.c"),
    Sign(_COMPLAINT, r"refcount_t: ", "lib/refcount.c"),
    Sign(_COMPLAINT, r"ODEBUG: ", "lib/debugobjects.c"),
    Sign(_COMPLAINT, r"DEBUG_LOCKS_WARN_ON", "include/linux/debug_locks.h"),
    Sign(_COMPLAINT, r"unchecked MSR access error: ", "arch/x86/mm/extable.c"),
    Sign(_COMPLAINT, r"(kmemleak: \d+ new suspected|\S*: ?memory leak\b)", "mm/kmemleak.c"),
    Sign(_COMPLAINT, r"unreferenced object 0x", "mm/kmemleak.c"),
    Sign(
        _COMPLAINT,
        r"((kvm|kvm_intel|VMX): )?(unexpected )?(vmread|vmwrite|vmclear|vmptrld|invvpid|invept)\b"
        r".*\b(failed|error)",
        "arch/x86/kvm/vmx/vmx.c: vmx_insn_failed, vmwrite_error",
    ),
    Sign(_COMPLAINT, r"((NMI )?watchdog: )?Watchdog detected hard LOCKUP", "watchdog_hld.c"),
    Sign(_STALL, r"(rcu: )?(INFO: )?\S+ (self-)?detected (expedited )?stalls?\b", "kernel/rcu"),
    Sign(_STALL, r"(watchdog: )?BUG: (soft|workqueue) lockup", "kernel/watchdog.c, workqueue.c"),
)  # fmt: skip

#: What stands before a message: its priority, its time, and who printed it (CONFIG_PRINTK_CALLER).
#: Where there is a time, a program may have left the line unfinished before it.
_BEGINS = r"(?:^(?:<\d+>)?|\[ *\d+\.\d+\] ?)(?:\[ *[TC]\d+\] ?)?"
#: All signs at once, each a group of its own: a console is read whole at every look at it.
_ANY = re.compile(
    _BEGINS + "(?:" + "|".join(f"(?P<s{n}>{sign.pattern})" for n, sign in enumerate(SIGNS)) + ")"
)

#: Messages of a sign that say nothing of KVM, each with its reason.
HARMLESS = (
    # An emulated CPU's features do not fit together as a real one's do.
    re.compile(r"WARNING: .*arch/x86/kernel/(cpu|fpu)/"),
    # A KVM that is built in has read the TSC's rate before the kernel has refined it.
    re.compile(r"WARNING: .* kvm_set_tsc_khz\+"),
)


def sign_of(line: str) -> Sign | None:
    """Of what this line of a kernel's log is a sign; None for any other, and for a harmless one."""
    found = _ANY.search(line)
    if found is None or any(pattern.search(line) for pattern in HARMLESS):
        return None
    return next(sign for n, sign in enumerate(SIGNS) if found[f"s{n}"] is not None)
