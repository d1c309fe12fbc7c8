# SPDX-License-Identifier: MIT
"""What is asked for: one table of options serves avocado.cfg, -p, the environment and the CLI.

Precedence, strongest first: ``avocado run -p name=value``, the environment variable
``L2GATE_NAME``, the section ``[l2gate]`` of avocado.cfg, the default below. A name that is none of
an option's, and a value that is empty, are refused: a typing error or an unset variable must not
ask another question than the one that was meant.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from l2gate.foundation.errors import UsageError

SECTION = "l2gate"


#: Variables of the same prefix that are no options: where things are kept, and what one process of
#: l2gate tells another.
_OTHER_VARIABLES = (
    "L2GATE_CACHE",
    "L2GATE_STATE",
    "L2GATE_BENCH",
    "L2GATE_TIMELINE",
    "L2GATE_CANNOT_RUN",
)
#: Those of l2gate's own tests.
_TEST_PREFIX = "L2GATE_TEST_"
#: The kinds of hosts that an option can be about.
EMULATED, LOCAL, SSH = "emulated", "local", "ssh"


@dataclass(frozen=True)
class Option:
    """One thing that can be asked for.

    ``group`` is the heading it stands under in `--help`; ``hosts`` are the kinds of hosts that use
    it (EMULATED, LOCAL, SSH, or the name of one emulated host), none: all.
    """

    name: str
    default: str
    help: str
    choices: tuple[str, ...] = ()
    group: str = "job"
    hosts: tuple[str, ...] = ()
    metavar: str = ""

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        return f"L2GATE_{self.name.upper()}"

    def check(self, value: str) -> str:
        """``value`` itself; raises UsageError if it is empty or not among the choices."""
        if not value.strip():
            raise UsageError(
                f"{self.name} is empty",
                f"is a variable not set? leave {self.name} out, or give it a value",
            )
        if self.choices and value not in self.choices:
            raise UsageError(f"{self.name} = {value!r} is not known", nearest(value, self.choices))
        return value


#: A hint names that many names at the most.
_NAMED = 40

#: The headings of `--help`, in their order.
GROUPS = {
    "host": "which kernel, on which host",
    "question": "what is tested",
    "emulated": "emulated hosts",
    "lab": "lab hosts (local, ssh://)",
    "job": "the job",
}

OPTIONS = (
    Option(
        "host",
        "auto",
        "which machine is L0: auto, emulated-intel, emulated-amd, local or "
        "ssh://[user@]name[:port]; auto is emulated-intel",
        group="host",
        metavar="HOST",
    ),
    Option(
        "kernel",
        "auto",
        "kernel under test: debian:SERIES[+patched|+unpatched][+FILE.patch] or dir:PATH; auto is "
        "debian:6.12+patched on an emulated host, the running kernel on a lab host",
        group="host",
        metavar="SPEC",
    ),
    Option(
        "expect_kernel",
        "",
        "refuse a running kernel whose release does not match a pattern, such as '6.12.*'",
        group="host",
        metavar="PATTERN",
    ),
    Option(
        "expect",
        "auto",
        "contract to judge by; auto lets the kernel's capabilities decide",
        ("auto", "refuse", "payload"),
        group="question",
    ),
    Option(
        "path",
        "all",
        "way of injecting: only cases that use it are run and judged",
        ("all", "vcpu-events", "sync-regs", "guest-debug", "mce", "gdbstub", "nmi"),
        group="question",
    ),
    Option(
        "case",
        "",
        "only cases with all these words, as 'table=errnos line=40 vector=3', and their controls",
        group="question",
        metavar="WORDS",
    ),
    Option(
        "l2", "tiny", "nested guest: flat code of ours, or Linux", ("tiny", "linux"), "question"
    ),
    Option(
        "proof",
        "auto",
        "how L2 is shown to be active; fingerprint: without KVM_GET_NESTED_STATE, as before 4.19",
        ("auto", "fingerprint"),
        group="question",
    ),
    Option(
        "qemu",
        "",
        "QEMU on the lab host, with arguments if needed; found by name if left out",
        group="lab",
        hosts=(LOCAL, SSH),
        metavar="PROGRAM",
    ),
    Option(
        "modules",
        "keep",
        "nested: load the lab host's KVM with nested=1 for the job, and put it back afterwards",
        ("keep", "nested"),
        group="lab",
        hosts=(LOCAL, SSH),
    ),
    Option(
        "wait",
        "3600",
        "seconds to wait for a lab host that another job has changed",
        group="lab",
        hosts=(LOCAL, SSH),
        metavar="SECONDS",
    ),
    Option(
        "ssh_config",
        "",
        "file to read instead of ~/.ssh/config, as `ssh -F`",
        group="lab",
        hosts=(SSH,),
        metavar="FILE",
    ),
    Option(
        "bochs",
        "",
        "Bochs binary of emulated-intel; Debian trixie's if left out",
        group="emulated",
        hosts=("emulated-intel",),
        metavar="PROGRAM",
    ),
    Option("keep", "no", "keep the bench's files for inspection", ("no", "yes")),
    Option("patience", "1", "factor on every deadline, for slow machines", metavar="FACTOR"),
)
BY_NAME = {option.name: option for option in OPTIONS}
VARIABLES = {option.variable: option.name for option in OPTIONS}


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
    """The settings from ``sources``, strongest first; what none of them names (None) is the
    default.

    Raises UsageError for a name that is no option's, and for a value that an option does not take,
    the empty one among them.
    """
    for source in sources:
        for name in source:
            if name not in BY_NAME:
                raise UsageError(f"there is no setting {name}", nearest(name, BY_NAME))
    values: dict[str, str] = {}
    for option in OPTIONS:
        given = (source.get(option.name) for source in sources)
        value = next((str(v) for v in given if v is not None), None)
        values[option.name] = option.default if value is None else option.check(value)
    _check_number(values, "patience", 1000)
    _check_number(values, "wait", 10**6)
    return Settings(**values)


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint: the known name that is most like ``name``, or all of them."""
    names = list(known)
    # A number that is like another is not what was meant.
    close = [] if name.isdecimal() else difflib.get_close_matches(name, names, 1, 0.6)
    meant = f"did you mean {close[0]}? " if close else ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{meant}use one of: {', '.join(names[:_NAMED])}{more}"


