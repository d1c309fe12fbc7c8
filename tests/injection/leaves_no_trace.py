# SPDX-License-Identifier: MIT
"""The bench itself: borrowing QEMU's thread leaves no trace, even if the borrower is killed."""

from l2gate.injection.session import Session
from l2gate.plugins.systemtest import SystemTest, contract_test


class LeavesNoTrace(SystemTest):
    """The thread of QEMU that makes the ioctl is given back as it was.

    :avocado: tags=refuse,needs-l1,vmx,svm
    """

    @contract_test("refuse")
    def test_when_the_helper_is_killed_half_way(self, session: Session) -> None:
        """Freeze L2, kill the helper in the middle, again and again; L1 and L2 go on."""
        with session.freeze_l2() as frozen:
            session.kill_helper_half_way(times=8)
            frozen.inject(13, error_code=0)
