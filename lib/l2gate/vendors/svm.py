# SPDX-License-Identifier: MIT
"""SVM, of AMD's CPUs and kvm_amd."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from l2gate.vendors.vendor import NMI, Exit, Vendor, number

#: Exit codes (APM volume 2, appendix C): SVM_EXIT_EXCP_BASE, SVM_EXIT_NMI, SVM_EXIT_SHUTDOWN.
_EXCEPTION, _NMI, _SHUTDOWN = 0x40, 0x61, 0x7F
#: What the architecture calls an exception (APM volume 2, 8.2), but #CP.
_EXCEPTIONS = frozenset({0, 1, 3, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19, 30})
_CONTROL_PROTECTION = 21
#: QEMU's TCG takes all but the NMI's vector and 31.
_TCG_TAKES = frozenset(range(31)) - {NMI}

_NO_NRIPS = "without NRIPS, SVM delivers"


class Svm(Vendor):
    """APM volume 2, chapter 15."""

    name = "SVM"
    format = "svm"
    module = "kvm_amd"
    config = "KVM_AMD"
    module_parameters = ("nested=1",)
    paging = "npt"
    properties = ("soft",)
    code_mask = 0xFFFFFFFF
    #: EXITINFO1 means nothing without an error code (APM volume 2, 15.12).
    tells_missing_code = False
    #: 7c86663b68ba and its series.
    asks_l1_since = "5.8"
    passed_l1_by = True
    #: KVM of 4.14 to 5.0 offers QEMU IA32_ARCH_CAPABILITIES on AMD, too, and then refuses it
    #: (0cf9135b773b), and QEMU gives up. The next step that a capability tells is this one.
    honest_msrs_since = "5.8"
    #: svm.c: svm_update_soft_interrupt_rip.
    differences: ClassVar[Mapping[tuple[str, int], str]] = {
        ("delivery", 3): f"{_NO_NRIPS} #BP only onto an INT3 "
        "(svm.c: svm_update_soft_interrupt_rip)",
        ("table", 3): f"{_NO_NRIPS} #BP with the next RIP of an older exit or not at all",
        ("table", 4): f"{_NO_NRIPS} #OF with the next RIP of an older exit or not at all",
    }

    def _true_of(self, *, soft: bool, coded: bool) -> frozenset[str]:
        """#BP and #OF: only with NRIPS can KVM say where to go on after them."""
        return frozenset({"soft"} if soft else ())

    def injectable(self, *, tcg: bool, cet: bool) -> frozenset[int]:
        """Hardware takes what is an exception alone (APM volume 2, 15.20; kvm-unit-tests, svm)."""
        if tcg:
            return _TCG_TAKES
        return _EXCEPTIONS | ({_CONTROL_PROTECTION} if cet else set())

    def exit_kind(self, exit_: Exit) -> str:
        reason = number(exit_, "reason")
        if reason == _SHUTDOWN:
            return "triple-fault"
        return "exception" if _EXCEPTION <= reason < _EXCEPTION + 32 else f"reason {reason:#x}"

    def exit_code(self, exit_: Exit) -> str:
        return str(exit_["info_1"])

    def exit_qualification(self, exit_: Exit) -> str:
        """EXITINFO2: it means something for #PF alone."""
        return str(exit_["info_2"])

    def exit_event(self, exit_: Exit) -> str:
        return str(exit_["reason"])

    def exit_vectoring(self, exit_: Exit) -> int:
        return number(exit_, "exit_int_info")

    def not_this_exception(self, vector: int, exit_: Exit) -> str | None:
        """By the exit code."""
        code, wanted = number(exit_, "reason"), _NMI if vector == NMI else _EXCEPTION + vector
        return None if code == wanted else f"exit code {code:#x}, wanted {wanted:#x}"