def _check_number(values: Mapping[str, str], name: str, below: float) -> None:
    try:
        if not 0 < float(values[name]) < below:
            raise ValueError
    except ValueError:
        raise UsageError(
            f"{name} = {values[name]!r} is not a number above 0", "use one such as 1 or 2.5"
        ) from None


def from_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The options that L2GATE_ variables name. Raises UsageError for one that names none."""
    environment = os.environ if environment is None else environment
    for variable in environment:
        if not variable.upper().startswith("L2GATE_") or variable.startswith(_TEST_PREFIX):
            continue
        if variable not in VARIABLES and variable not in _OTHER_VARIABLES:
            known = (*VARIABLES, "L2GATE_CACHE", "L2GATE_STATE")
            raise UsageError(
                f"the environment variable {variable} is none of l2gate's", nearest(variable, known)
            )
    return {name: environment[v] for v, name in VARIABLES.items() if v in environment}


def to_environment(settings: Settings) -> dict[str, str]:
    """The variables that hand ``settings`` to another process of l2gate."""
    named = {o.variable: str(getattr(settings, o.name)) for o in OPTIONS}
    return {variable: value for variable, value in named.items() if value}


def child_environment(settings: Settings) -> dict[str, str]:
    """This process' environment for another of l2gate: with ``settings`` and no others."""
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return kept | to_environment(settings)


def cache_dir() -> Path:
    """Where images, kernels and suite roots are kept between jobs (L2GATE_CACHE overrides). It may
    be read-only: what it lacks is then made below `state_dir`."""
    if named := os.environ.get("L2GATE_CACHE"):
        return Path(named).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "l2gate"


def state_dir() -> Path:
    """Where this user's own is kept: hosts that stand, matrices that go on, logs of faults
    (L2GATE_STATE overrides)."""
    if named := os.environ.get("L2GATE_STATE"):
        return Path(named).expanduser().resolve()
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(base) / "l2gate"


def checkout() -> Path:
    """The checkout this package runs from: recipes, helper sources and tests live in it."""
    return Path(__file__).resolve().parents[3]
