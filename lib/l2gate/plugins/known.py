"""Where each system test is, and whether it needs an L1: asked of the tests themselves."""

from __future__ import annotations

import importlib.util
import inspect
from dataclasses import dataclass
from functools import cache

from l2gate.errors import KernelSpecError
from l2gate.job import TESTS
from l2gate.plugins.systemtest import SystemTest
from l2gate.settings import checkout


@dataclass(frozen=True)
class KnownTest:
    """``reference`` is what Avocado takes, ``says`` what the test says of itself; it may be
    empty."""

    sentence: str
    reference: str
    contract: str
    needs_l1: bool
    says: str

    @property
    def about(self) -> dict[str, str | bool]:
        """For the timeline; ``place`` is seen from the checkout."""
        place = self.reference.removeprefix(f"{checkout()}/")
        told: dict[str, str | bool] = {"place": place, "says": self.says}
        return told | {"contract": self.contract, "needs_l1": self.needs_l1}


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
                            method.contract,
                            method.needs_l1,
                            _says(method),
                        )
    return found


def _says(method: object) -> str:
    """The first paragraph of its docstring, in one line."""
    return " ".join((inspect.getdoc(method) or "").partition("\n\n")[0].split())


def test_named(sentence: str) -> KnownTest:
    """Raises KernelSpecError for a test that is not there."""
    tests = known_tests()
    if sentence not in tests:
        raise KernelSpecError(f"there is no test {sentence}", f"known: {', '.join(tests)}")
    return tests[sentence]
