# SPDX-License-Identifier: MIT
"""While L2 runs on the vCPU, KVM refuses an exception from userspace, and nothing changes."""

from l2gate.injection.session import Session
from l2gate.injection.vectors import EXCEPTIONS
from l2gate.plugins.systemtest import SystemTest, contract_test


class RefusedWhileL2IsActive(SystemTest):
    """Commit 28d06353: exception.injected && is_guest_mode(vcpu) is EINVAL.

    :avocado: tags=refuse,needs-l1,vmx,svm
    """

    @contract_test("refuse")
    def test_every_exception(self, session: Session) -> None:
        """Freeze L2, inject, see it refused; thaw, see L1 and L2 alive."""
        for vector in EXCEPTIONS:
            with session.freeze_l2() as frozen:
                frozen.inject(vector)
                frozen.inject(vector, error_code=0)

    @contract_test("refuse")
    def test_the_hundredth_time_as_the_first(self, session: Session) -> None:
        with session.freeze_l2() as frozen:
            for vector in EXCEPTIONS:
                frozen.inject(vector, repeat=100)

    @contract_test("refuse")
    def test_nothing_is_injected_when_nothing_is_asked(self, session: Session) -> None:
        """injected=0 is no exception: KVM takes it while L2 is active."""
        with session.freeze_l2() as frozen:
            for vector in EXCEPTIONS:
                frozen.inject(vector, injected=False)
