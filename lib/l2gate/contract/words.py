# SPDX-License-Identifier: MIT
"""The language of cases: the words for the helper, read from the helper's own list of them.

lib/helper/words.def is that list. The helper is compiled with it, and `l2gate-helper words` prints
it again (tests/unit/test_words.py holds the two against each other).
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from l2gate.foundation.errors import CaseTableError
from l2gate.foundation.settings import checkout

FILE = checkout() / "lib/helper/words.def"
#: In what a word takes: any number.
ANY_NUMBER = "N"

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')
_ENTRY = re.compile(r'^(CONSTANT|VALUE|WORD)\(((?:[^()"]|"(?:[^"\\]|\\.)*")*)\)', re.MULTILINE)
_DIRECTIVE = re.compile(r"^#.*$", re.MULTILINE)
_ROLES = ("SENT", "SCENE")


@dataclass(frozen=True)
class Word:
    """One word of a case.

    ``takes`` has the texts that it takes, ANY_NUMBER standing for any; ``default`` is the one that
    holds where a case does not say the word. ``sent``: it is about what userspace hands to KVM.
    """

    name: str
    takes: tuple[str, ...]
    default: str
    sent: bool
    meaning: str

    def may_be(self, value: str) -> bool:
        """Whether the helper takes that value."""
        number = _number(value)
        if number is None:
            return value in self.takes and value != ANY_NUMBER
        return ANY_NUMBER in self.takes or number in map(_number, self.takes)


@dataclass(frozen=True)
class Language:
    """All words by their names, in the order of the list, and the constants of both sides."""

    words: Mapping[str, Word]
    constants: Mapping[str, int]

    @property
    def sent(self) -> tuple[str, ...]:
        """The names of what userspace hands to KVM."""
        return tuple(word.name for word in self.words.values() if word.sent)

    def defaults(self, *names: str) -> dict[str, str]:
        """The defaults of these words. Raises KeyError for a word that there is not."""
        return {name: self.words[name].default for name in names}


def read(text: str, path: str = "") -> Language:
    """The language that ``text`` lists. Raises CaseTableError for an entry that cannot be read."""
    constants: dict[str, int] = {}
    values: dict[str, str] = {}
    words: dict[str, Word] = {}
    for kind, parts in _entries(text, path or "words.def"):
        match kind, parts:
            case "CONSTANT", [name, digits, _] if (number := _number(digits)) is not None:
                constants[name] = number
            case "VALUE", [name, _, value]:
                values[name] = value
            case "WORD", [name, takes, default, role, meaning] if role in _ROLES:
                said = values.get(default) or _plain(constants.get(default, default))
                word = Word(name, tuple(takes.split("|")), said, role == "SENT", meaning)
                if name in words or not word.may_be(said):
                    raise _broken(path, f"{name} is there twice, or cannot be {said}")
                words[name] = word
            case _:
                raise _broken(path, f"cannot read {kind}({', '.join(parts)})")
    return Language(words, constants)


def _entries(text: str, path: str) -> Iterator[tuple[str, list[str]]]:
    text = _DIRECTIVE.sub("", _COMMENT.sub("", text))
    for found in _ENTRY.finditer(text):
        yield found[1], [_part(part) for part in _split(found[2])]
    if rest := _ENTRY.sub("", text).strip():
        raise _broken(path, f"cannot read {rest.splitlines()[0]}")


def _split(arguments: str) -> list[str]:
    """A macro's arguments: at its commas, but not at those within texts."""
    hidden = _TEXT.sub(lambda text: "x" * len(text[0]), arguments)
    cuts = [-1, *(at for at, char in enumerate(hidden) if char == ","), len(arguments)]
    return [arguments[a + 1 : b].strip() for a, b in itertools.pairwise(cuts)]


def _part(argument: str) -> str:
    """An argument: a bare word, or texts that C puts together."""
    if not argument.startswith('"'):
        return argument
    return "".join(ast.literal_eval(text) for text in _TEXT.findall(argument))


def _plain(value: int | str) -> str:
    """A number as a case writes it."""
    number = value if isinstance(value, int) else _number(value)
    if number is None:
        return str(value)
    return str(number) if number < 10 else f"{number:#x}"


def _number(text: str) -> int | None:
    try:
        return int(text, 0)
    except ValueError:
        return None


def _broken(path: str, why: str) -> CaseTableError:
    return CaseTableError(f"{path or FILE}: {why}", "its first comment says how it is written")


LANGUAGE = read(FILE.read_text(), str(FILE))
