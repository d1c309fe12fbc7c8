# SPDX-License-Identifier: MIT
"""L0 as it answers once it is up: whether it can be judged, and by which contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from l2gate.contract import eras
from l2gate.contract.contracts import Contract, decide
from l2gate.foundation.errors import BenchError, MissingPrerequisite
from l2gate.foundation.settings import Settings
from l2gate.hosts.host import Host
from l2gate.hosts.lab.prerequisites import kernel_matches
from l2gate.hosts.probe import probe
from l2gate.records.descriptions import HostDescription, KernelDescription
from l2gate.vendors import vendors
from l2gate.vendors.vendor import Vendor

#: What the report says of L0, by the names that the helper's probe gives it.
_TOLD_OF_L0 = (
    "cpu_vendor",
    "cpu_model",
    "microcode",
    "hypervisor",
    "machine",
    "kvm_module",
    "parameters",
    "kvm_parameters",
    "release",
    "version",
    "cmdline",
    "tainted",
)


@dataclass(frozen=True)
class L0:
    """What the helper's probe says of a host that can be judged; ``steps`` of contract/eras.py."""

    found: dict[str, Any]
    vendor: Vendor
    contract: Contract
    steps: dict[str, bool | None]

    @property
    def soft_exceptions(self) -> bool:
        """Whether KVM can deliver #BP and #OF onto any instruction."""
        return bool(self.found["soft_exceptions"])

    def described(self, host: Host) -> HostDescription:
        """For the report."""
        return HostDescription(
            spec=host.spec,
            emulator=host.emulator,
            nested=_nested(self.found),
            virtualization=self.vendor.name,
            template=host.template_booted,
            **{key: self.found[key] for key in _TOLD_OF_L0 if self.found.get(key) is not None},
        )

    def running_kernel(self) -> KernelDescription:
        """For the report: of a host that was not booted with one."""
        found = self.found
        return KernelDescription(
            spec="running", release=found["release"], description=found["version"]
        )


def examine(host: Host, settings: Settings) -> L0:
    """Ask L0. Raises MissingPrerequisite for a kernel that lacks what the suite needs, BenchError
    for one without nested KVM, or that is not the one meant."""
    found = probe(host.connection, host.helper, "L0", host.budget)
    if found["lacks"]:
        raise MissingPrerequisite(
            f"the kernel {found['release']} lacks {', '.join(found['lacks'])}",
            "build the kernel with them: QEMU and the helper need them",
        )
    vendor, nested = vendors.of_flags(found["flags"]), _nested(found)
    if vendor is None or found["kvm_module"] is None or nested not in ("Y", "1"):
        raise BenchError(
            f"L0 has no nested KVM: module {found['kvm_module']}, nested={nested or 'absent'}, "
            f"/dev/kvm: {found['dev_kvm_error'] or 'there'}",
            f"the kernel needs {' or '.join(vendors.MODULES)} with nested=1; see L0's console",
        )
    wanted = settings.expect_kernel
    if not kernel_matches(found["release"], wanted):
        raise BenchError(
            f"L0 runs {found['release']}, not {wanted}", "boot the kernel that expect_kernel names"
        )
    payload = int(found["caps"].get("KVM_CAP_EXCEPTION_PAYLOAD", 0))
    return L0(found, vendor, decide(settings.expect, payload), eras.shown(found["caps"]))


def _nested(found: dict[str, Any]) -> str:
    return str(found["parameters"].get("nested", ""))
