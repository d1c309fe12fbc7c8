# SPDX-License-Identifier: MIT
"""What is asked for: the fields of `Settings` serve avocado.cfg, -p, the environment and the CLI.

Precedence, strongest first: ``avocado run -p name=value``, the environment variable
``L2GATE_NAME``, the section ``[l2gate]`` of avocado.cfg, the default below. A name that is none of
an option's, and a value that is empty, are refused: a typing error or an unset variable must not
ask another question than the one that was meant.
"""

from __future__ import annotations

import difflib
import os
import pwd
import re
import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from l2gate.foundation.errors import UsageError

SECTION = "l2gate"


#: Where things are kept, `cache_dir` and `state_dir`.
_PLACES = ("L2GATE_CACHE", "L2GATE_STATE")
#: Variables of the same prefix that are no options: where things are kept, and what one process of
#: l2gate tells another.
_OTHER_VARIABLES = (
    *_PLACES,
    "L2GATE_BENCH",
    "L2GATE_TIMELINE",
    "L2GATE_CANNOT_RUN",
)
#: Those of l2gate's own tests.
_TEST_PREFIX = "L2GATE_TEST_"
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

#: What lets l2gate choose.
AUTO = "auto"

Expect = Literal["auto", "refuse", "payload"]
L2Kind = Literal["tiny", "linux"]
Proof = Literal["auto", "fingerprint"]
Modules = Literal["keep", "nested"]

#: The ways of injecting: each is a file of l2gate/injection/paths, by its name.
_PATH_FILES = sorted((Path(__file__).parents[1] / "injection/paths").glob("[!_]*.py"))
PATHS = tuple(file.stem.replace("_", "-") for file in _PATH_FILES)

_YES = {"yes": True, "no": False}
_Value = TypeVar("_Value")


def _option(
    default: _Value,
    help_: str,
    *,
    group: str = "job",
    metavar: str = "",
    below: float = 0.0,
    among: tuple[str, ...] = (),
) -> _Value:
    """A field of `Settings`. ``group`` is the heading it stands under in `--help`; a number is
    ``below`` that one, a word ``among`` those, where its type does not list them. A `{word}` in the
    help stands for what the hosts say of themselves (l2gate/hosts/kinds.py, `told`)."""
    about = {"help": help_, "group": group, "metavar": metavar, "below": below, "among": among}
    found: _Value = field(default=default, metadata=about)
    return found


