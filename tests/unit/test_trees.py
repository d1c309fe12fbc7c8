# SPDX-License-Identifier: MIT
"""Trees of the user's: what one is, what it has promised, and what its kind needs."""

from __future__ import annotations

from pathlib import Path

import pytest
from l2gate.contract.judge import Verdict
from l2gate.foundation.errors import KernelSpecError
from l2gate.kernels import source
from l2gate.kernels.trees import Tree, config_of
from l2gate.matrix.eras import expected

SETS = """static int kvm_vcpu_ioctl_x86_set_vcpu_events(struct kvm_vcpu *vcpu)
{{
	if (events->exception.injected &&
		(events->exception.nr > 31 || events->exception.nr == NMI_VECTOR{check}))
		return -EINVAL;
}}
"""
ANSWERS = """int kvm_vm_ioctl_check_extension(struct kvm *kvm, long ext)
{{
	int r;

	switch (ext) {{
	case KVM_CAP_IRQCHIP:
{payload}		r = 1;
		break;
	default:
		r = 0;
		break;
	}}
	return r;
}}
"""


def tree(folder: Path, *, check: str = "", payload: str = "", makefile: str = "") -> Tree:
    files = {
        "Makefile": f"VERSION = 4\nPATCHLEVEL = 12\nSUBLEVEL = 0\n{makefile}",
        "Kconfig": "",
        "arch/x86/kernel/module.c": "case R_X86_64_PLT32:\n",
        source.FILE: SETS.format(check=check) + ANSWERS.format(payload=payload),
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return Tree.at(folder)


def test_what_it_must_come_to_is_read_in_its_source(tmp_path: Path) -> None:
    assert expected(tree(tmp_path))[0] is Verdict.FAIL
    verdict, why = expected(tree(tmp_path, check=" || is_guest_mode(vcpu)"))
    assert verdict is Verdict.PASS and "the commit's check" in why
    payload = "\tcase KVM_CAP_EXCEPTION_PAYLOAD:\n"
    assert expected(tree(tmp_path, payload=payload))[0] is Verdict.PASS


def test_what_is_no_tree_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("all:\n")
    with pytest.raises(KernelSpecError, match="not a kernel tree: it has no Kconfig"):
        Tree.at(tmp_path)


def test_the_key_is_of_what_is_built_from(tmp_path: Path) -> None:
    one = tree(tmp_path)
    before = one.key()
    for unused in ("Documentation/a.txt", "arch/arm/kernel/b.c", "drivers/gpu/c.c", "kernel/d.o"):
        (tmp_path / unused).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / unused).write_text("x")
    assert one.key() == before
    (tmp_path / "kernel/d.c").write_text("x")
    assert one.key() != before


def test_a_tree_that_was_built_in_is_not_built_elsewhere(tmp_path: Path) -> None:
    one = tree(tmp_path)
    assert one.clean
    (tmp_path / ".config").write_text("")
    assert not one.clean


def test_what_its_kind_needs_is_laid_over_the_small_config(tmp_path: Path) -> None:
    one = tree(tmp_path)
    assert "CONFIG_KVM=m" in config_of(one) and "CONFIG_RELOCATABLE=n" not in config_of(one)
    (tmp_path / "arch/x86/kernel/module.c").write_text("")
    assert config_of(one).rfind("CONFIG_KVM=y") > config_of(one).rfind("CONFIG_KVM=m")
    red_hat = tree(tmp_path, makefile="RHEL_MAJOR = 7\n")
    assert red_hat.distribution == "rhel-7" and "CONFIG_SCHEDSTATS=y" in config_of(red_hat)
