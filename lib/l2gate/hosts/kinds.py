# SPDX-License-Identifier: MIT
"""The kinds of hosts that `--host` can name: a line for each."""

from __future__ import annotations

from dataclasses import replace

from l2gate.foundation.errors import UsageError
from l2gate.foundation.settings import AUTO, OPTIONS, Option, Settings, nearest
from l2gate.hosts.emulated import bochs, tcg
from l2gate.hosts.kind import Can, Kind
from l2gate.hosts.lab import local, over_ssh
from l2gate.kernels import spec as kernel_spec

#: The first one is `auto`.
KINDS: tuple[Kind, ...] = (
    bochs.KIND,
    tcg.KIND,
    local.KIND,
    over_ssh.KIND,
)


def find(name: str) -> Kind:
    """The kind that ``name`` means. Raises UsageError."""
    if name == AUTO:
        return KINDS[0]
    for kind in KINDS:
        if found := kind.named(name):
            return found
    names = [AUTO, *(kind.name for kind in KINDS)]
    raise UsageError(f"host = {name!r} is not known", nearest(name, names))


def able(can: Can) -> tuple[Kind, ...]:
    """The kinds that can do that."""
    return tuple(kind for kind in KINDS if can in kind.can)


def names(can: Can) -> tuple[str, ...]:
    return tuple(kind.name for kind in able(can))


def require(name: str, can: Can) -> Kind:
    """The kind that ``name`` means. Raises UsageError for one that cannot do that."""
    kind = find(name)
    if can not in kind.can:
        more = "" if kind.boots else f"; a lab host is asked by l2gate run --host {name}"
        raise UsageError(
            f"--host {name}: it cannot {can.value}", f"{nearest(name, names(can))}{more}"
        )
    return kind


def quickest(can: Can, vendor: str = "") -> Kind:
    """The kind that can do that in the least time; with such virtualization if ``vendor`` names
    one. Raises UsageError if there is none."""
    fit = [k for k in able(can) if not vendor or (k.vendor and k.vendor.name == vendor)]
    if not fit:
        raise UsageError(f"no kind of host with {vendor} can {can.value}", "l2gate hosts lists all")
    return min(fit, key=lambda kind: kind.seconds)


def told(text: str) -> str:
    """``text`` of an option's help with what the hosts say of themselves."""
    what = {
        "hosts": ", ".join([AUTO, *(kind.name for kind in KINDS)]),
        "booting": " or ".join(names(Can.BOOT_KERNELS)),
        "default": KINDS[0].name,
        "kernel": KINDS[0].default_kernel,
    }
    for word, value in what.items():
        text = text.replace(f"{{{word}}}", value)
    return text


# --- settings that not every host uses ------------------------------------------------------------


def _of(option: Option) -> list[Kind]:
    """The kinds that have it for themselves; none: it is for all."""
    return [kind for kind in KINDS if option.name in kind.options]


def uses(kind: Kind, option: Option) -> bool:
    """Whether the option means something on this kind of host."""
    return option.name in kind.options or not _of(option)


def only_used(kind: Kind, settings: Settings) -> Settings:
    """``settings`` without what this kind does not use: for jobs on several kinds."""
    unused: dict[str, object] = {o.name: o.value for o in OPTIONS if not uses(kind, o)}
    return replace(settings, **unused)  # type: ignore[arg-type]


def refuse_nonsense(kind: Kind, settings: Settings) -> None:
    """Raises UsageError for a kernel spec that is wrong there, and for a setting that would change
    nothing here."""
    for option in OPTIONS:
        value = getattr(settings, option.name)
        if value != option.value and not uses(kind, option):
            those = " and ".join(one.label for one in _of(option))
            raise UsageError(
                f"{option.name} = {option.text(value)} has no effect on {kind.name}",
                f"leave {option.name} out; it is for {those} hosts",
            )
    if spec := kind.kernel_spec(settings):
        kernel_spec.parse(spec)