@dataclass(frozen=True)
class Settings:
    """What was asked for, checked. Each field is an option: its type says what it takes."""

    host: str = _option(
        AUTO, "which machine is L0: {hosts}; auto is {default}", group="host", metavar="HOST"
    )
    kernel: str = _option(
        AUTO,
        "kernel under test: debian:SERIES[+patched|+unpatched][+FILE.patch] or dir:PATH; auto is "
        "{kernel} on a host that boots it, the running kernel on a lab host",
        group="host",
        metavar="SPEC",
    )
    expect_kernel: str = _option(
        "",
        "refuse a running kernel whose release does not match a pattern, such as '6.12.*'",
        group="host",
        metavar="PATTERN",
    )
    expect: Expect = _option(
        "auto",
        "contract to judge by; auto lets the kernel's capabilities decide",
        group="question",
    )
    path: str = _option(
        "all",
        "way of injecting: only cases that use it are run and judged",
        group="question",
        among=("all", *PATHS),
    )
    case: str = _option(
        "",
        "only cases with all these words, as 'table=errnos line=40 vector=3', and their controls",
        group="question",
        metavar="WORDS",
    )
    l2: L2Kind = _option("tiny", "nested guest: flat code of ours, or Linux", group="question")
    proof: Proof = _option(
        "auto",
        "how L2 is shown to be active; fingerprint: without KVM_GET_NESTED_STATE, as before 4.19",
        group="question",
    )
    qemu: tuple[str, ...] = _option(
        (),
        "QEMU on the lab host, with arguments if needed; found by name if left out",
        group="lab",
        metavar="PROGRAM",
    )
    modules: Modules = _option(
        "keep",
        "nested: load the lab host's KVM with nested=1 for the job, and put it back afterwards",
        group="lab",
    )
    wait: float = _option(
        3600.0,
        "seconds to wait for a lab host that another job has changed",
        group="lab",
        metavar="SECONDS",
        below=1e6,
    )
    ssh_config: Path | None = _option(
        None, "file to read instead of ~/.ssh/config, as `ssh -F`", group="lab", metavar="FILE"
    )
    bochs: Path | None = _option(
        None,
        "Bochs to emulate with; Debian trixie's if left out",
        group="emulated",
        metavar="PROGRAM",
    )
    fresh: bool = _option(False, "boot host and L1 anew, and not from a template", group="emulated")
    warm: bool = _option(
        True,
        "keep a booted machine as a template, for later jobs to start from; see `l2gate warm`",
        group="emulated",
    )
    warm_minutes: float = _option(
        30.0,
        "minutes after which a parked machine that no job starts from ends",
        group="emulated",
        metavar="MINUTES",
        below=1e5,
    )
    side_by_side: bool = _option(
        True,
        "run tests that need no L1 on a second machine beside the first, where there is a template "
        "and there are two processors",
        group="emulated",
    )
    keep: bool = _option(False, "keep the bench's files for inspection")
    patience: float = _option(
        1.0, "factor on every deadline, for slow machines", metavar="FACTOR", below=1e3
    )

    def to_dict(self) -> dict[str, str]:
        """Each as it would be written."""
        return {option.name: option.text(getattr(self, option.name)) for option in OPTIONS}


@dataclass(frozen=True)
class Option:
    """One thing that can be asked for: a field of `Settings`, as people write it."""

    name: str
    type: Any
    value: Any
    help: str
    group: str
    metavar: str
    below: float
    among: tuple[str, ...]

    @property
    def default(self) -> str:
        """As text; empty where there is none."""
        return self.text(self.value)

    @property
    def choices(self) -> tuple[str, ...]:
        """All that it takes; none: anything of its type."""
        if self.type is bool:
            return tuple(sorted(_YES))
        return get_args(self.type) if get_origin(self.type) is Literal else self.among

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        return f"L2GATE_{self.name.upper()}"

    def text(self, value: Any) -> str:
        """How ``value`` is written; `parse` reads it."""
        if isinstance(value, bool):
            return next(word for word, means in _YES.items() if means is value)
        if isinstance(value, tuple):
            return shlex.join(value)
        return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)

    def parse(self, text: str) -> Any:
        """The value that ``text`` names. Raises UsageError if it is empty, or nothing that this
        option takes."""
        if not text.strip():
            raise UsageError(
                f"{self.name} is empty",
                f"is a variable not set? leave {self.name} out, or give it a value",
            )
        refuse_odd_letters(self.name, text)
        if self.choices and text not in self.choices:
            raise UsageError(f"{self.name} = {text!r} is not known", nearest(text, self.choices))
        if self.type is bool:
            return _YES[text]
        if self.type is float:
            return self._number(text)
        if self.type == tuple[str, ...]:
            return self._words(text)
        return path_of(text) if self.type == Path | None else text

    def _number(self, text: str) -> float:
        with suppress(ValueError):
            if 0 < (number := float(text)) < self.below:
                return number
        raise UsageError(
            f"{self.name} = {text!r} is not a number above 0", "use one such as 1 or 2.5"
        )

    def _words(self, text: str) -> tuple[str, ...]:
        try:
            return tuple(shlex.split(text))
        except ValueError as error:
            raise UsageError(f"{self.name} = {text}: {error}", "quote it as for a shell") from None


def _options() -> tuple[Option, ...]:
    types = get_type_hints(Settings)
    return tuple(
        Option(name=one.name, type=types[one.name], value=one.default, **one.metadata)
        for one in fields(Settings)
    )


