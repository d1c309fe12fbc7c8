"""Where each system test is, and whether it needs an L1: asked of the tests themselves."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache

from l2gate.errors import KernelSpecError
from l2gate.job import TESTS
from l2gate.plugins.systemtest import SystemTest
from l2gate.settings import checkout


@dataclass(frozen=True)
class KnownTest:
    """``reference`` is what Avocado takes."""

    sentence: str
    reference: str
    contract: str
    needs_l1: bool


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
                            sentence, f"{file}:{sentence}", method.contract, method.needs_l1
                        )
    return found


def places() -> dict[str, str]:
    """Where each test is, seen from the checkout."""
    root = f"{checkout()}/"
    return {test.sentence: test.reference.removeprefix(root) for test in known_tests().values()}


def test_named(sentence: str) -> KnownTest:
    """Raises KernelSpecError for a test that is not there."""
    tests = known_tests()
    if sentence not in tests:
        raise KernelSpecError(f"there is no test {sentence}", f"known: {', '.join(tests)}")
    return tests[sentence]
