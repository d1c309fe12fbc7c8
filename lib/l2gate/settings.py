"""What is asked for: one table of options serves avocado.cfg, -p, the environment and the CLI.

Precedence, strongest first: ``avocado run -p name=value``, the environment variable
``L2GATE_NAME``, the section ``[l2gate]`` of avocado.cfg, the default below.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from l2gate.errors import UsageError

SECTION = "l2gate"


@dataclass(frozen=True)
class Option:
    """One thing that can be asked for."""

    name: str
    default: str
    help: str
    choices: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        return f"L2GATE_{self.name.upper()}"

    def check(self, value: str) -> str:
        """``value`` itself; raises UsageError if it is not among the choices."""
        if self.choices and value not in self.choices:
            raise UsageError(
                f"{self.name} = {value!r} is not known",
                f"use one of: {', '.join(self.choices)}",
            )
        return value


OPTIONS = (
    Option("host", "auto", "L0: which machine runs the kernel under test"),
    Option(
        "kernel",
        "auto",
        "kernel under test: debian:SERIES[+patched|+unpatched|+FILE.patch] or dir:PATH; auto is "
        "debian:6.12+patched on an emulated host, the running kernel on any other",
    ),
    Option("expect_kernel", "", "refuse a running kernel whose release does not match, as 6.12.*"),
    Option(
        "expect",
        "auto",
        "contract to judge by; auto lets the kernel's capabilities decide",
        ("auto", "refuse", "payload"),
    ),
    Option(
        "path",
        "all",
        "way by which userspace makes the exceptions: only cases by that one are run and judged",
        ("all", "vcpu-events", "sync-regs", "guest-debug", "mce", "gdbstub", "nmi"),
    ),
    Option(
        "case",
        "",
        "only cases with all these words, as 'table=errnos line=40 vector=3', and their controls",
    ),
    Option("l2", "tiny", "nested guest: flat code of ours, or Linux", ("tiny", "linux")),
    Option(
        "proof",
        "auto",
        "how L2 is shown to be active; marks: without KVM_GET_NESTED_STATE, as before Linux 4.19",
        ("auto", "marks"),
    ),
    Option("qemu", "", "QEMU on a lab host, with arguments if it takes some; empty: found by name"),
    Option(
        "modules",
        "keep",
        "nested: load a lab host's KVM with nested=1 for the job, and put it back afterwards",
        ("keep", "nested"),
    ),
    Option("wait", "3600", "seconds to wait for a lab host that another job has changed"),
    Option("ssh_config", "", "file to read instead of ~/.ssh/config, as `ssh -F`"),
    Option("bochs", "", "Bochs binary of emulated-intel; empty: Debian trixie's"),
    Option("keep", "no", "leave the bench's files behind for a look", ("no", "yes")),
    Option("patience", "1", "factor on every deadline, for slow machines"),
)


@dataclass(frozen=True)
class Settings:
    """What was asked for, checked."""

    host: str
    kernel: str
    expect_kernel: str
    expect: str
    path: str
    case: str
    l2: str
    proof: str
    qemu: str
    modules: str
    wait: str
    ssh_config: str
    bochs: str
    keep: str
    patience: str

    @property
    def patience_factor(self) -> float:
        return float(self.patience)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def resolve(*sources: Mapping[str, Any]) -> Settings:
    """The settings from ``sources``, strongest first; what none of them names is the default.

    Raises UsageError for a value that an option does not take.
    """
    values: dict[str, str] = {}
    for option in OPTIONS:
        given = (source.get(option.name) for source in sources)
        value = next((str(v) for v in given if v not in (None, "")), option.default)
        values[option.name] = option.check(value)
    _check_number(values, "patience", 1000)
    _check_number(values, "wait", 10**6)
    return Settings(**values)


def _check_number(values: Mapping[str, str], name: str, below: float) -> None:
    try:
        if not 0 < float(values[name]) < below:
            raise ValueError
    except ValueError:
        raise UsageError(
            f"{name} = {values[name]!r} is not a number above 0", "use one such as 1 or 2.5"
        ) from None


def from_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The options that L2GATE_ variables name."""
    return {o.name: environment[o.variable] for o in OPTIONS if environment.get(o.variable)}


def to_environment(settings: Settings) -> dict[str, str]:
    """The variables that hand ``settings`` to another process of l2gate."""
    return {f"L2GATE_{f.name.upper()}": getattr(settings, f.name) for f in fields(settings)}


def cache_dir() -> Path:
    """Where images, kernels and suite roots are kept between jobs (L2GATE_CACHE overrides)."""
    if named := os.environ.get("L2GATE_CACHE"):
        return Path(named).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "l2gate"


def checkout() -> Path:
    """The checkout this package runs from: recipes, helper sources and tests live in it."""
    return Path(__file__).resolve().parents[2]
