# SPDX-License-Identifier: MIT
"""QEMU injects: a machine check, a breakpoint that nobody owns, an NMI. Last of all tests: where
KVM refuses, QEMU 10 stops L1 for good."""

from l2gate.injection.throughqemu import ThroughQemu
from l2gate.plugins.systemtest import EITHER, SystemTest, contract_test


class ThroughQemuItself(SystemTest):
    """KVM_SET_VCPU_EVENTS as QEMU makes it (target/i386/kvm: kvm_put_vcpu_events), and KVM_NMI.

    :avocado: tags=refuse,payload,needs-l1,vmx,svm
    """

    @contract_test(EITHER, on=ThroughQemu, path="nmi")
    def test_an_nmi_is_l1_s_whoever_is_active(self, qemu: ThroughQemu) -> None:
        qemu.nmi("L1")
        qemu.nmi("L2")
        qemu.leave_no_stepping()

    @contract_test(EITHER, on=ThroughQemu, path="gdbstub")
    def test_breakpoint_that_nobody_owns(self, qemu: ThroughQemu) -> None:
        """Refused while L2 is active, or it is L2's; the control is a process of L1."""
        qemu.breakpoint_nobody_owns()

    @contract_test(EITHER, on=ThroughQemu, path="mce")
    def test_machine_check_while_l1_is_active(self, qemu: ThroughQemu) -> None:
        """The control of the next one: L1 has it, and may die of it."""
        qemu.machine_check("L1")

    @contract_test(EITHER, on=ThroughQemu, path="mce")
    def test_machine_check_while_l2_is_active(self, qemu: ThroughQemu) -> None:
        """Refused: neither L1 nor L2 has it. Under the payload contract it is L1's."""
        qemu.machine_check("L2")
