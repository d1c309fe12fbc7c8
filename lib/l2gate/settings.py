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
        "debian:6.12+patched",
        "kernel under test: debian:SERIES[+patched|+unpatched|+FILE.patch] or dir:PATH",
    ),
    Option(
        "expect",
        "auto",
        "contract to judge by; auto lets the kernel's capabilities decide",
        ("auto", "refuse", "payload"),
    ),
    Option("l2", "tiny", "nested guest: flat code of ours, or Linux", ("tiny", "linux")),
    Option("bochs", "", "Bochs binary of emulated-intel; empty: Debian trixie's"),
    Option("keep", "no", "leave the bench's files behind for a look", ("no", "yes")),
    Option("patience", "1", "factor on every deadline, for slow machines"),
)


@dataclass(frozen=True)
class Settings:
    """What was asked for, checked."""

    host: str
    kernel: str
    expect: str
    l2: str
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
    try:
        if not 0 < float(values["patience"]) < 1000:
            raise ValueError
    except ValueError:
        raise UsageError(
            f"patience = {values['patience']!r} is not a factor", "use a number such as 1 or 2.5"
        ) from None
    return Settings(**values)


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
