# SPDX-License-Identifier: MIT
"""What all emulated hosts have in common as a kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from l2gate.foundation import debian
from l2gate.foundation.errors import L2gateError
from l2gate.foundation.events import Timeline
from l2gate.foundation.settings import Settings
from l2gate.hosts.checks import Check, failed
from l2gate.hosts.emulated import machine
from l2gate.hosts.emulated.machine import EmulatedHost
from l2gate.hosts.host import HostContext
from l2gate.hosts.kind import Can, Kind
from l2gate.images import build
from l2gate.kernels.kernel import KernelUnderTest

#: The settings of templates.
TEMPLATE_OPTIONS = frozenset({"fresh", "warm", "side_by_side"})


@dataclass(frozen=True)
class EmulatedKind(Kind):
    """``host`` is made, ``emulator`` says by what program, or raises MissingPrerequisite."""

    can: frozenset[Can] = frozenset(Can)
    default_kernel: str = "debian:6.12+patched"
    controller_mb: int = 2300
    host: type[EmulatedHost] = field(kw_only=True)
    emulator: Callable[[Settings], str] = field(kw_only=True)

    def check(self, settings: Settings) -> str:
        return self.emulator(settings)

    def make(self, context: HostContext, kernel: KernelUnderTest | None) -> EmulatedHost:
        assert kernel is not None
        return self.host(self.name, kernel, context)

    def prepare_kernel(self, settings: Settings, timeline: Timeline) -> KernelUnderTest | None:
        kernel = super().prepare_kernel(settings, timeline)
        if kernel:
            machine.fitness(kernel)
        return kernel

    def checks(self, settings: Settings) -> Iterator[Check]:
        yield self._kernel(settings)
        try:
            found = self.check(settings)
        except L2gateError as error:
            yield failed("host", self.name, error)
            return
        told = f"{found}; L0 gets a CPU with virtualization, nested=1"
        yield Check("host", self.name, told, True)
        slow = f"deadlines are {machine.slowness():.1f} times the usual, beside an emulator's own"
        yield Check("host", "speed", slow, True, needed=False)

    def _kernel(self, settings: Settings) -> Check:
        what = f"kernel {self.kernel_spec(settings)}"
        try:
            kernel = self.prepare_kernel(settings, Timeline())
            assert kernel is not None
            machine.initrd(kernel, debian.find(build.GUEST_SUITE).path / "usr/bin/busybox")
        except L2gateError as error:
            return failed("kernel", what, error)
        found = f"{kernel.release}, {kernel.description}; {machine.fitness(kernel)}"
        return Check("kernel", what, found, True)
