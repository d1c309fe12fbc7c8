# SPDX-License-Identifier: MIT
"""Where userspace may inject into L2, each exception goes to whom it must, as it must.

The cases are tables in lib/l2gate/contract/cases; each says in its header what it proves.
"""

from l2gate.testing import StandaloneVm, SystemTest, contract_test


class PayloadContract(SystemTest):
    """KVM_CAP_EXCEPTION_PAYLOAD (59073aaf6de0, c4f55198c7c2), on a hypervisor of ours.

    :avocado: tags=payload,quick,vmx,svm
    """

    @contract_test("payload", on=StandaloneVm)
    def test_every_exception_goes_to_whom_it_must(self, vm: StandaloneVm) -> None:
        """A pending exception is offered to L1 first: a VM-exit if L1 intercepts its vector, else
        L2's handler gets it. An injected one goes to L2's handler. Its error code comes along."""
        vm.must_keep("exceptions")

    @contract_test("payload", on=StandaloneVm)
    def test_what_is_refused_changes_nothing(self, vm: StandaloneVm) -> None:
        """An unknown flag, the payload flag without the capability and a vector that is no
        exception are EINVAL, whoever is active; neither level notices."""
        vm.must_keep("errnos")

    @contract_test("payload", on=StandaloneVm)
    def test_page_faults_bring_their_address_and_l1_chooses_by_error_code(
        self, vm: StandaloneVm
    ) -> None:
        """The payload gets to CR2 if L2 has the #PF, to the exit qualification (SVM: EXITINFO2) if
        L1 has; on VMX L1's mask and match of error codes decide which."""
        vm.must_keep("page-faults")

    @contract_test("payload", on=StandaloneVm)
    def test_debug_exceptions_bring_dr6_and_clear_gd_in_time(self, vm: StandaloneVm) -> None:
        """The payload gets to DR6 if L2 has the #DB, to the exit qualification if L1 has (SVM
        writes DR6 before the #VMEXIT); DR7.GD is cleared at the delivery, not before."""
        vm.must_keep("debug-exceptions")

    @contract_test("payload", on=StandaloneVm)
    def test_every_path_honours_l1_s_intercepts(self, vm: StandaloneVm) -> None:
        """KVM_SYNC_X86_EVENTS, INJECT_DB and INJECT_BP, KVM_X86_SET_MCE, KVM_NMI: L1 gets what it
        intercepts, L2 the rest; none is refused because L2 is active."""
        vm.must_keep("paths")

    @contract_test("payload", on=StandaloneVm)
    def test_saved_and_restored_it_is_the_same(self, vm: StandaloneVm) -> None:
        """KVM_GET_VCPU_EVENTS and KVM_SET_VCPU_EVENTS of what it said, a migration too, keep
        receiver and payload; KVM_SET_REGS takes a pending exception back."""
        vm.must_keep("afterwards")

    @contract_test("payload", on=StandaloneVm)
    def test_a_triple_fault_of_l2_is_l1_s(self, vm: StandaloneVm) -> None:
        """A triple fault of L2 is L1's VM-exit, one of L1 ends the VM; pending=0 takes it back."""
        vm.must_keep("triple-fault")
