# SPDX-License-Identifier: MIT
"""One page for many kernels: self-contained HTML, from what the matrix and the mutants found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from l2gate.contract.case_result import CaseResult, TableCase, TableProof, VcpuProof
from l2gate.contract.judge import Verdict
from l2gate.contract.vectors import name
from l2gate.foundation.files import write_whole
from l2gate.records.descriptions import Digest
from l2gate.report import again
from l2gate.report.again import Again
from l2gate.report.provenance import Provenance
from l2gate.report.result import Result
from l2gate.report.words import afterwards, what

_TEMPLATE = "page.html.j2"
#: Of a console that many lines are kept, its last ones.
_CONSOLE_LINES = 120
#: Of the cases behind one square that many are told in full, the ones that do not pass first.
_CASES_TOLD = 5
_WORST = (Verdict.FAIL, Verdict.INFRA_ERROR, Verdict.INCONCLUSIVE, Verdict.SKIP, Verdict.PASS)


@dataclass(frozen=True)
class PageRow:
    """One kernel on one host. ``result`` is that of its run (None: there is none),
    ``settings`` name host and kernel for the line that asks it again."""

    kernel: str
    host: str
    expected: str
    verdict: str
    as_expected: bool
    reason: str
    seconds: float
    settings: Mapping[str, str]
    result: Result | None = None
    #: What a reader should know of that kernel, such as what is broken in it.
    about: str = ""

    @property
    def contract(self) -> str:
        return self.result.contract.name if self.result and self.result.contract else "-"

    @property
    def asked(self) -> dict[str, str]:
        """All settings that the line which asks again has."""
        return {**(again.of_run(self.result) if self.result else {}), **self.settings}

    @property
    def again(self) -> str:
        return again.run_line(self.asked)

    @property
    def places(self) -> dict[str, str]:
        """Where each test is, seen from the checkout."""
        tests = self.result.tests if self.result else []
        return {test.name: test.place for test in tests if test.place}

    @property
    def digests(self) -> list[Digest]:
        """Of the kernel's image and of its patches."""
        told = self.result.provenance if self.result else None
        return [one for one in (told.image, *told.patches) if one] if told else []

    @property
    def squares(self) -> list[Square]:
        return squares(self)

    @property
    def consoles(self) -> dict[str, str]:
        return consoles(self.result.logs if self.result else "")


@dataclass(frozen=True)
class Square:
    """All cases of one vector by one path: the worst verdict, and the proof of some."""

    path: str
    vector: int
    verdict: str
    counts: str
    cases: tuple[ToldCase, ...]
    more: int

    @property
    def label(self) -> str:
        return name(self.vector)


@dataclass(frozen=True)
class Page:
    """What the page shows; ``provenance`` is of the whole."""

    title: str
    summary: str
    rows: Sequence[PageRow]
    provenance: Provenance


def write_page(page: Page, target: Path) -> None:
    """Whole or not at all."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    write_whole(target, environment.get_template(_TEMPLATE).render(page=page))


def squares(row: PageRow) -> list[Square]:
    """One for each path and vector of the row's cases."""
    cases = row.result.cases if row.result else []
    grouped: dict[tuple[str, int], list[CaseResult]] = {}
    for case in cases:
        grouped.setdefault((case.path, case.vector), []).append(case)
    lines = Again(row.asked, row.places, cases)
    return [_square(lines, path, vector, grouped[path, vector]) for path, vector in sorted(grouped)]


def _square(lines: Again, path: str, vector: int, cases: list[CaseResult]) -> Square:
    verdict = next(v for v in _WORST if any(case.verdict == v for case in cases))
    cases = _most_telling(cases)
    passed = sum(case.verdict == Verdict.PASS for case in cases)
    return Square(
        path,
        vector,
        verdict.value,
        f"{passed} of {len(cases)} pass",
        tuple(_told(case, lines.line([case])) for case in cases[:_CASES_TOLD]),
        max(0, len(cases) - _CASES_TOLD),
    )


def _most_telling(cases: list[CaseResult]) -> list[CaseResult]:
    """The worst first; among equals one of each test and row, and L2's before its controls."""
    order = {verdict: place for place, verdict in enumerate(_WORST)}
    seen: Counter[tuple[str, ...]] = Counter()
    ranks = []
    for case in sorted(cases, key=lambda case: case.active_level == "L1"):
        like = (
            case.test,
            str(case.line if isinstance(case, TableCase) else None),
            case.verdict,
            case.active_level,
        )
        ranks.append((order[case.verdict], seen[like], case.active_level, case))
        seen[like] += 1
    ranks.sort(key=lambda rank: (rank[0], rank[1], rank[2] == "L1"))
    return [case for *_, case in ranks]


@dataclass(frozen=True)
class ToldCase:
    """What the page says of one case; ``proof`` by what it is about."""

    verdict: str
    what: str
    reason: str
    seen: str
    proof: Mapping[str, str]
    alive: str
    deviations: Sequence[str]
    again: str


def _told(case: CaseResult, line: str) -> ToldCase:
    return ToldCase(
        verdict=case.verdict.value,
        what=what(case),
        reason=case.reason,
        seen=case.seen_errno or "accepted",
        proof={key: _plain(value) for key, value in _proof(case) if value not in (None, [], "")},
        alive=afterwards(case),
        deviations=case.deviations,
        again=line,
    )


def _proof(case: CaseResult) -> Iterator[tuple[str, object]]:
    told = case.proof
    if told is None:
        return
    yield "guest_mode", told.guest_mode
    yield "how", told.how
    yield "cr3", told.cr3
    yield "rip", told.rip
    if isinstance(told, VcpuProof):
        yield "fingerprint", told.fingerprint
    yield "unchanged", told.unchanged
    yield "changed", told.changed
    if isinstance(told, TableProof):
        yield "exit", told.exit


def _plain(value: object) -> str:
    """A value of the JSON as a person reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {one}" for key, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def consoles(logs: str) -> dict[str, str]:
    """The last lines of each console of a run whose logs are there; empty: nowhere."""
    folder = Path(logs or "/nowhere") / "consoles"
    found = {}
    for log in sorted(folder.glob("*.log")) if folder.is_dir() else ():
        lines = log.read_text(errors="replace").splitlines()
        if lines:
            found[log.stem] = "\n".join(lines[-_CONSOLE_LINES:])
    return found
