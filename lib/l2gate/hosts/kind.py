# SPDX-License-Identifier: MIT
"""What a kind of host says of itself: all that the rooms above ask, instead of naming one.

A new kind is a file that makes one of these, and its line in kinds.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from l2gate.foundation.errors import UsageError
from l2gate.foundation.events import Timeline
from l2gate.foundation.settings import AUTO, Settings
from l2gate.hosts.checks import Check
from l2gate.hosts.host import Host, HostContext
from l2gate.hosts.lab.access import Lab
from l2gate.hosts.lab.prerequisites import kernel_matches
from l2gate.kernels.kernel import KernelUnderTest, prepare
from l2gate.vendors.vendor import Vendor


class Can(Enum):
    """What a host of some kind can be used for, as a usage error says it."""

    #: Else it is a machine whose running kernel is judged.
    BOOT_KERNELS = "boot the kernel under test"
    #: Nobody else uses it and nothing of it stays: it may be set as a job likes, and crash.
    BE_SPENT = "survive what is asked of it"
    EXCHANGE_KVM = "exchange its KVM as it runs"
    #: Its `make` gives a PersistentCapable.
    STAY_UP = "be booted to stay"
    #: Its `make` gives a TemplateCapable.
    BE_KEPT = "be kept as a template"


@dataclass(frozen=True)
class Kind(ABC):
    """A kind of host, or one machine of a kind of which there are many.

    ``name`` is what `--host` says; ``vendor`` whose virtualization it has, None if the machine must
    be asked. ``options`` are the settings that mean something on hosts such as this one alone.
    ``default_kernel`` is booted if no kernel is named. ``seconds`` is about how long a run takes
    where none was measured; ``controller_mb`` are the megabytes that it takes of this machine.
    """

    name: str
    what: str
    vendor: Vendor | None = None
    can: frozenset[Can] = frozenset()
    options: frozenset[str] = frozenset()
    default_kernel: str = ""
    seconds: float = 60.0
    controller_mb: int = 0

    @abstractmethod
    def check(self, settings: Settings) -> str:
        """With what it would be run. Raises MissingPrerequisite where it cannot be used, UsageError
        where the settings do not fit it."""

    @abstractmethod
    def make(self, context: HostContext, kernel: KernelUnderTest | None) -> Host:
        """The host, not yet booted, with the kernel under test if this kind boots one."""

    @abstractmethod
    def checks(self, settings: Settings) -> Iterator[Check]:
        """What `l2gate doctor` says of the host, and of its kernel."""

    @property
    def boots(self) -> bool:
        """Whether it boots the kernel under test."""
        return Can.BOOT_KERNELS in self.can

    @property
    def label(self) -> str:
        """Its kind, in an enumeration."""
        return self.name

    def named(self, word: str) -> Kind | None:
        """The host that ``word`` means, if it is one of this kind."""
        return self if word == self.name else None

    def candidates(self) -> Sequence[str]:
        """The words that a shell may complete to this."""
        return [self.name]

    def kernel_spec(self, settings: Settings) -> str | None:
        """The kernel to boot; None where the running one is judged."""
        if not self.boots:
            return None
        return self.default_kernel if settings.kernel == AUTO else settings.kernel

    def prepare_kernel(self, settings: Settings, timeline: Timeline) -> KernelUnderTest | None:
        """The kernel to boot, built now if need be. Raises KernelSpecError, also for one that
        lacks what the host needs, and UsageError for one that `expect_kernel` does not mean."""
        spec = self.kernel_spec(settings)
        kernel = prepare(spec, timeline) if spec else None
        if kernel and not kernel_matches(kernel.release, settings.expect_kernel):
            raise UsageError(
                f"{spec} is {kernel.release}, not {settings.expect_kernel}",
                "name another kernel, or leave expect_kernel out: it is for lab hosts",
            )
        return kernel

    def open(self, settings: Settings, for_what: str) -> Lab:
        """A machine that is there, to look at it or to work on it; close it. Raises UsageError for
        a kind that has none, and what `access.open_lab` raises."""
        raise UsageError(f"{for_what} is for lab hosts, not for {self.name}",
                         "--host local or ssh://...")  # fmt: skip
