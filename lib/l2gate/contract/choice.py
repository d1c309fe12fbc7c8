# SPDX-License-Identifier: MIT
"""Which cases are asked: all, or those with certain words (`--case`), and their controls. What a
control is stands here, once (`is_control`).

A case's words are those of its table (l2gate/contract/table.py), and `contract`, `table`, `line`
and `case` (its name) of the row that it is from. One on QEMU's own vCPU has `path`, `vector`,
`code`, `injected`, `repeat` and `active`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from l2gate.contract.case_result import CaseResult, TableCase
from l2gate.contract.table import SENT, WORDS, Case, all_tables
from l2gate.contract.words import LANGUAGE
from l2gate.foundation.errors import UsageError
from l2gate.foundation.settings import BY_NAME, nearest

Words = Mapping[str, str]

#: Of the row that a case is from, and what cases on QEMU's vCPU alone have.
_OWN = ("contract", "table", "line", "case", "repeat")
#: What the helper takes where a case does not say it. Cases on QEMU's vCPU are of the refuse
#: contract.
_DEFAULTS = {
    "contract": "refuse",
    **LANGUAGE.defaults("path", "vector", "code", "injected", "pending", "payload", "active"),
}


@dataclass(frozen=True)
class Choice:
    """``text`` is as it was asked for, empty for all cases."""

    text: str
    words: Words

    def takes(self, case: Words) -> bool:
        """Whether the case has all of the words."""
        return all(_same(_value(case, word), value) for word, value in self.words.items())

    def of(self, cases: Sequence[Case]) -> list[Case]:
        """The chosen ones of ``cases``, and those that are controls of one."""
        if not self.words:
            return list(cases)
        told = [words_of_row(case) for case in cases]
        chosen = [words for words in told if self.takes(words)]
        return [
            case
            for case, words in zip(cases, told, strict=True)
            if self.takes(words) or any(is_control(words, one) for one in chosen)
        ]

    def asks(self, case: Words) -> bool:
        """Whether the case is chosen, or is the control of one that may be."""
        if self.takes(case) or not self.words:
            return True
        if _value(case, "active") == "L1":
            like: tuple[str, ...] = _EXCEPTION
            free: tuple[str, ...] = ("active", "repeat")
        elif _nothing_is_asked(case):
            like, free = _PLACE, ("repeat",)
        else:
            return False
        rest = {
            word: value
            for word, value in self.words.items()
            if word not in free and (word in like or word not in SENT)
        }
        return Choice(self.text, rest).takes(case)


def parse(text: str) -> Choice:
    """The choice in `word=value word=value`. Raises UsageError for a word that no case has."""
    words: dict[str, str] = {}
    for part in text.split():
        word, equals, value = part.partition("=")
        if not equals or not value or word not in (*_OWN, *WORDS):
            raise UsageError(
                f"case = {text!r}: {part} is not a word of a case",
                f"write word=value; {nearest(word, (*_OWN, *sorted(WORDS)))}",
            )
        if not _same(words.setdefault(word, value), value):
            raise UsageError(
                f"case = {text!r}: no case has {word}={words[word]} and {word}={value}",
                f"name {word} once",
            )
    return Choice(text, words)


def refuse_impossible(choice: Choice) -> None:
    """Raises UsageError for a choice that no case can have: an unknown table, a line without a
    row, a value that stands in no table, or words that exclude each other."""
    if not choice.words:
        return
    known = [words_of_row(case) for table in all_tables() for case in table.cases]
    tests = set(choice.words) <= _ON_QEMU and _fits_qemu(choice.words)
    if tests or any(choice.takes(case) for case in known):
        return
    taken: dict[str, str] = {}
    for word, value in sorted(choice.words.items(), key=lambda one: _ORDER.get(one[0], 9)):
        fitting = [case for case in known if Choice("", taken).takes(case)]
        taken[word] = value
        if not any(Choice("", taken).takes(case) for case in fitting):
            values = dict.fromkeys(_value(case, word) for case in fitting)
            among = " ".join(f"{w}={v}" for w, v in taken.items() if w != word)
            raise UsageError(
                f"case = {choice.text!r}: no case{f' with {among}' if among else ''} has "
                f"{word}={value}",
                nearest(value, [one for one in values if one]),
            )


#: What cases on QEMU's own vCPU have (injection/paths and its tests), and their values.
_ON_QEMU = {"path", "vector", "code", "injected", "repeat", "active"}
#: The order in which words narrow the cases down, so that a hint names what is possible.
_ORDER = {"table": 0, "line": 1, "case": 2, "contract": 3}


def _fits_qemu(words: Words) -> bool:
    """Whether a test on QEMU's own vCPU may ask such a case."""
    return (
        words.get("active", "L2") in ("L1", "L2")
        and words.get("injected", "1") in ("0", "1")
        and _is_number(words.get("vector", "0"), 32)
        and _is_number(words.get("repeat", "1"), 10**6)
        and (words.get("code", "none") == "none" or _is_number(words["code"], 2**32))
        and words.get("path", "vcpu-events") in BY_NAME["path"].choices
    )


