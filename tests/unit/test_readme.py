# SPDX-License-Identifier: MIT
"""The README files say what the code has: options, paths, hosts, verbs, exit codes, files."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from l2gate.cli import VERBS
from l2gate.contract import table
from l2gate.foundation import cache
from l2gate.foundation.debian import SUITES
from l2gate.foundation.errors import UsageError
from l2gate.foundation.settings import AUTO, BY_NAME, OPTIONS, checkout
from l2gate.hosts import kinds
from l2gate.kernels.spec import VARIANTS
from l2gate.plugins.known import known_tests
from l2gate.report.result import EXIT_CODES
from test_sources import files

READMES = ("README.md", "lib/README.md", "tests/README.md", "images/README.md")
MAIN, LIB, TESTS, IMAGES = ((checkout() / name).read_text() for name in READMES)
MAKEFILE = (checkout() / "Makefile").read_text()


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table whose heading line begins with ``heading``."""
    _, there, rest = text.partition(f"\n| {heading}")
    assert there, f"no table {heading}"
    lines = [line for line in rest.partition("\n\n")[0].splitlines()[2:] if line.startswith("|")]
    return [[cell.strip() for cell in line[1:].rstrip("|").split("|")] for line in lines]


def words(cell: str) -> list[str]:
    """What stands in backquotes."""
    return re.findall(r"`([^`]+)`", cell)


def make_variables() -> set[str]:
    """All that the Makefile's goals take."""
    taken = re.findall(r"^(?:JOB|TAKES_[\w-]+) := (.*)$", MAKEFILE, re.M)
    return set(" ".join(taken).replace("$(JOB)", "").split())


def make_targets() -> set[str]:
    phony = re.search(r"^\.PHONY: ((?:.*\\\n)*.*)$", MAKEFILE, re.M)
    assert phony
    return set(phony[1].replace("\\\n", " ").split())


# --- README.md: what is asked for and what comes back ---------------------------------------------


def test_each_option_has_its_row() -> None:
    named = [row[0] for row in rows(MAIN, "setting |")]
    assert sorted(named) == sorted(option.name for option in OPTIONS)


@pytest.mark.parametrize("row", rows(MAIN, "setting |"), ids=lambda row: row[0])
def test_an_option_s_row_is_true(row: list[str]) -> None:
    option = BY_NAME[row[0]]
    flags = [word for word in words(row[1]) if word.startswith("--")]
    assert flags == [option.flag]
    variables = [word.removesuffix("=") for word in words(row[1]) if word.endswith("=")]
    mine = make_variables() & {option.name.upper()}
    assert set(variables) == mine
    named = set(words(row[2]))
    assert set(option.choices) <= named
    if option.choices:
        assert named <= {*option.choices}, "a choice that the option does not take"


def test_every_variable_that_make_takes_is_named() -> None:
    named = {word for text in (MAIN, LIB) for word in re.findall(r"`([A-Z0-9_]+)=[^`]*`", text)}
    assert make_variables() | {"PYTHON"} == named


def test_the_exit_codes_are_those_of_the_code() -> None:
    table_ = rows(MAIN, "verdict | meaning")
    verdicts = {words(row[0])[0]: int(row[-1]) for row in table_ if words(row[0])}
    assert verdicts == {verdict.value: code for verdict, code in EXIT_CODES.items()}
    (usage,) = [row for row in table_ if row[-1] == str(UsageError.exit_code)]
    assert usage[1].startswith("usage error")


def test_each_kind_of_host_has_its_row() -> None:
    named = [words(row[0])[0] for row in rows(MAIN, "`--host`")]
    with pytest.raises(UsageError) as refused:
        kinds.find("no such host")
    offered = refused.value.hint.rpartition("use one of: ")[2].split(", ")
    assert set(named) == {*offered} - {AUTO}


def test_each_series_and_variant_of_kernels_is_named() -> None:
    named = {word for row in rows(MAIN, "spec |") for word in words(row[0]) + words(row[1])}
    assert {f"debian:{suite.series}" for suite in SUITES} <= named
    assert {f"debian:6.12+{variant}" for variant in VARIANTS} <= named


# --- lib/README.md --------------------------------------------------------------------------------


