# SPDX-License-Identifier: MIT
"""The kinds of hosts that `--host` can name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from l2gate.foundation.errors import UsageError
from l2gate.foundation.events import Timeline
from l2gate.foundation.settings import EMULATED as EMULATED_KIND
from l2gate.foundation.settings import LOCAL, OPTIONS, SSH, Option, Settings, nearest
from l2gate.hosts.emulated import bochs, tcg
from l2gate.hosts.emulated.machine import EmulatedHost, fitness
from l2gate.hosts.host import Host, HostContext
from l2gate.hosts.lab import labhost
from l2gate.kernels import spec as kernel_spec
from l2gate.kernels.kernel import KernelUnderTest, prepare
from l2gate.transport import ssh_config

AUTO = "auto"
#: What an emulated host boots if no kernel is named.
DEFAULT_KERNEL = "debian:6.12+patched"


@dataclass(frozen=True)
class Kind:
    """A kind of host.

    ``check`` tells with what it would be run, or raises MissingPrerequisite with cause and hint
    where it cannot be used, UsageError where the settings do not fit it. ``make`` gives
    the host, not yet booted, with the kernel under test if this kind boots one.
    """

    name: str
    what: str
    emulated: bool
    check: Callable[[Settings], str]
    make: Callable[[HostContext, KernelUnderTest | None], Host]

    def kernel_spec(self, settings: Settings) -> str | None:
        """The kernel to boot; None where the running one is judged."""
        if not self.emulated:
            return None
        return DEFAULT_KERNEL if settings.kernel == AUTO else settings.kernel

    def prepare_kernel(self, settings: Settings, timeline: Timeline) -> KernelUnderTest | None:
        """The kernel to boot, built now if need be. Raises KernelSpecError, also for one that
        lacks what the host needs."""
        spec = self.kernel_spec(settings)
        kernel = prepare(spec, timeline) if spec else None
        if kernel:
            fitness(kernel)
        return kernel

    def uses(self, option: Option) -> bool:
        """Whether the option means something on this kind of host."""
        if self.emulated:
            own = {EMULATED_KIND, self.name}
        else:
            own = {LOCAL if self.name == LOCAL else SSH}
        return not option.hosts or bool(own & set(option.hosts))

    def only_used(self, settings: Settings) -> Settings:
        """``settings`` without what this kind does not use: for jobs on several kinds."""
        return replace(settings, **{o.name: o.default for o in OPTIONS if not self.uses(o)})

    def refuse_nonsense(self, settings: Settings) -> None:
        """Raises UsageError for a kernel spec that is wrong there, and for a setting that would
        change nothing here."""
        for option in OPTIONS:
            value = getattr(settings, option.name)
            if value != option.default and not self.uses(option):
                raise UsageError(
                    f"{option.name} = {value} means nothing on {self.name}",
                    f"leave {option.name} out; it is for {' and '.join(option.hosts)} hosts",
                )
        if spec := self.kernel_spec(settings):
            kernel_spec.parse(spec)


def _emulated(
    name: str, what: str, check: Callable[[Settings], str], host: type[EmulatedHost]
) -> Kind:
    def make(context: HostContext, kernel: KernelUnderTest | None) -> Host:
        assert kernel is not None
        return host(kernel, context)

    return Kind(name, what, True, check, make)


KINDS = (
    _emulated(
        "emulated-intel",
        "Bochs emulates an Intel machine with VMX: needs no virtualization hardware",
        bochs.emulator,
        bochs.BochsHost,
    ),
    _emulated(
        "emulated-amd",
        "QEMU (TCG) emulates an AMD machine with SVM: needs no virtualization hardware, faster",
        tcg.emulator,
        tcg.TcgHost,
    ),
)

#: The names of the emulated hosts.
EMULATED = tuple(kind.name for kind in KINDS)


def _lab(spec: str) -> Kind:
    return Kind(
        spec,
        "this machine and its running kernel" if spec == LOCAL else "a machine over SSH",
        False,
        lambda settings: labhost.check(spec, settings),
        lambda context, _: labhost.LabHost(spec, context),
    )


def find(name: str) -> Kind:
    """The kind that ``name`` means; `auto` is emulated-intel. Raises UsageError."""
    for kind in KINDS:
        if name == kind.name or (name == AUTO and kind is KINDS[0]):
            return kind
    if name == LOCAL or name.startswith(ssh_config.SCHEME):
        return _lab(name)
    names = [AUTO, *EMULATED, LOCAL, "ssh://[user@]name[:port]"]
    raise UsageError(f"host = {name!r} is not known", nearest(name, names))
