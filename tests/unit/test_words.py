# SPDX-License-Identifier: MIT
"""The words of a case: what Python reads of lib/helper/words.def is what the helper says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from l2gate.contract import table, words
from l2gate.foundation.errors import CaseTableError

VALUES = 'VALUE(NONE, 0, "none")\nVALUE(YES, 1, "yes")\nCONSTANT(RESET, 0x400, "a, b")\n'


def says(helper: Path, *arguments: str) -> str:
    return subprocess.run([helper, *arguments], text=True, capture_output=True, check=True).stdout


def test_the_helper_and_python_know_the_same_words(helper: Path) -> None:
    said: list[dict[str, Any]] = [json.loads(line) for line in says(helper, "words").splitlines()]
    constants = {one["name"]: int(one["value"], 0) for one in said if one["type"] == "constant"}
    told = [
        words.Word(o["name"], tuple(o["takes"]), o["default"], o["sent"], o["meaning"])
        for o in said
        if o["type"] == "word"
    ]
    assert constants == words.LANGUAGE.constants
    assert told == list(words.LANGUAGE.words.values())
    assert len(said) == len(constants) + len(told)


def test_the_helper_explains_each_word(helper: Path) -> None:
    text = says(helper, "help", "cases")
    for word in words.LANGUAGE.words.values():
        head = f"  {word.name}={'|'.join(word.takes)} [{word.default}]\n      {word.meaning}\n"
        assert head in text


def test_no_table_says_what_the_helper_would_refuse() -> None:
    quirks = [table.load(path.stem, table.QUIRKS) for path in table.QUIRKS.glob("*.txt")]
    for case in (case for one in (*table.all_tables(), *quirks) for case in one.cases):
        for word, value in case.words.items():
            assert words.LANGUAGE.words[word].may_be(value), f"{case.table}:{case.line}"


@pytest.mark.parametrize(
    ("takes", "value", "taken"),
    [
        ("none|N", "none", True),
        ("none|N", "0x10", True),
        ("none|N", "N", False),
        ("none|N", "", False),
        ("none|N", "yes", False),
        ("0|1", "0x1", True),
        ("0|1", "2", False),
        ("no|yes", "yes", True),
        ("no|yes", "1", False),
    ],
)
def test_a_word_takes_what_its_list_says(takes: str, value: str, taken: bool) -> None:
    assert words.Word("x", tuple(takes.split("|")), "", True, "").may_be(value) is taken


def test_defaults_are_told_as_a_case_would_say_them() -> None:
    language = words.read(
        VALUES
        + 'WORD(a, "none|N", NONE, SENT, "one " "two")  /* a comment, ) */\n'
        + 'WORD(b, "N", RESET, SCENE,\n     "x (y), z")\nWORD(c, "N", 7, SCENE, "")\n'
    )
    assert language.defaults("a", "b", "c") == {"a": "none", "b": "0x400", "c": "7"}
    assert language.sent == ("a",)
    assert language.words["a"].meaning == "one two"
    assert language.words["b"].meaning == "x (y), z"
    assert language.constants == {"RESET": 0x400}


@pytest.mark.parametrize(
    "entry",
    [
        'WORD(a, "yes|no", NONE, SENT, "a default that it does not take")',
        'WORD(a, "yes|no", SENT, "a part is missing")',
        'WORD(a, "yes|no", YES, ELSEWHERE, "no such role")',
        'WORD(a, "yes", YES, SENT, "") WORD(b',
        'WORD(a, "yes", YES, SENT, "")\nWORD(a, "yes", YES, SENT, "")',
        'CONSTANT(A, zero, "no number")',
        "OTHER(a)",
    ],
)
def test_an_entry_that_cannot_be_read_is_refused(entry: str) -> None:
    with pytest.raises(CaseTableError):
        words.read(VALUES + entry)
