# SPDX-License-Identifier: MIT
"""The same struct on the same vCPU is accepted while L1 is active, and L1 gets the exception."""

from l2gate.guests.victim import Victim
from l2gate.injection.session import Session
from l2gate.injection.vectors import BREAKPOINT, EXCEPTIONS
from l2gate.plugins.systemtest import SystemTest, contract_test

#: Vectors that the hardware pushes an error code for (SDM volume 3, table 6-1).
WITH_ERROR_CODE = {13: 0}


class AcceptedWhileL1IsActive(SystemTest):
    """The control: without it a refusal in L2 would prove nothing about L2.

    :avocado: tags=refuse,needs-l1,vmx,svm
    """

    @contract_test("refuse")
    def test_every_exception(self, session: Session) -> None:
        """Accepted and taken back before L1 sees it: a #DF or #MC would end L1."""
        victim = session.victim()
        with session.freeze_l1(victim) as frozen:
            for vector in EXCEPTIONS:
                frozen.inject(vector)
                frozen.inject(vector, error_code=0)

    @contract_test("refuse")
    def test_delivered_as_a_signal(self, session: Session) -> None:
        """Freeze a process of L1, inject, thaw: it takes the signal of that exception."""
        victim = session.victim()
        for vector, signal in Victim.SIGNALS.items():
            victim.clear()
            with session.freeze_l1(victim) as frozen:
                frozen.inject(vector, WITH_ERROR_CODE.get(vector), undo=False)
            if vector == BREAKPOINT and not session.facts.soft_exceptions:
                session.note("#BP is not delivered by SVM without NRIPS; it was only accepted")
                session.deliver(vector, None, None)
            else:
                session.expect_signal(victim, vector, signal)
