# SPDX-License-Identifier: MIT
"""What is said of a host, a kernel and a test, as a result has it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msgspec import Struct


@dataclass(frozen=True)
class Digest:
    """A file and its SHA-256, 64 digits. A file of the checkout is named from there."""

    file: str
    sha256: str

    def __str__(self) -> str:
        return f"{Path(self.file).name} {self.sha256[:12]}"


class HostDescription(Struct, frozen=True, kw_only=True):
    """L0. ``spec`` is as `--host` has it, ``emulator`` the emulator's own words (empty: a machine
    that was there), ``virtualization`` VMX or SVM. ``kvm_module`` is the vendor's, ``nested`` that
    parameter of it, ``parameters`` all of them, ``kvm_parameters`` those of kvm.ko. ``release``,
    ``version`` (its build), ``cmdline`` and ``tainted`` are L0's kernel's own. null: not known.
    ``template`` is when the machine was booted that this one was started from (ISO 8601, UTC);
    empty: it was booted for this job."""

    spec: str
    emulator: str
    virtualization: str
    nested: str
    cpu_vendor: str | None = None
    cpu_model: str | None = None
    microcode: str | None = None
    hypervisor: str | None = None
    machine: str | None = None
    kvm_module: str | None = None
    parameters: dict[str, str] = {}
    kvm_parameters: dict[str, str] = {}
    release: str | None = None
    version: str | None = None
    cmdline: str | None = None
    tainted: int | None = None
    template: str = ""


class KernelDescription(Struct, frozen=True, kw_only=True):
    """The kernel under test. ``spec`` is as `--kernel` has it, or `running`; then ``image`` is null
    and there are no ``patches``, as l2gate has not booted it."""

    spec: str
    release: str
    description: str
    image: Digest | None = None
    patches: list[Digest] = []


class AboutTest(Struct, frozen=True, kw_only=True):
    """A system test: its ``place``, seen from the checkout, what it ``says`` of itself (both may be
    empty), the contract that it is about (`either`: both) and whether it needs an L1."""

    place: str = ""
    says: str = ""
    contract: str = "either"
    needs_l1: bool = True


class Delivery(Struct, frozen=True, kw_only=True):
    """What became of an exception that was accepted while L1 was active: the ``wanted`` and the
    ``seen`` signal (null: none)."""

    test: str
    vector: int
    wanted: str | None
    seen: str | None


class Unasked(Struct, frozen=True, kw_only=True):
    """How many ``cases`` of a table were not asked, and what the kernel or the CPU ``lacks`` for
    them."""

    test: str
    table: str
    lacks: str
    cases: int