def test_each_verb_and_each_target_has_its_place() -> None:
    table_ = rows(LIB, "`l2gate` |")
    verbs = sorted(word for row in table_ for word in words(row[0]))
    assert verbs == sorted(verb.name for verb in VERBS)
    targets = {word for row in table_ for word in words(row[1]) if not word.endswith("=")}
    assert targets == make_targets()


def test_the_ways_of_injecting_are_those_that_path_offers() -> None:
    named = {words(row[0])[0] for row in rows(LIB, "path | on")}
    assert named == {*BY_NAME["path"].choices} - {"all"}


def test_each_verb_of_the_helper_is_told() -> None:
    source = (checkout() / "lib/helper/main.c").read_text()
    named = sorted(words(row[0])[0] for row in rows(LIB, "verb | where"))
    assert named == sorted(re.findall(r'\{ "(\w+)", verb_', source))


# --- tests/README.md, images/README.md ------------------------------------------------------------


def test_each_system_test_has_its_sentence() -> None:
    named = {words(row[0])[0] for row in rows(TESTS, "file | sentence")}
    assert named == {str(test.about.place).partition(":")[0] for test in known_tests().values()}


def test_the_row_that_is_shown_can_be_read() -> None:
    (shown,) = re.findall(r"```\n(contract .*?)```", TESTS, re.S)
    cases = table.parse("shown", shown).cases
    assert [case.vector for case in cases] == [0, 5, 6, 7]


def test_each_kind_of_entry_of_the_cache_is_told() -> None:
    named = {word for row in rows(IMAGES, "entry |") for word in words(row[0])}
    assert named == {*cache.KINDS}


# --- all of them ----------------------------------------------------------------------------------

PATH = re.compile(r"^[\w.-]+(/[\w.-]*)+$|^[\w-]+\.(py|md|txt|patch|config|c|h|cfg)$")
#: Places on a host, and what a person has.
ELSEWHERE = re.compile(r"^(boot|lib/modules|build|\.)/|SERIES")


@pytest.mark.parametrize("readme", READMES)
def test_what_a_readme_names_is_there(readme: str) -> None:
    """A path is seen from the checkout, from lib/l2gate or from the file itself; a name alone is
    that of a file anywhere."""
    text = re.sub(r"```.*?```", "", (checkout() / readme).read_text(), flags=re.S)
    named = [word for word in words(text) if PATH.match(word) and not ELSEWHERE.search(word)]
    assert named or readme == "README.md"
    for name in named:
        bases = (checkout(), checkout() / "lib/l2gate", (checkout() / readme).parent)
        found = any((base / name).exists() for base in bases)
        found = found or ("/" not in name and name in {file.name for file in files()})
        assert found, f"{readme} names {name}, which is not there"


def typed(text: str) -> str:
    """What stands in blocks and backquotes, each on a line of its own."""
    blocks = re.findall(r"```\n(.*?)```", text, re.S)
    return "\n".join([*blocks, *words(re.sub(r"```.*?```", "", text, flags=re.S))])


@pytest.mark.parametrize("readme", READMES)
def test_what_a_readme_types_is_a_command(readme: str) -> None:
    """Verbs and their options, and what make takes: asked of themselves."""
    text = (checkout() / readme).read_text()
    verbs = {verb.name for verb in VERBS}
    for verb in re.findall(r"(?:^|`|bin/)l2gate ([a-z][\w-]*)", typed(text), re.M):
        assert verb in verbs, f"{readme}: l2gate {verb}"
    for target in re.findall(r"(?:^|`)make ([a-z][\w-]*)", typed(text), re.M):
        assert target in make_targets() | {"install"}, f"{readme}: make {target}"


@pytest.mark.parametrize("verb", [verb.name for verb in VERBS])
def test_the_options_that_are_shown_with_a_verb_are_its_own(verb: str) -> None:
    shown = {
        flag
        for name in READMES
        for line in re.findall(rf"l2gate {verb}\b([^`\n|]*)", (checkout() / name).read_text())
        for flag in re.findall(r"(?<=\s)--[a-z-]+", line)
    }
    done = subprocess.run(
        [sys.executable, "-m", "l2gate", verb, "--help"], capture_output=True, text=True, check=True
    )
    assert shown <= set(re.findall(r"--[a-z-]+", done.stdout))
