# SPDX-License-Identifier: MIT
"""The five reasons that commit 28d06353 gives for refusing, each with what has become of it.

Where the refuse contract holds the injection is refused, so that the harm cannot happen; where the
payload contract holds the later series has fixed it. Each table quotes its reason.
"""

from l2gate.testing import EITHER, StandaloneVm, SystemTest, contract_test


class TheFiveReasons(SystemTest):
    """Commit 28d06353, its message: lib/l2gate/contract/cases/reason-*.txt.

    :avocado: tags=refuse,payload,quick,vmx
    """

    @contract_test(EITHER, on=StandaloneVm)
    def test_1_the_api_has_no_dr6_and_no_cr2(self, vm: StandaloneVm) -> None:
        """Refused, and L2's CR2 and DR6 are as they were; or the new value comes as the payload,
        and L1 finds it in the exit qualification.

        :avocado: tags=svm
        """
        vm.must_keep("reason-1-no-dr6-or-cr2")

    @contract_test(EITHER, on=StandaloneVm)
    def test_2_dr7_gd_is_cleared_too_early(self, vm: StandaloneVm) -> None:
        """Refused, and DR7.GD stays set; or it is cleared when a handler gets the #DB, and not by
        a VM-exit of VMX.

        :avocado: tags=svm
        """
        vm.must_keep("reason-2-gd-too-early")

    @contract_test(EITHER, on=StandaloneVm)
    def test_3_page_fault_mask_and_match_are_ignored(self, vm: StandaloneVm) -> None:
        """Refused whatever L1's mask and match say; or L1 gets the #PF as they say, and L2's
        handler the others."""
        vm.must_keep("reason-3-pfec-ignored")

    @contract_test(EITHER, on=StandaloneVm)
    def test_4_a_stale_vmexit_is_read_from_vmcs02(self, vm: StandaloneVm) -> None:
        """Refused, and L1 is told nothing; or it is told vector, type and exit qualification of
        the exception that was injected, not of an exit before."""
        vm.must_keep("reason-4-stale-vmexit")

    @contract_test(EITHER, on=StandaloneVm)
    def test_5_a_stale_error_code_is_read_from_vmcs02(self, vm: StandaloneVm) -> None:
        """Refused, and L1 is told no error code; or the one that was injected, not that of an exit
        before."""
        vm.must_keep("reason-5-stale-error-code")
