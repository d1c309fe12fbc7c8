# SPDX-License-Identifier: MIT
"""The vendors: each complete, and what L1 is told read as the manuals have it."""

from __future__ import annotations

import pytest
from l2gate.contract import eras
from l2gate.foundation.errors import HelperError
from l2gate.foundation.settings import checkout
from l2gate.vendors import vendors
from l2gate.vendors.vendor import Vendor

each = pytest.mark.parametrize("vendor", vendors.VENDORS, ids=vendors.FORMATS)

VMX, SVM = (vendors.named(name) for name in ("vmx", "svm"))


def vmx_exit(reason: str = "0x0", info: str = "0x0", **more: str) -> dict[str, str]:
    return {"reason": reason, "interruption_info": info, **more}


@each
def test_the_steps_that_a_vendor_names_are_there(vendor: Vendor) -> None:
    named = {vendor.asks_l1_since, vendor.survives_qemu_since, vendor.honest_msrs_since}
    assert named - {""} <= set(eras.NAMES)


@each
def test_what_may_be_true_of_a_cpu_is_what_its_rows_may_ask_for(vendor: Vendor) -> None:
    most = vendor.wheres(soft=True, coded=True)
    assert most == {"any", vendor.format, *vendor.properties}
    assert vendor.wheres(soft=False, coded=False) < most
    assert most <= set(vendors.WHERES)


@each
@pytest.mark.parametrize(
    "script", ["images/userland/init-ram.sh", "lib/l2gate/hosts/lab/kvm-module.sh"]
)
def test_the_scripts_that_choose_a_module_know_the_vendor(vendor: Vendor, script: str) -> None:
    """They run where there is no Python: in L0's first steps, and on a lab host."""
    text = (checkout() / script).read_text()
    assert vendor.format in text and vendor.module in text.replace("-", "_")


def test_a_virtualization_is_known_by_the_flags_of_the_cpu() -> None:
    assert vendors.of_flags({"vmx": False, "svm": True}) is SVM
    assert vendors.of_flags({"vmx": False, "svm": False}) is None
    with pytest.raises(HelperError, match="hvx"):
        vendors.named("hvx")


@pytest.mark.parametrize(
    ("vector", "info"),
    [(14, "0x80000b0e"), (3, "0x80000603"), (2, "0x80000202"), (2, "0x80001202")],
)
def test_vmx_names_what_it_intercepted_in_the_interruption_information(
    vector: int, info: str
) -> None:
    """#PF with an error code, a #BP of INT3, an NMI, and one that unblocked NMIs by IRET."""
    assert VMX.not_this_exception(vector, vmx_exit(info=info)) is None
    assert VMX.not_this_exception(vector + 1, vmx_exit(info=info)) is not None
    # The same bits mean nothing at another exit, or without the bit that makes them valid.
    assert VMX.not_this_exception(vector, vmx_exit("0xa", info)) is not None
    assert VMX.not_this_exception(vector, vmx_exit(info=info.replace("0x8", "0x0"))) is not None


@pytest.mark.parametrize(("vector", "code"), [(0, "0x40"), (14, "0x4e"), (2, "0x61")])
def test_svm_names_it_by_the_exit_code(vector: int, code: str) -> None:
    assert SVM.not_this_exception(vector, {"reason": code}) is None
    assert SVM.not_this_exception(vector + 1, {"reason": code}) is not None


def test_a_triple_fault_is_known_by_the_exit_s_reason() -> None:
    assert VMX.exit_kind(vmx_exit("0x2")) == "triple-fault"
    assert SVM.exit_kind({"reason": "0x7f"}) == "triple-fault"
    # Each of these is another exit of the other vendor's: #GP is 0x4d, and 0 a read of CR0.
    assert VMX.exit_kind(vmx_exit("0x0")) == "exception"
    assert VMX.exit_kind(vmx_exit("0x4d")) == "reason 0x4d"
    assert SVM.exit_kind({"reason": "0x4d"}) == "exception"
    assert SVM.exit_kind({"reason": "0x0"}) == "reason 0x0"


def test_only_vmx_says_that_there_is_no_error_code() -> None:
    assert VMX.exit_code(vmx_exit(info="0x80000306", error_code="0x7")) == "none"
    assert VMX.exit_code(vmx_exit(info="0x80000b0d", error_code="0x7")) == "0x7"
    assert SVM.exit_code({"info_1": "0x7"}) == "0x7"
    assert (VMX.tells_missing_code, SVM.tells_missing_code) == (True, False)


def test_svm_takes_what_is_an_exception_alone() -> None:
    """APM volume 2, 15.20; QEMU's TCG is not so strict."""
    hardware = SVM.injectable(tcg=False, cet=False)
    assert {6, 14}.issubset(hardware) and not {2, 9, 15, 20, 21, 31} & hardware
    assert SVM.injectable(tcg=False, cet=True) - hardware == {21}
    assert SVM.injectable(tcg=True, cet=False) == frozenset(range(31)) - {2}
    assert VMX.injectable(tcg=False, cet=False) == frozenset(range(32))
