# SPDX-License-Identifier: MIT
"""The ways by which userspace makes an exception, and which of them the commit's check covers.

Source of the claims: commit 28d06353 checks in kvm_vcpu_ioctl_x86_set_vcpu_events alone.
KVM_SYNC_X86_EVENTS calls that function (x86.c, sync_regs), QEMU calls the ioctl (QEMU,
target/i386/kvm/kvm.c, kvm_put_vcpu_events). KVM_SET_GUEST_DEBUG, KVM_X86_SET_MCE and KVM_NMI
queue what they make by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

ALL = "all"
#: The commit whose check it is.
COMMIT = "28d06353"

#: On whose vCPU a case is conducted.
HELPER, QEMU = "the helper's VM", "QEMU's VM"


@dataclass(frozen=True)
class Path:
    """``name`` as `--path` has it; ``vms``: where it is that; ``covered``: by the check."""

    name: str
    vms: tuple[str, ...]
    how: str
    covered: bool


PATHS = (
    Path("vcpu-events", (HELPER, QEMU), "KVM_SET_VCPU_EVENTS", True),
    Path("sync-regs", (HELPER, QEMU), "KVM_RUN with KVM_SYNC_X86_EVENTS", True),
    Path("guest-debug", (HELPER, QEMU), "KVM_SET_GUEST_DEBUG, INJECT_DB and INJECT_BP", False),
    Path("mce", (HELPER,), "KVM_X86_SET_MCE", False),
    Path("mce", (QEMU,), "QMP's mce: QEMU calls KVM_SET_VCPU_EVENTS", True),
    Path("gdbstub", (HELPER, QEMU), "QEMU's gdb server: QEMU calls KVM_SET_VCPU_EVENTS", True),
    Path("nmi", (HELPER,), "KVM_NMI", False),
    Path("nmi", (QEMU,), "QMP's inject-nmi: QEMU calls KVM_NMI", False),
)

NAMES = tuple(dict.fromkeys(path.name for path in PATHS))


def vm_of(case: dict[str, Any]) -> str:
    """On whose vCPU a case was conducted: those of tables are on the helper's."""
    return HELPER if "table" in case else QEMU


def path_of(case: dict[str, Any]) -> str:
    return str(case.get("path", "vcpu-events"))


def covered(case: dict[str, Any]) -> bool:
    """Whether the commit's check is in the way of this case; not if the path is not known."""
    return any(
        path.covered and path.name == path_of(case) and vm_of(case) in path.vms for path in PATHS
    )


def report(cases: Sequence[dict[str, Any]], asked: str) -> list[dict[str, Any]]:
    """One entry for each path: name, how, covered, and how many cases it had, in all, with L2
    active and passing. ``asked`` is what `--path` chose; ``chosen`` says whether that is it."""
    known = [(path, [c for c in cases if _is(path, c)]) for path in PATHS]
    listed = [_entry(path, found, asked) for path, found in known]
    strangers = sorted({path_of(case) for case in cases} - set(NAMES))
    for name in strangers:
        found = [case for case in cases if path_of(case) == name]
        path = Path(name, (HELPER, QEMU), "a path that contract/paths.py does not know", False)
        listed.append(_entry(path, found, asked))
    return listed


def _is(path: Path, case: dict[str, Any]) -> bool:
    return path.name == path_of(case) and vm_of(case) in path.vms


def _entry(path: Path, cases: Sequence[dict[str, Any]], asked: str) -> dict[str, Any]:
    return {
        **{key: value for key, value in asdict(path).items() if key != "vms"},
        "chosen": asked in (ALL, path.name),
        "cases": len(cases),
        "l2_active": sum(case["active_level"] == "L2" for case in cases),
        "passing": sum(case["verdict"] == "pass" for case in cases),
    }
