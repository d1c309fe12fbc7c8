# SPDX-License-Identifier: MIT
"""VMX, of Intel's CPUs and kvm_intel."""

from __future__ import annotations

from l2gate.vendors.vendor import NMI, VALID, Exit, Vendor, number

#: Basic exit reasons (SDM volume 3, appendix C).
_EXCEPTION_OR_NMI, _TRIPLE_FAULT = 0, 2
#: Interruption information (SDM volume 3, table 25-16): the bits beside vector and type.
_HAS_CODE, _NMI_UNBLOCKED = 1 << 11, 1 << 12
_TYPE_NMI, _TYPE_EXCEPTION, _TYPE_SOFT = 2, 3, 6
#: Vectors that INT3 and INTO make.
_SOFT = (3, 4)


class Vmx(Vendor):
    """SDM volume 3, chapters 24 to 28."""

    name = "VMX"
    format = "vmx"
    module = "kvm_intel"
    config = "KVM_INTEL"
    #: Bochs 3.0 refuses the posted-interrupt descriptor's address unless APICv is off.
    module_parameters = ("nested=1", "enable_apicv=0")
    paging = "ept"
    properties = ("soft", "coded")
    code_check_told_by = (
        "a readable IA32_VMX_BASIC, whose bit 56 tells which error codes are checked"
    )
    #: vmx_inject_exception, nested_vmx_inject_exception_vmexit.
    code_mask = 0xFFFF
    tells_missing_code = True
    asks_l1_since = "4.19"
    passed_l1_by = False
    survives_qemu_since = "4.19"
    without_that = "seen on 4.12: its CR4 has lost bits"

    def _true_of(self, *, soft: bool, coded: bool) -> frozenset[str]:
        """#BP and #OF can be delivered anywhere: the VMCS has the instruction's length."""
        return frozenset({"soft", "coded"} if coded else {"soft"})

    def injectable(self, *, tcg: bool, cet: bool) -> frozenset[int]:
        """Every vector (SDM volume 3, 27.2.1.3)."""
        return frozenset(range(32))

    def exit_kind(self, exit_: Exit) -> str:
        reason = number(exit_, "reason")
        known = {_EXCEPTION_OR_NMI: "exception", _TRIPLE_FAULT: "triple-fault"}
        return known.get(reason, f"reason {reason:#x}")

    def exit_code(self, exit_: Exit) -> str:
        has = number(exit_, "interruption_info") & _HAS_CODE
        return str(exit_["error_code"]) if has else "none"

    def exit_qualification(self, exit_: Exit) -> str:
        return str(exit_["qualification"])

    def exit_event(self, exit_: Exit) -> str:
        return str(exit_["interruption_info"])

    def exit_vectoring(self, exit_: Exit) -> int:
        return number(exit_, "idt_vectoring_info")

    def not_this_exception(self, vector: int, exit_: Exit) -> str | None:
        """By the exit reason and the interruption information (SDM volume 3, table 25-16)."""
        info = number(exit_, "interruption_info")
        kind = _TYPE_NMI if vector == NMI else _TYPE_SOFT if vector in _SOFT else _TYPE_EXCEPTION
        wanted = VALID | kind << 8 | vector
        named = info & ~(_HAS_CODE | _NMI_UNBLOCKED) == wanted
        if named and number(exit_, "reason") == _EXCEPTION_OR_NMI:
            return None
        return (
            f"exit reason {exit_['reason']}, interruption information {info:#x}, "
            f"wanted 0x0, {wanted:#x}"
        )
