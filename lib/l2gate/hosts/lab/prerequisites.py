# SPDX-License-Identifier: MIT
"""What a machine must have so that the suite can run on it, with what was found and the hint."""

from __future__ import annotations

import fnmatch
import time
from dataclasses import dataclass
from typing import Any

from l2gate.foundation.settings import Settings
from l2gate.hosts.checks import Check
from l2gate.hosts.lab.qemuprogram import Qemu
from l2gate.vendors import vendors
from l2gate.vendors.vendor import Vendor

#: Megabytes that L1 and what surrounds it take, and that the uploads take.
MEMORY_MB = 900
ROOM_MB = {"tiny": 150, "linux": 350}
_MINUTE = 60
_ANY = " or ".join(vendors.NAMES)


@dataclass(frozen=True)
class Survey:
    """What was found on a lab host."""

    probe: dict[str, Any]
    user: str
    qemu: Qemu | None
    qemu_problem: str
    install: str
    room: str
    room_mb: int
    settings: Settings

    @property
    def vendor(self) -> Vendor | None:
        return vendors.of_flags(self.probe["flags"])

    @property
    def module(self) -> str | None:
        return self.vendor.module if self.vendor else None

    @property
    def nested(self) -> str:
        return str(self.probe["parameters"].get("nested") or "absent")


def host_checks(survey: Survey) -> list[Check]:
    """Every prerequisite of a lab host."""
    groups = (_access, _kernel, _processor, _kvm, _ptrace, _qemu, _resources)
    return [check for group in groups for check in group(survey)]


def _host(what: str, found: str, enough: bool, hint: str = "", *, needed: bool = True) -> Check:
    return Check("host", what, found, enough, hint, needed)


def _access(survey: Survey) -> list[Check]:
    return [_host("access", survey.user, True)]


def _kernel(survey: Survey) -> list[Check]:
    probe, wanted = survey.probe, survey.settings.expect_kernel
    found = f"{probe['release']} ({probe['version']})"
    matches = kernel_matches(probe["release"], wanted)
    if wanted:
        found += f", wanted {wanted}"
    taint = probe["tainted"] or 0
    return [
        _host("kernel", found, matches, f"boot a kernel whose `uname -r` matches {wanted}"),
        _host("kernel taint", f"{taint}", not taint, "reboot the machine; what tainted it is in "
              "dmesg", needed=False),
        _host("kernel lockdown", probe.get("lockdown") or "none", True),
    ]  # fmt: skip


def kernel_matches(release: str, pattern: str) -> bool:
    """Whether `uname -r` is what `expect_kernel` wants: a pattern of the shell; empty: any."""
    return not pattern or fnmatch.fnmatchcase(release, pattern)


def _processor(survey: Survey) -> list[Check]:
    probe = survey.probe
    flag = survey.vendor.format if survey.vendor else f"no {' or '.join(vendors.FORMATS)}"
    under = f", under {probe['hypervisor'].strip()}" if probe.get("hypervisor") else ""
    found = f"{probe['cpu_vendor']}, {probe['cpu_model']}: {flag}{under}"
    hint = "enable virtualization in the firmware set-up" if not under else (
        f"enable nested virtualization ({_ANY}) in the hypervisor, or use bare metal"
    )  # fmt: skip
    return [_host("CPU", found, survey.module is not None, f"{hint}; or use an emulated host")]


def _kvm(survey: Survey) -> list[Check]:
    probe, vendor = survey.probe, survey.vendor
    checks = [_module(survey), _device(survey)]
    if vendor is None or probe["kvm_module"] is None:
        return checks
    checks.append(_nested(survey))
    module, paging = vendor.module, vendor.paging
    value = str(probe["parameters"].get(paging) or "absent")
    on = value in ("Y", "1")
    hint = f"load {module} with {paging}=1; without it L2 is slow"
    checks.append(_host(paging.upper(), f"{module} {paging}={value}", on, hint, needed=False))
    vms = probe.get("other_vms") or []
    said = ", ".join(f"{vm['comm']} ({vm['pid']})" for vm in vms) or "none"
    checks.append(_host("other VMs", said, True))
    return checks