OPTIONS = _options()
BY_NAME = {option.name: option for option in OPTIONS}
VARIABLES = {option.variable: option.name for option in OPTIONS}


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
    values = {}
    for option in OPTIONS:
        given = (source.get(option.name) for source in sources)
        text = next((option.text(value) for value in given if value is not None), None)
        values[option.name] = option.value if text is None else option.parse(text)
    return Settings(**values)


def refuse_odd_letters(what: str, text: str) -> None:
    """Raises UsageError for bytes that are no text: the result, which is JSON, could not name
    them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        told = os.fsencode(text).decode(errors="backslashreplace")
        raise UsageError(f"{what} = {told} is not in UTF-8", "rename the file") from None


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint: the known name that is most like ``name``, or all of them."""
    names = list(known)
    folded = {one.casefold(): one for one in reversed(names)}
    # A number that is like another is not what was meant.
    number = re.fullmatch(r"[-+]?\d+", name)
    close = [] if number else difflib.get_close_matches(name.casefold(), folded, 1, 0.6)
    meant = f"did you mean {folded[close[0]]}? " if close else ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{meant}use one of: {', '.join(names[:_NAMED])}{more}"


def from_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The options that L2GATE_ variables name. Raises UsageError for one that names none."""
    environment = os.environ if environment is None else environment
    for variable in _PLACES:
        if variable in environment and not environment[variable].strip():
            raise UsageError(
                f"{variable} is empty", f"is a variable not set? unset {variable}, or name a folder"
            )
    for variable in environment:
        if not variable.upper().startswith("L2GATE_") or variable.startswith(_TEST_PREFIX):
            continue
        if variable not in VARIABLES and variable not in _OTHER_VARIABLES:
            known = (*VARIABLES, *_PLACES)
            raise UsageError(
                f"the environment variable {variable} is none of l2gate's", nearest(variable, known)
            )
    return {name: environment[v] for v, name in VARIABLES.items() if v in environment}


def to_environment(settings: Settings) -> dict[str, str]:
    """The variables that hand ``settings`` to another process of l2gate."""
    texts = settings.to_dict()
    return {option.variable: texts[option.name] for option in OPTIONS if texts[option.name]}


def child_environment(settings: Settings) -> dict[str, str]:
    """This process' environment for another of l2gate: with ``settings`` and no others."""
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return kept | to_environment(settings)


def path_of(word: str) -> Path:
    """The path that ``word`` means; of a user who is not known, just that."""
    try:
        return Path(word).expanduser()
    except RuntimeError:
        return Path(word)


def _home() -> Path:
    """Raises UsageError if this user has none, as an unknown one in a container."""
    named = os.environ.get("HOME", "").strip()
    try:
        return Path(named or pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        raise UsageError(
            f"HOME is not set, and user {os.getuid()} is not known here",
            "set HOME, or both L2GATE_CACHE and L2GATE_STATE",
        ) from None


def cache_dir() -> Path:
    """Where images, kernels and suite roots are kept between jobs (L2GATE_CACHE overrides). It may
    be read-only: what it lacks is then made below `state_dir`. Raises UsageError for a user who has
    no home."""
    if named := os.environ.get("L2GATE_CACHE"):
        return path_of(named).resolve()
    base = os.environ.get("XDG_CACHE_HOME") or _home() / ".cache"
    return Path(base) / "l2gate"


def state_dir() -> Path:
    """Where this user's own is kept: hosts that stand, matrices that go on, logs of faults
    (L2GATE_STATE overrides)."""
    if named := os.environ.get("L2GATE_STATE"):
        return path_of(named).resolve()
    base = os.environ.get("XDG_STATE_HOME") or _home() / ".local/state"
    return Path(base) / "l2gate"


def checkout() -> Path:
    """The checkout this package runs from: recipes, helper sources and tests live in it."""
    return Path(__file__).resolve().parents[3]
