# SPDX-License-Identifier: MIT
"""The refusal does not depend on what L1 intercepts, nor on the path that the struct takes."""

from l2gate.testing import StandaloneVm, SystemTest, contract_test


class RefusedWhateverL1Intercepts(SystemTest):
    """Commit 28d06353, on a hypervisor of ours: lib/l2gate/contract/cases/refused.txt.

    :avocado: tags=refuse,quick,vmx,svm
    """

    @contract_test("refuse", on=StandaloneVm)
    def test_every_exception_and_path(self, vm: StandaloneVm) -> None:
        """EINVAL while L2 is active, intercepted or not, by KVM_SET_VCPU_EVENTS and
        KVM_SYNC_X86_EVENTS; nothing changes. While L1 is active, and with injected=0, it is
        accepted."""
        vm.must_keep("refused")
