# SPDX-License-Identifier: MIT
"""The rooms of the package: data goes forward through them, so no import points back up, and no
module needs itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Set
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import l2gate
import pytest

PACKAGE = Path(l2gate.__file__).parent

#: From the ground up: a room may import itself and those before it.
ORDER = (
    "foundation",
    "vendors",
    "contract",
    "records",
    "transport",
    "kernels",
    "images",
    "hosts",
    "guests",
    "bench",
    "injection",
    "testing",
    "report",
    "jobs",
    "plugins",
    "matrix",
    "verbs",
    "cli",
    "__main__",
)
#: Arrows back up that are there for now, as (module, what it imports).
EXCEPTIONS: frozenset[tuple[str, str]] = frozenset()

Graph = Mapping[str, Set[str]]


def modules(package: Path) -> dict[str, Path]:
    """Each module by its name inside the package; a folder's own is named as the folder."""
    found = {}
    for file in package.rglob("*.py"):
        words = file.relative_to(package).with_suffix("").parts
        found[".".join(words[:-1] if words[-1] == "__init__" else words)] = file
    return found


def imported(tree: ast.AST, known: Set[str], package: str) -> Iterator[str]:
    """The package's modules that a module imports, wherever in it: in a function, too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            inside = name.removeprefix(f"{package}.")
            if inside == name:
                continue
            while inside and inside not in known:
                inside = inside.rpartition(".")[0]
            if inside:
                yield inside


def graph(package: Path) -> Graph:
    found = modules(package)
    return {
        name: set(imported(ast.parse(file.read_text()), found.keys(), package.name)) - {name}
        for name, file in found.items()
    }


def back_up(arrows: Graph, order: tuple[str, ...]) -> set[tuple[str, str]]:
    """The imports that point from a room to a later one."""
    at = {room: number for number, room in enumerate(order)}
    return {
        (module, target)
        for module, targets in arrows.items()
        for target in targets
        if module and at[module.partition(".")[0]] < at[target.partition(".")[0]]
    }


def cycle(arrows: Graph) -> list[str]:
    """A way from a module to itself; empty if there is none."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_module_is_in_a_room() -> None:
    rooms = {name.partition(".")[0] for name in modules(PACKAGE) if name}
    assert rooms == set(ORDER)


def test_no_import_points_back_up() -> None:
    assert back_up(graph(PACKAGE), ORDER) == EXCEPTIONS


def test_no_module_needs_itself() -> None:
    assert cycle(graph(PACKAGE)) == []


@pytest.fixture
def house(tmp_path: Path) -> Path:
    package = tmp_path / "house"
    for name, text in {
        "low/a.py": "from house.low import b\n",
        "low/b.py": "import json\n",
        "high/c.py": "def f():\n    from house.low.a import thing\n",
    }.items():
        file = package / name
        file.parent.mkdir(parents=True, exist_ok=True)
        (file.parent / "__init__.py").touch()
        file.write_text(text)
    return package


def test_a_house_in_order_is_taken_for_one(house: Path) -> None:
    found = graph(house)
    assert (found["low.a"], found["high.c"]) == ({"low.b"}, {"low.a"})
    assert not back_up(found, ("low", "high")) and not cycle(found)


@pytest.mark.parametrize("line", ["import house.high.c", "from house.high import c",
                                  "def f():\n    from house.high.c import f"])  # fmt: skip
def test_an_arrow_back_up_and_a_cycle_are_seen(house: Path, line: str) -> None:
    (house / "low/b.py").write_text(f"{line}\n")
    found = graph(house)
    assert back_up(found, ("low", "high")) == {("low.b", "high.c")}
    assert {"low.a", "low.b", "high.c"} <= set(cycle(found))
