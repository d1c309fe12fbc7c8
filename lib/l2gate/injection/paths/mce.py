# SPDX-License-Identifier: MIT
"""Path `mce`: a machine check.

On the helper's own VM, by KVM_X86_SET_MCE (lib/helper/inject.c), which queues the #MC by itself
(x86.c, kvm_vcpu_ioctl_x86_set_mce): the commit's check never covered that. On QEMU's VM, by HMP
`mce`: QEMU writes the bank and brings the #MC by KVM_SET_VCPU_EVENTS, which the check covers.
"""

from __future__ import annotations

from dataclasses import replace

from l2gate.contract.outcome import QemuOutcome
from l2gate.contract.paths import HELPER, QEMU, InjectionPath, Way
from l2gate.contract.vectors import MACHINE_CHECK
from l2gate.foundation.errors import BenchError
from l2gate.guests.restart import Restart
from l2gate.injection.byqemu import BEATS, ByQemu, QemuInjected

PATH = InjectionPath(
    "mce",
    "L1's panic or its count of MCEs, L2's own #MC handler, what QEMU says and does",
    (
        Way((HELPER,), "KVM_X86_SET_MCE", False),
        Way((QEMU,), "QMP's mce: QEMU calls KVM_SET_VCPU_EVENTS", True),
    ),
)

#: CPU 0, bank 9, an uncorrected memory error that software may take its time for: VAL, UC, EN,
#: MISCV, ADDRV, S; MCG_STATUS: MCIP, RIPV, LMCE_S (SDM volume 3, 16.9.3.1).
_MCE = "mce 0 9 0xbd000000000000c0 0xd 0x62000000 0x8c"
#: KVM_SET_VCPU_EVENTS brings QEMU's machine check or, in 1 of some 30 times on emulated-amd, does
#: not (seen by ftrace in L0: nothing is pending at the KVM_RUN after it). So many are made, before
#: it counts that nobody had one.
_MOST_MCES = 3


class MachineCheck(ByQemu):
    """QEMU makes a machine check."""

    described, path, vector = PATH, PATH.name, MACHINE_CHECK

    def _inject(self, level: str) -> QemuInjected:
        for _ in range(_MOST_MCES):
            self._reset: Restart = self._restart()
            injected = self._once(level)
            if injected.outcome.had_by_somebody(MACHINE_CHECK):
                break
            self.note("QEMU's machine check was lost: L1 starts anew, and another one is made")
            self._reset.now()  # while it is in progress for QEMU, the next would be L1's reset
            self._begin_anew()
        return injected

    def _once(self, level: str) -> QemuInjected:
        said = self._said()
        before = self._count("MCE")
        with self._stopped_in(level) as at:
            self._tiny.expect_beats(BEATS)
            words = self._human(_MCE)
            if words.strip():
                raise BenchError(f"QEMU makes no machine check: {words.strip()}")
        outcome = self._watch(said)
        if not outcome.l1 and outcome.status == "running" and self._count("MCE") > before:
            outcome = replace(outcome, l1="its count of MCEs has grown")
        return QemuInjected(at, outcome)

    def _after(self, outcome: QemuOutcome) -> None:
        """L1 that QEMU has stopped is started by the next session."""
        if outcome.status != "running":
            return
        if "panicked" in outcome.l1:
            self._reset.wait()
        else:
            self._reset.close()
