# SPDX-License-Identifier: MIT
"""The bench itself: borrowing QEMU's thread leaves no trace, even if the borrower is killed."""

from l2gate.testing import GENERAL_PROTECTION, SystemTest, VcpuEvents, contract_test


class LeavesNoTrace(SystemTest):
    """The thread of QEMU that makes the ioctl is given back as it was.

    :avocado: tags=refuse,needs-l1,vmx,svm
    """

    @contract_test("refuse", on=VcpuEvents)
    def test_when_the_helper_is_killed_half_way(self, vcpu: VcpuEvents) -> None:
        """Freeze L2, kill the helper in the middle, again and again; L1 and L2 go on."""
        with vcpu.freeze_l2() as frozen:
            frozen.must_outlive_its_injector(times=8)
            frozen.must_refuse(GENERAL_PROTECTION, error_code=0, errno="EINVAL")
