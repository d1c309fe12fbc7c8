# SPDX-License-Identifier: MIT
"""What is installed: each version is named, each file known by its hash."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib

import pytest
from l2gate.foundation.settings import checkout

ASKED = checkout() / "requirements.txt"
LOCK = checkout() / "requirements-lock.txt"
OURS = {"l2gate", "asking", "tests"}


def canonical(name: str) -> str:
    """A project's name as an index spells it (PyPA: name normalization)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def asked() -> dict[str, str]:
    """Version by name, as requirements.txt has them."""
    plain = re.sub(r"#.*", "", ASKED.read_text()).split()
    return {canonical(name): wanted for name, _, wanted in (x.partition("==") for x in plain)}


def locked() -> dict[str, str]:
    """The stanza of each name in the lock: its version, its hashes, and who wants it."""
    stanzas = re.split(r"^(?=[a-z])", LOCK.read_text(), flags=re.M)[1:]
    return {canonical(stanza.partition("==")[0]): stanza for stanza in stanzas}


def version(stanza: str) -> str:
    return re.split(r"[ ;\\\n]", stanza.partition("==")[2], maxsplit=1)[0]


def imported() -> set[str]:
    """The top-level modules that our code imports and that are neither ours nor Python's."""
    found: set[str] = set()
    for file in [*(checkout() / "lib/l2gate").rglob("*.py"), *(checkout() / "tests").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    beside = {file.stem for file in (checkout() / "tests").rglob("*.py")}
    return found - OURS - beside - set(sys.stdlib_module_names)


def test_the_lock_has_what_is_asked_for() -> None:
    stanzas = locked()
    assert {name: version(stanzas.get(name, "")) for name in asked()} == asked(), "run `make lock`"


def test_the_lock_has_nothing_that_nobody_wants() -> None:
    for name, stanza in locked().items():
        wanted_by = re.findall(r"^ +# +(?:via )?([\w.-]+)", stanza.replace("-r ", ""), re.M)
        known = {canonical(one) for one in wanted_by} - {"via"}
        assert known <= {*locked(), canonical(ASKED.name)}, f"{name}: run `make lock`"
        assert (canonical(ASKED.name) in known) == (name in asked()), f"{name}: run `make lock`"


def test_each_file_is_known_by_its_hash() -> None:
    for name, stanza in locked().items():
        assert re.fullmatch(r"[\w.!+]+", version(stanza)), name
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", stanza), name


def test_the_lock_names_no_index() -> None:
    words = re.findall(r"^ *--(?!hash)\S+|\w+://\S+", LOCK.read_text(), re.M)
    assert words == []


def test_what_is_imported_is_asked_for() -> None:
    brings = importlib.metadata.packages_distributions()
    for module in imported():
        names = {canonical(name) for name in brings.get(module, [])}
        assert names & set(asked()), f"import {module}: requirements.txt does not name it"


def test_what_builds_the_project_is_what_is_installed() -> None:
    project = tomllib.loads((checkout() / "lib/pyproject.toml").read_text())
    assert project["build-system"]["requires"] == [f"setuptools=={asked()['setuptools']}"]


@pytest.mark.parametrize("name", sorted(asked()))
def test_what_is_installed_is_what_is_asked_for(name: str) -> None:
    assert importlib.metadata.version(name) == asked()[name], "run `make venv`"


def test_avocado_starts_without_a_word() -> None:
    """setuptools from 80.9 on complains, to whoever runs Avocado, of what Avocado imports."""
    words = [sys.executable, "-m", "avocado", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
