# SPDX-License-Identifier: MIT
"""The NMI's vector and what is beyond 31 are no exceptions: refused whoever is active."""

from l2gate.injection.session import Session
from l2gate.injection.vectors import NEVER_EXCEPTIONS
from l2gate.plugins.systemtest import SystemTest, contract_test


class RefusedAlways(SystemTest):
    """x86.c: exception.injected && (nr > 31 || nr == NMI_VECTOR) is EINVAL, since 4.9.

    :avocado: tags=refuse,needs-l1,vmx,svm
    """

    @contract_test("refuse")
    def test_while_l2_is_active(self, session: Session) -> None:
        with session.freeze_l2() as frozen:
            for vector in NEVER_EXCEPTIONS:
                frozen.inject(vector)
                frozen.inject(vector, error_code=0)

    @contract_test("refuse")
    def test_while_l1_is_active(self, session: Session) -> None:
        victim = session.victim()
        with session.freeze_l1(victim) as frozen:
            for vector in NEVER_EXCEPTIONS:
                frozen.inject(vector)
                frozen.inject(vector, error_code=0)
