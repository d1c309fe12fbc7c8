# SPDX-License-Identifier: MIT
"""The NMI's vector and what is beyond 31 are no exceptions: refused whoever is active."""

from l2gate.testing import NEVER_EXCEPTIONS, SystemTest, VcpuEvents, contract_test


class RefusedAlways(SystemTest):
    """x86.c: exception.injected && (nr > 31 || nr == NMI_VECTOR) is EINVAL, since 4.9.

    :avocado: tags=refuse,needs-l1,vmx,svm
    """

    @contract_test("refuse", on=VcpuEvents)
    def test_while_l2_is_active(self, vcpu: VcpuEvents) -> None:
        with vcpu.freeze_l2() as frozen:
            for vector in NEVER_EXCEPTIONS:
                frozen.must_refuse(vector, errno="EINVAL")
                frozen.must_refuse(vector, error_code=0, errno="EINVAL")

    @contract_test("refuse", on=VcpuEvents)
    def test_while_l1_is_active(self, vcpu: VcpuEvents) -> None:
        process = vcpu.victim()
        with vcpu.freeze_l1(process) as frozen:
            for vector in NEVER_EXCEPTIONS:
                frozen.must_refuse(vector, errno="EINVAL")
                frozen.must_refuse(vector, error_code=0, errno="EINVAL")
