# SPDX-License-Identifier: MIT
"""One page for many kernels: self-contained HTML, from what the matrix and the mutants found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from l2gate.contract.judge import Verdict
from l2gate.injection.vectors import name
from l2gate.report import again
from l2gate.report.again import Again
from l2gate.report.provenance import Provenance
from l2gate.report.words import afterwards, what

_TEMPLATE = "page.html.j2"
#: Of a console that many lines are kept, its last ones.
_CONSOLE_LINES = 120
#: Of the cases behind one square that many are told in full, the ones that do not pass first.
_CASES_TOLD = 5
_WORST = (Verdict.FAIL, Verdict.INFRA_ERROR, Verdict.INCONCLUSIVE, Verdict.SKIP, Verdict.PASS)


@dataclass(frozen=True)
class PageRow:
    """One kernel on one host. ``result`` is the JSON of its run, ``settings`` name host and kernel
    for the line that asks it again."""

    kernel: str
    host: str
    expected: str
    verdict: str
    as_expected: bool
    reason: str
    seconds: float
    settings: Mapping[str, str]
    result: dict[str, Any] = field(default_factory=dict)
    #: What a reader should know of that kernel, such as what is broken in it.
    about: str = ""

    @property
    def contract(self) -> str:
        return str(self.result.get("contract", {}).get("name", "-"))

    @property
    def asked(self) -> dict[str, str]:
        """All settings that the line which asks again has."""
        return {**again.of_run(self.result), **self.settings}

    @property
    def again(self) -> str:
        return again.run_line(self.asked)

    @property
    def places(self) -> dict[str, str]:
        """Where each test is, seen from the checkout."""
        return {
            test["name"]: test["place"]
            for test in self.result.get("tests", ())
            if test.get("place")
        }

    @property
    def digests(self) -> list[dict[str, str]]:
        """Of the kernel's image and of its patches."""
        told = self.result.get("provenance") or {}
        return [one for one in (told.get("image"), *told.get("patches", ())) if one]

    @property
    def squares(self) -> list[Square]:
        return squares(self)

    @property
    def consoles(self) -> dict[str, str]:
        return consoles(self.result)


@dataclass(frozen=True)
class Square:
    """All cases of one vector by one path: the worst verdict, and the proof of some."""

    path: str
    vector: int
    verdict: str
    counts: str
    cases: tuple[dict[str, Any], ...]
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
    draft = target.with_name(f".{target.name}.part")
    draft.write_text(environment.get_template(_TEMPLATE).render(page=page))
    draft.replace(target)


def squares(row: PageRow) -> list[Square]:
    """One for each path and vector of the row's cases."""
    grouped: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for case in row.result.get("cases", ()):
        key = (case.get("path", "vcpu-events"), case["vector"])
        grouped.setdefault(key, []).append(case)
    lines = Again(row.asked, row.places, row.result.get("cases", ()))
    return [_square(lines, path, vector, grouped[path, vector]) for path, vector in sorted(grouped)]


def _square(lines: Again, path: str, vector: int, cases: list[dict[str, Any]]) -> Square:
    verdict = next(v for v in _WORST if any(case["verdict"] == v for case in cases))
    cases = _most_telling(cases)
    passed = sum(case["verdict"] == Verdict.PASS for case in cases)
    return Square(
        path,
        vector,
        verdict.value,
        f"{passed} of {len(cases)} pass",
        tuple(_told(case, lines.line([case])) for case in cases[:_CASES_TOLD]),
        max(0, len(cases) - _CASES_TOLD),
    )


def _most_telling(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The worst first; among equals one of each test and row, and L2's before its controls."""
    order = {verdict.value: place for place, verdict in enumerate(_WORST)}
    seen: Counter[tuple[str, ...]] = Counter()
    ranks = []
    for case in sorted(cases, key=lambda case: case["active_level"] == "L1"):
        like = (case["test"], str(case.get("line")), case["verdict"], case["active_level"])
        ranks.append((order[case["verdict"]], seen[like], case["active_level"], case))
        seen[like] += 1
    ranks.sort(key=lambda rank: (rank[0], rank[1], rank[2] == "L1"))
    return [case for *_, case in ranks]


def _told(case: dict[str, Any], line: str) -> dict[str, Any]:
    """What the page says of one case."""
    proof = case["proof"]
    keys = ("guest_mode", "how", "cr3", "rip", "fingerprint", "unchanged", "changed", "exit")
    return {
        "verdict": case["verdict"],
        "what": what(case),
        "reason": case["reason"],
        "seen": case["seen_errno"] or "accepted",
        "proof": {key: _plain(proof[key]) for key in keys if proof.get(key) not in (None, [])},
        "alive": afterwards(case),
        "deviations": case.get("deviations", []),
        "again": line,
    }


def _plain(value: Any) -> str:
    """A value of the JSON as a person reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {one}" for key, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def consoles(result: dict[str, Any]) -> dict[str, str]:
    """The last lines of each console of a run."""
    folder = Path(str(result.get("logs") or "/nowhere")) / "consoles"
    found = {}
    for log in sorted(folder.glob("*.log")) if folder.is_dir() else ():
        lines = log.read_text(errors="replace").splitlines()
        if lines:
            found[log.stem] = "\n".join(lines[-_CONSOLE_LINES:])
    return found
