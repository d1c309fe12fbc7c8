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
        vm.must_keep("exceptions")

    @contract_test("payload", on=StandaloneVm)
    def test_what_is_refused_changes_nothing(self, vm: StandaloneVm) -> None:
        vm.must_keep("errnos")

    @contract_test("payload", on=StandaloneVm)
    def test_page_faults_bring_their_address_and_l1_chooses_by_error_code(
        self, vm: StandaloneVm
    ) -> None:
        vm.must_keep("page-faults")

    @contract_test("payload", on=StandaloneVm)
    def test_debug_exceptions_bring_dr6_and_clear_gd_in_time(self, vm: StandaloneVm) -> None:
        vm.must_keep("debug-exceptions")

    @contract_test("payload", on=StandaloneVm)
    def test_every_path_honours_l1_s_intercepts(self, vm: StandaloneVm) -> None:
        vm.must_keep("paths")

    @contract_test("payload", on=StandaloneVm)
    def test_saved_and_restored_it_is_the_same(self, vm: StandaloneVm) -> None:
        vm.must_keep("afterwards")

    @contract_test("payload", on=StandaloneVm)
    def test_a_triple_fault_of_l2_is_l1_s(self, vm: StandaloneVm) -> None:
        vm.must_keep("triple-fault")
