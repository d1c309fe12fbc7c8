# SPDX-License-Identifier: MIT
"""QEMU injects: a machine check, a breakpoint that nobody owns, an NMI. Where KVM refuses, QEMU 10
stops L1 for good: such tests are the last of all."""

from l2gate.testing import EITHER, GdbStub, MachineCheck, Nmi, SystemTest, contract_test


class ThroughQemuItself(SystemTest):
    """KVM_SET_VCPU_EVENTS as QEMU makes it (target/i386/kvm: kvm_put_vcpu_events), and KVM_NMI.

    :avocado: tags=refuse,payload,needs-l1,vmx,svm
    """

    @contract_test(EITHER, on=Nmi)
    def test_an_nmi_is_l1_s_whoever_is_active(self, nmi: Nmi) -> None:
        nmi.must_reach("L1", while_active="L1")
        nmi.must_reach("L1", while_active="L2")

    @contract_test(EITHER, on=GdbStub, spoils_l1_under="refuse")
    def test_breakpoint_that_nobody_owns(self, breakpoint: GdbStub) -> None:
        """Refused while L2 is active, or it is L2's; the control is a process of L1."""
        breakpoint.must_reach("L1", while_active="L1")
        if breakpoint.refuse_contract:
            breakpoint.must_be_refused(while_active="L2")
        else:
            breakpoint.must_reach("L2", while_active="L2")

    @contract_test(EITHER, on=MachineCheck)
    def test_machine_check_while_l1_is_active(self, machine_check: MachineCheck) -> None:
        """The control of the next one: L1 has it, and may die of it."""
        machine_check.must_reach("L1", while_active="L1")

    @contract_test(EITHER, on=MachineCheck, spoils_l1_under="refuse")
    def test_machine_check_while_l2_is_active(self, machine_check: MachineCheck) -> None:
        """Refused: neither L1 nor L2 has it. Under the payload contract it is L1's."""
        if machine_check.refuse_contract:
            machine_check.must_be_refused(while_active="L2")
        else:
            machine_check.must_reach("L1", while_active="L2")
