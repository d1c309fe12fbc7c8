# SPDX-License-Identifier: MIT
"""The table of expected outcomes, made from the case tables' own text."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from l2gate.contract import eras
from l2gate.contract import table as tables
from l2gate.contract.paths import ALL
from l2gate.contract.table import Case, Row, Table
from l2gate.vendors import vendors


@dataclass(frozen=True)
class Known:
    """What is known of the platform that cases are held on (`Platform`); None: not known."""

    format: str | None = None
    soft_exceptions: bool | None = None
    steps: eras.Has = field(default_factory=dict)

    def may_hold(self, case: Case) -> bool:
        """Whether the case is not known to be about another host or kernel."""
        return self._where(case.where) and eras.may_be(case.era, self.steps)

    def _where(self, where: str) -> bool:
        if where == "any" or self.format is None:
            return True
        soft = self.soft_exceptions is not False
        return where in vendors.named(self.format).wheres(soft=soft, coded=True)


@dataclass(frozen=True)
class Expectation:
    """One table's rows under a contract."""

    table: Table
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        return self.table.header.partition("\n")[0]

    @property
    def proves(self) -> str:
        """The header's paragraph of that name."""
        text = self.table.header.partition("Proves: ")[2].partition("\n\n")[0]
        return " ".join(text.split())

    @property
    def cases(self) -> int:
        return sum(len(row.cases) for row in self.rows)

    def lines(self) -> Iterator[str]:
        """The rows as text: those with the same `given` and columns in one block."""
        for (given, columns), rows in itertools.groupby(self.rows, lambda r: (r.given, r.columns)):
            if given:
                yield f"given {' '.join(given)}"
            yield from _aligned([columns, *(_cells(row) for row in rows)])

    def to_json(self) -> dict[str, Any]:
        return {
            "table": self.table.name,
            "title": self.title,
            "proves": self.proves,
            "cases": self.cases,
            "rows": [_row_json(row) for row in self.rows],
        }


def expected(contract: str, known: Known, path: str = ALL) -> tuple[Expectation, ...]:
    """What each table expects under ``contract``, by ``path``, on such a platform.

    Raises CaseTableError for a table that cannot be read.
    """
    found = []
    for table in tables.all_tables():
        rows = [replace(row, cases=_chosen(row, contract, known, path)) for row in table.rows]
        if held := tuple(row for row in rows if row.cases):
            found.append(Expectation(table, held))
    return tuple(found)


def legend() -> str:
    """What the columns and cells mean, in the words of the tables' own definition."""
    return (tables.__doc__ or "").partition("A row has one cell")[2].partition(". ")[2].strip()


def _chosen(row: Row, contract: str, known: Known, path: str) -> tuple[Case, ...]:
    """The row's cases that would be asked."""
    return tuple(
        case
        for case in row.cases
        if case.contract == contract and known.may_hold(case) and path in (ALL, case.path)
    )


def _cells(row: Row) -> tuple[str, ...]:
    cut = row.columns.index("=>")
    return (*row.cells[:cut], "=>", *row.cells[cut:])


def _aligned(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (f"{cell:{width}}" for cell, width in zip(line, widths, strict=True))
        yield f"  {'  '.join(cells)}".rstrip()


def _row_json(row: Row) -> dict[str, Any]:
    cut = row.columns.index("=>")
    asked = dict(zip(row.columns[:cut], row.cells, strict=False))
    expected = dict(zip(row.columns[cut + 1 :], row.cells[cut:], strict=True))
    given = dict(word.split("=", 1) for word in row.given)
    first = row.cases[0]
    for taken in ("name", "where", "era", "since"):
        asked.pop(taken, None)
    return {
        "name": first.name,
        "line": first.line,
        "where": first.where,
        "era": first.era,
        "since": first.since,
        "asked": given | {word: cell for word, cell in asked.items() if cell != "-"},
        "expected": {column: cell for column, cell in expected.items() if cell != "-"},
        "cases": len(row.cases),
    }
