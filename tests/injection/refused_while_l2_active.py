# SPDX-License-Identifier: MIT
"""While L2 runs on the vCPU, KVM refuses an exception from userspace, and nothing changes."""

from l2gate.testing import EXCEPTIONS, SystemTest, VcpuEvents, contract_test


class RefusedWhileL2IsActive(SystemTest):
    """Commit 28d06353: exception.injected && is_guest_mode(vcpu) is EINVAL.

    :avocado: tags=refuse,needs-l1,vmx,svm
    """

    @contract_test("refuse", on=VcpuEvents)
    def test_every_exception(self, vcpu: VcpuEvents) -> None:
        """Freeze L2, inject, see it refused; thaw, see L1 and L2 alive."""
        for vector in EXCEPTIONS:
            with vcpu.freeze_l2() as frozen:
                frozen.must_refuse(vector, errno="EINVAL")
                frozen.must_refuse(vector, error_code=0, errno="EINVAL")

    @contract_test("refuse", on=VcpuEvents)
    def test_the_hundredth_time_as_the_first(self, vcpu: VcpuEvents) -> None:
        with vcpu.freeze_l2() as frozen:
            for vector in EXCEPTIONS:
                frozen.must_refuse(vector, errno="EINVAL", times=100)

    @contract_test("refuse", on=VcpuEvents)
    def test_nothing_is_injected_when_nothing_is_asked(self, vcpu: VcpuEvents) -> None:
        """injected=0 is no exception: KVM takes it while L2 is active."""
        with vcpu.freeze_l2() as frozen:
            for vector in EXCEPTIONS:
                frozen.must_accept_nothing(vector)