def _is_number(text: str, below: int) -> bool:
    try:
        return 0 <= int(text, 0) < below
    except ValueError:
        return False


#: What a control has in common with the case that it is of: the exception, where it is the same
#: sent while L1 is active; the path and the vector, where it is injected=0 while L2 is active.
_EXCEPTION = ("path", "vector", "code", "injected", "payload")
_PLACE = ("path", "vector")


def is_control(one: Words, of: Words) -> bool:
    """Whether without ``one`` the other would say nothing of L2: the same sent while L1 is active,
    or, where it is refused, the same struct with injected=0."""
    if one.get("table") != of.get("table"):
        return False
    if _value(one, "active") == "L1":
        return exception_of(one) == exception_of(of)
    asks = _value(of, "injected") == "1"
    return asks and _nothing_is_asked(one) and place_of(one) == place_of(of)


def exception_of(case: Words) -> tuple[str, ...]:
    """The exception that userspace injects, and the path."""
    return _plain(case, _EXCEPTION)


def place_of(case: Words) -> tuple[str, ...]:
    """The path and the vector."""
    return _plain(case, _PLACE)


def sent_of(case: Words) -> tuple[str, ...]:
    """All that userspace hands to KVM, whoever is active and whatever L1 intercepts."""
    return _plain(case, SENT)


def _plain(case: Words, words: Sequence[str]) -> tuple[str, ...]:
    """The values of those words, numbers in one way of writing."""
    return tuple(_number(_value(case, word)) for word in words)


def _number(text: str) -> str:
    try:
        return str(int(text, 0))
    except ValueError:
        return text


def words_of_row(case: Case) -> dict[str, str]:
    """The words of a case of a table."""
    row = {"contract": case.contract, "table": case.table, "line": str(case.line)}
    return {**row, "case": case.name, **case.words}


def words_of(case: CaseResult) -> dict[str, str]:
    """The words of a case of a result."""
    if isinstance(case, TableCase):
        asked = dict(part.partition("=")[::2] for part in case.asked.split())
        return {"table": case.table, "line": str(case.line), "case": case.case, **asked}
    return words_on_qemu(
        case.path, case.vector, case.error_code, case.injected, case.repeat, case.active_level
    )


def words_on_qemu(
    path: str, vector: int, error_code: int | None, injected: bool, repeat: int, active: str
) -> dict[str, str]:
    """The words of a case on QEMU's vCPU."""
    return {
        "path": path,
        "vector": str(vector),
        "code": "none" if error_code is None else f"{error_code:#x}",
        "injected": str(int(injected)),
        "repeat": str(repeat),
        "active": active,
    }


def telling(case: Words, others: Sequence[Words]) -> str:
    """The fewest words of ``case`` that none of ``others`` has all of, as `--case` takes them.

    ``case`` may be what several cases have in common (`l2gate/report/again.py`). All are of one
    result, so that a number is written in one way.
    """
    first = [word for word in ("table", "line") if word in case]
    first = first or [word for word in ("path", "vector", "active") if word in case]
    rivals = [one for one in others if all(_value(one, word) == case[word] for word in first)]
    words = list(first)
    for word in [w for w in case if w not in first]:
        left = [rival for rival in rivals if _value(rival, word) == case[word]]
        if len(left) < len(rivals):
            words.append(word)
            rivals = left
    return " ".join(f"{word}={case[word]}" for word in words)


def _nothing_is_asked(case: Words) -> bool:
    return (
        _value(case, "contract") == "refuse"
        and _value(case, "injected") == "0"
        and _value(case, "pending") == "0"
    )


def _value(case: Words, word: str) -> str:
    return case.get(word, _DEFAULTS.get(word, ""))


def _same(one: str, other: str) -> bool:
    return _number(one) == _number(other)
