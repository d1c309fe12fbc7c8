# SPDX-License-Identifier: MIT
"""What can be read off KVM's source, and what cannot."""

from __future__ import annotations

import pytest
from l2gate.kernels.source import Source

ANSWERS = """
static int other(void)
{
	switch (ext) { case KVM_CAP_EXCEPTION_PAYLOAD: return 1; }
}

int kvm_vm_ioctl_check_extension(struct kvm *kvm, long ext)
{
	int r = 0;

	switch (ext) {
	case KVM_CAP_FIRST:
#ifdef CONFIG_KVM_HYPERV
	case KVM_CAP_HYPERV:
#endif
	%s
	case KVM_CAP_LAST:
		r = 1;
		break;
	case KVM_CAP_COMPUTED:
		r = kvm_caps.something;
		break;
	default:
		break;
	}
	return r;
}
"""
LABEL = "case KVM_CAP_EXCEPTION_PAYLOAD:"

SETS = """
static int kvm_vcpu_ioctl_x86_set_vcpu_events(struct kvm_vcpu *vcpu,
	struct kvm_vcpu_events *events)
{
	%s
	return 0;
}
"""


def answer(inside: str, name: str = "KVM_CAP_EXCEPTION_PAYLOAD", generic: str = "") -> int | None:
    return Source(ANSWERS % inside, generic).capability(name).value


def test_a_case_is_answered_by_the_statement_that_follows() -> None:
    assert answer(LABEL) == 1
    assert answer(f"{LABEL}\n\t\tr = 0;\n\t\tbreak;") == 0


def test_no_case_is_an_absent_capability() -> None:
    assert answer("") == 0
    assert answer(f"/* {LABEL} */") == 0
    assert answer(f"// {LABEL}") == 0


@pytest.mark.parametrize(
    "inside",
    [
        f"#ifdef CONFIG_SOMETHING\n\t{LABEL}\n#endif",
        f"{LABEL}\n#ifdef CONFIG_SOMETHING\n\t\tr = 1;\n#else\n\t\tr = 0;\n#endif",
        f"{LABEL}\n\t\tr = enable_it;\n\t\tbreak;",
        f"{LABEL}\n\t\tgoto out;",
        "case KVM_CAP_OTHER ... KVM_CAP_EXCEPTION_PAYLOAD:",
    ],
)
def test_what_depends_on_something_is_not_told(inside: str) -> None:
    assert answer(inside) is None


def test_a_computed_capability_is_not_told() -> None:
    assert answer("", "KVM_CAP_COMPUTED") is None


def test_what_the_generic_half_may_answer_is_not_told() -> None:
    assert answer(LABEL, generic=f"switch (arg) {{ {LABEL} return 0; }}") is None


def test_a_source_that_is_not_understood_is_not_told() -> None:
    assert Source("int x;").capability("KVM_CAP_EXCEPTION_PAYLOAD").value is None
    changed = (ANSWERS % "").replace("default:\n\t\tbreak;", "default:\n\t\tr = ask(ext);")
    assert Source(changed).capability("KVM_CAP_EXCEPTION_PAYLOAD").value is None


def test_it_is_told_where_it_stands() -> None:
    found = Source(ANSWERS % LABEL).capability("KVM_CAP_EXCEPTION_PAYLOAD")
    assert found.where.startswith("arch/x86/kvm/x86.c:16: kvm_vm_ioctl_check_extension()")


def test_the_commit_s_check_is_found_where_it_stands() -> None:
    check = "if (events->exception.injected &&\n\t    is_guest_mode(vcpu))\n\t\treturn -EINVAL;"
    found = Source(SETS % check).commit_check()
    assert found is not None and found.startswith("arch/x86/kvm/x86.c:5: if (")
    assert Source(SETS % f"/* {check} */").commit_check() is None
    assert Source(SETS % check.replace("EINVAL", "EBUSY")).commit_check() is None
    assert Source(SETS % "").commit_check() is None
