# SPDX-License-Identifier: MIT
"""A patch that breaks KVM in one way, or keeps the promise in another way; its header says all.

    Breaks: what is wrong with it            (or `Keeps:` what it does in another way)
    On top of: +unpatched                    (or `the stock kernel`)
    Caught by: Class.test_name, on SVM (the words that a failing case's reason must have)

What comes after an empty line is for the reader. `, on SVM` or `, on VMX` is left out where either
host will do. What keeps the promise has no `Caught by`: all tests must pass.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from l2gate.foundation.errors import KernelSpecError
from l2gate.hosts import kinds
from l2gate.hosts.kind import Can
from l2gate.kernels.patch import Patch
from l2gate.kernels.spec import recipes
from l2gate.vendors.vendors import NAMES

_CAUGHT = re.compile(rf"^(\w+\.\w+)(?:, on ({'|'.join(NAMES)}))? \((.+)\)$")
SERIES = "6.12"


@dataclass(frozen=True)
class Mutant:
    """``test`` and ``words`` are empty for one that keeps the promise."""

    path: Path
    about: str
    base: str
    test: str = ""
    words: str = ""
    on: str = ""

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def broken(self) -> bool:
        return bool(self.test)

    @property
    def spec(self) -> str:
        return f"{self.base}+{self.path}"

    @property
    def host(self) -> str:
        """The quickest one that will do."""
        return kinds.quickest(Can.EXCHANGE_KVM, self.on).name


def read(path: Path) -> Mutant:
    """The mutant in a patch file. Raises KernelSpecError where its header does not say enough."""
    header = " ".join(Patch(path).header.partition("\n\n")[0].split())
    base = _after(path, header, "On top of: ", ("Caught by:",))
    if base not in ("+unpatched", "the stock kernel"):
        raise KernelSpecError(
            f"{path}: `On top of:` names {base!r}", "use +unpatched or the stock kernel"
        )
    stock = f"debian:{path.parent.parent.name}"
    spec = f"{stock}+unpatched" if base == "+unpatched" else stock
    if "Keeps: " in header:
        return Mutant(path, _after(path, header, "Keeps: ", ("On top of:",)), spec)
    about = _after(path, header, "Breaks: ", ("On top of:",))
    found = _CAUGHT.match(_after(path, header, "Caught by: ", ()))
    if not found:
        raise KernelSpecError(
            f"{path}: its `Caught by:` cannot be read", f"Class.test_name, on {NAMES[0]} (words)"
        )
    test, on, words = found.groups()
    return Mutant(path, about, spec, test, words, on or "")


def _after(path: Path, header: str, key: str, before: tuple[str, ...]) -> str:
    _, there, rest = header.partition(key)
    if not there:
        raise KernelSpecError(f"{path} has no {key.strip()}", "see another mutant's header")
    for end in before:
        rest = rest.partition(end)[0]
    return rest.strip()


def all_mutants() -> list[Mutant]:
    """Every mutant and every equivalent of l2gate's own."""
    folder = recipes(SERIES)
    paths = [*sorted((folder / "mutants").glob("*.patch"))]
    paths += sorted((folder / "equivalents").glob("*.patch"))
    return [read(path) for path in paths]
