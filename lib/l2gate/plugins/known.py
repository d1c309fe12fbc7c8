# SPDX-License-Identifier: MIT
"""Where each system test is, and whether it needs an L1: asked of the tests themselves."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol, TypeVar

from l2gate.foundation.errors import KernelSpecError, UsageError
from l2gate.foundation.settings import checkout, nearest, path_of
from l2gate.jobs.job import TESTS
from l2gate.records.descriptions import AboutTest
from l2gate.report.result import sentence
from l2gate.testing import ContractTest, SystemTest, about

_FOLDER = checkout() / TESTS


class Runnable(Protocol):
    """What Avocado runs; of a test its URI names file, class and method."""

    @property
    def uri(self) -> str: ...


R = TypeVar("R", bound=Runnable)


@dataclass(frozen=True)
class KnownTest:
    """``reference`` is what Avocado takes, ``says`` what the test says of itself; it may be
    empty."""

    sentence: str
    reference: str
    test: ContractTest
    says: str

    @property
    def contract(self) -> str:
        return self.test.contract

    @property
    def needs_l1(self) -> bool:
        return self.test.needs_l1

    @property
    def about(self) -> AboutTest:
        """For the timeline; ``place`` is seen from the checkout."""
        place = self.reference.removeprefix(f"{checkout()}/")
        return AboutTest(
            place=place, says=self.says, contract=self.contract, needs_l1=self.needs_l1
        )


@cache
def known_tests() -> dict[str, KnownTest]:
    """By sentence, `Class.test_name`."""
    found = {}
    for file in sorted((checkout() / TESTS).glob("*.py")):
        spec = importlib.util.spec_from_file_location(f"l2gate_test_{file.stem}", file)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, SystemTest) and kind is not SystemTest:
                for name, method in vars(kind).items():
                    if name.startswith("test"):
                        sentence = f"{kind.__name__}.{name}"
                        found[sentence] = KnownTest(
                            sentence,
                            f"{file}:{sentence}",
                            about(method),
                            _says(method),
                        )
    return found


def in_order(tests: Sequence[R]) -> list[R]:
    """Avocado's runnables as they are best run: first what needs no L1, for a busy L2 would take it
    half of the CPU; last what may leave L1 stopped for good, for what comes after such a one has to
    wait for another L1. The rest, and what is not known, stays in its order between the two."""
    known = known_tests()

    def place(runnable: R) -> int:
        found = known.get(sentence(str(runnable.uri)))
        if not found or (found.needs_l1 and not found.test.spoils_l1_under):
            return 1
        return 2 if found.test.spoils_l1_under else 0

    return sorted(tests, key=place)


def _says(method: object) -> str:
    """The first paragraph of its docstring, in one line; Avocado's directives are no sentence."""
    first = (inspect.getdoc(method) or "").partition("\n\n")[0]
    return "" if first.startswith(":avocado:") else " ".join(first.split())


def references(words: Sequence[str]) -> list[str]:
    """What Avocado takes for the tests that ``words`` name: files of tests/injection with or
    without `:Class` or `:Class.test_name`, or these alone. Nothing named: the folder.

    Raises UsageError for a word that names no system test.
    """
    found: dict[str, None] = {}
    for word in words:
        if not word.strip():
            raise UsageError("a test is empty", "is a variable not set? leave it out, or name one")
        found.update(dict.fromkeys(_references(word)))
    return list(found) or [str(checkout() / TESTS)]


def _references(word: str) -> list[str]:
    is_path = ".py" in word or "/" in word or Path(word).is_dir()
    file, colon, name = word.partition(":") if is_path else ("", "", word)
    place = _place(file) if file else None
    if place and not colon and place in (_FOLDER, _FOLDER.parent):
        return [str(_FOLDER)]
    chosen = [
        test.reference
        for test in known_tests().values()
        if place in (None, Path(test.reference.rpartition(":")[0]))
        and (not (name or colon) or name in (test.sentence, test.sentence.partition(".")[0]))
    ]
    if not chosen:
        raise UsageError(f"{word} is not a system test", _which(word, file, place, name))
    return chosen


def _place(file: str) -> Path:
    """Seen from here, or else from the checkout."""
    here = path_of(file)
    return (here if here.exists() else checkout() / file).resolve()


def _which(word: str, file: str, place: Path | None, name: str) -> str:
    """A hint: the name that is most like what was asked for."""
    if place and place.exists() and _FOLDER not in place.parents:
        return f"system tests are the files of {TESTS} in the checkout; {file} is not one of them"
    if place and place.exists():
        inside = [t.sentence for t in known_tests().values() if f"{place}:" in t.reference]
        return nearest(name, inside)
    if file:
        return nearest(word, [f"{TESTS}/{one.name}" for one in sorted(_FOLDER.glob("*.py"))])
    classes = [sentence.partition(".")[0] for sentence in known_tests()]
    return nearest(word, dict.fromkeys(classes if "." not in word else known_tests()))


def test_named(sentence: str) -> KnownTest:
    """Raises KernelSpecError for a test that is not there."""
    tests = known_tests()
    if sentence not in tests:
        raise KernelSpecError(f"there is no test {sentence}", f"known: {', '.join(tests)}")
    return tests[sentence]