def _module(survey: Survey) -> Check:
    probe, module = survey.probe, survey.module
    loaded = ", ".join(probe.get("kvm_modules") or []) or "none"
    if module is None:
        return _host("KVM module", f"{loaded}, none for {_ANY}", False,
                     "see the CPU above")  # fmt: skip
    there = probe["kvm_module"] == module
    return _host("KVM module", loaded, there, f"modprobe {module} nested=1")


def _device(survey: Survey) -> Check:
    """A /dev/kvm may answer with nothing behind it (kvm_pvm): it alone says nothing."""
    probe = survey.probe
    error = probe["dev_kvm_error"]
    if error:
        return _host("/dev/kvm", f"cannot be opened ({error})", False,
                     "load the KVM module, and run as root or with sudo")  # fmt: skip
    found = f"API version {probe['kvm_api']}"
    if survey.module is None:
        return _host("/dev/kvm", f"{found}, but without {_ANY}", False,
                     "see the CPU above")  # fmt: skip
    return _host("/dev/kvm", found, True)


def _nested(survey: Survey) -> Check:
    module, value = survey.module, survey.nested
    found = f"{module} nested={value}"
    if value in ("Y", "1"):
        return _host("nested KVM", found, True)
    users = survey.probe.get("kvm_users")
    if survey.settings.modules == "nested":
        if users:
            return _host("nested KVM", f"{found}, and {users} VMs run", False,
                         "shut them down, so that the module can be reloaded")  # fmt: skip
        return _host("nested KVM", f"{found}; it is loaded with nested=1 for the job", True)
    return _host(
        "nested KVM",
        found,
        False,
        "let l2gate load it with nested=1 for the job (--modules nested), or do it for good: "
        f"echo 'options {module} nested=1' >/etc/modprobe.d/{module}.conf; "
        f"modprobe -r {module}; modprobe {module}",
    )


def _ptrace(survey: Survey) -> list[Check]:
    probe = survey.probe
    scope = probe["yama_ptrace_scope"]
    denied = probe.get("selinux_deny_ptrace")
    modules = probe.get("lsm") or "no LSM"
    found = f"yama.ptrace_scope={'absent' if scope is None else scope}, {modules}"
    if denied is not None:
        found += f", SELinux deny_ptrace={denied}"
    if scope == 3:
        hint = "kernel.yama.ptrace_scope=3 needs a reboot to change: boot with 2 or less"
    else:
        hint = "setsebool deny_ptrace off"
    return [_host("ptrace", found, scope != 3 and not denied, hint)]


def _qemu(survey: Survey) -> list[Check]:
    qemu = survey.qemu
    if qemu is None:
        hint = f"l2gate prepare --host H --yes ({survey.install})" if survey.install else (
            "install QEMU for x86, or give its path with --qemu")  # fmt: skip
        return [_host("QEMU", survey.qemu_problem, False, hint)]
    return [
        _host("QEMU", f"{qemu.program}: {qemu.version}", True),
        _host("QEMU when the ioctl is refused", qemu.when_refused, True, needed=False),
    ]


def _resources(survey: Survey) -> list[Check]:
    probe, need = survey.probe, ROOM_MB[survey.settings.l2]
    memory = int(probe.get("memory_available_mb") or 0)
    apart = int(probe.get("clock") or 0) - time.time()
    return [
        _host("memory", f"{memory} MB available", memory >= MEMORY_MB,
              f"free {MEMORY_MB} MB: L1 takes 640"),
        _host("disk", f"{survey.room_mb} MB free in {survey.room}", survey.room_mb >= need,
              f"free {need} MB there"),
        _host("clock", f"{apart:+.0f} s against this machine", abs(apart) < 5 * _MINUTE,
              "timedatectl set-ntp true; times in the logs will not match", needed=False),
    ]  # fmt: skip
