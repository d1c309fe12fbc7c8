# SPDX-License-Identifier: MIT
"""The same struct on the same vCPU is accepted while L1 is active, and L1 gets the exception."""

from l2gate.testing import (
    BREAKPOINT,
    DEBUG,
    DIVIDE_ERROR,
    EXCEPTIONS,
    GENERAL_PROTECTION,
    INVALID_OPCODE,
    SystemTest,
    VcpuEvents,
    contract_test,
)

#: The signal that Linux makes of an exception in user mode (arch/x86/kernel/traps.c).
SIGNALS = {
    DIVIDE_ERROR: "SIGFPE",
    DEBUG: "SIGTRAP",
    BREAKPOINT: "SIGTRAP",
    INVALID_OPCODE: "SIGILL",
    GENERAL_PROTECTION: "SIGSEGV",
}
#: The hardware pushes an error code for that one (SDM volume 3, table 6-1).
ERROR_CODES = {GENERAL_PROTECTION: 0}


class AcceptedWhileL1IsActive(SystemTest):
    """The control: without it a refusal in L2 would prove nothing about L2.

    :avocado: tags=refuse,needs-l1,vmx,svm
    """

    @contract_test("refuse", on=VcpuEvents)
    def test_every_exception(self, vcpu: VcpuEvents) -> None:
        """Accepted and taken back before L1 sees it: a #DF or #MC would end L1."""
        process = vcpu.victim()
        with vcpu.freeze_l1(process) as frozen:
            for vector in EXCEPTIONS:
                frozen.must_accept(vector)
                frozen.must_accept(vector, error_code=0)

    @contract_test("refuse", on=VcpuEvents)
    def test_delivered_as_a_signal(self, vcpu: VcpuEvents) -> None:
        """Freeze a process of L1, inject, thaw: it takes the signal of that exception."""
        process = vcpu.victim()
        for vector, signal in SIGNALS.items():
            process.clear()
            with vcpu.freeze_l1(process) as frozen:
                frozen.must_accept(vector, error_code=ERROR_CODES.get(vector), delivered=True)
            if vector == BREAKPOINT and not vcpu.breakpoints_arrive:
                process.may_miss(
                    vector, "#BP is not delivered by SVM without NRIPS; it was only accepted"
                )
            else:
                process.must_receive(signal, of=vector)
