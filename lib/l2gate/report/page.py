"""One page for many kernels: self-contained HTML, from what the matrix and the mutants found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from l2gate.contract.choice import Words, is_control, telling, words_of
from l2gate.contract.judge import Verdict
from l2gate.injection.vectors import label, name

_TEMPLATE = "page.html.j2"
#: Of a console that many lines are kept, its last ones.
_CONSOLE_LINES = 120
#: Of the cases behind one square that many are told in full, the ones that do not pass first.
_CASES_TOLD = 5
_WORST = (Verdict.FAIL, Verdict.INFRA_ERROR, Verdict.INCONCLUSIVE, Verdict.SKIP, Verdict.PASS)


@dataclass(frozen=True)
class Row:
    """One kernel on one host. ``result`` is the JSON of its run, ``again`` the line that asks all
    of it again, ``places`` where each test is, as that line takes it."""

    kernel: str
    host: str
    expected: str
    verdict: str
    as_expected: bool
    reason: str
    seconds: float
    again: str
    places: Mapping[str, str] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    #: What a reader should know of that kernel, such as what is broken in it.
    about: str = ""

    @property
    def contract(self) -> str:
        return str(self.result.get("contract", {}).get("name", "-"))

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
    """What the page shows."""

    title: str
    summary: str
    rows: Sequence[Row]


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


def squares(row: Row) -> list[Square]:
    """One for each path and vector of the row's cases."""
    grouped: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for case in row.result.get("cases", ()):
        key = (case.get("path", "vcpu-events"), case["vector"])
        grouped.setdefault(key, []).append(case)
    again = _Again(row)
    return [_square(again, path, vector, grouped[path, vector]) for path, vector in sorted(grouped)]


def _square(again: _Again, path: str, vector: int, cases: list[dict[str, Any]]) -> Square:
    verdict = next(v for v in _WORST if any(case["verdict"] == v for case in cases))
    cases = _most_telling(cases)
    passed = sum(case["verdict"] == Verdict.PASS for case in cases)
    return Square(
        path,
        vector,
        verdict.value,
        f"{passed} of {len(cases)} pass",
        tuple(_told(case, again.line(case)) for case in cases[:_CASES_TOLD]),
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


class _Again:
    """The line that asks just one case of a row again, with its controls."""

    def __init__(self, row: Row) -> None:
        self._row = row
        cases = row.result.get("cases", ())
        self._words = [(str(case["test"]), words_of(case)) for case in cases]
        self._rows: dict[tuple[str, str], list[Words]] = {}
        for _, words in self._words:
            self._rows.setdefault(_row_of(words), []).append(words)

    def line(self, case: dict[str, Any]) -> str:
        words = words_of(case)
        tests = [str(case["test"])]
        if "table" not in case and words["active"] == "L2":  # a table holds its controls itself
            tests += [test for test, other in self._words if is_control(other, words)]
        named = telling(words, self._rows[_row_of(words)])
        places = [self._row.places[t] for t in dict.fromkeys(tests) if t in self._row.places]
        return " ".join([self._row.again, f"--case '{named}'", *places])


def _row_of(words: Words) -> tuple[str, str]:
    """Cases that `--case` cannot confuse are in different ones."""
    return words.get("table", ""), words.get("line", "")


def _told(case: dict[str, Any], again: str) -> dict[str, Any]:
    """What the page says of one case."""
    proof = case["proof"]
    keys = ("guest_mode", "how", "cr3", "rip", "marker", "unchanged", "changed", "exit")
    life = proof.get("liveness") or {}
    return {
        "verdict": case["verdict"],
        "what": _what(case),
        "reason": case["reason"],
        "seen": case["seen_errno"] or "accepted",
        "proof": {key: _plain(proof[key]) for key in keys if proof.get(key) not in (None, [])},
        "alive": f"L1 {_went_on(life.get('l1'))}, L2 {_went_on(life.get('l2'))}",
        "deviations": case.get("deviations", []),
        "again": again,
    }


def _plain(value: Any) -> str:
    """A value of the JSON as a person reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {one}" for key, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _went_on(alive: object) -> str:
    return "went on" if alive else "did not go on"


def _what(case: dict[str, Any]) -> str:
    if "table" in case:
        return f"{case['table']}.txt:{case['line']} {case['case']}: {case['asked']}"
    asked = "" if case["injected"] else " injected=0"
    times = f", {case['repeat']} times" if case["repeat"] > 1 else ""
    what = label(case["vector"], case["error_code"])
    return f"{case['test']}: {what}{asked} with {case['active_level']} active{times}"


def consoles(result: dict[str, Any]) -> dict[str, str]:
    """The last lines of each console of a run."""
    folder = Path(str(result.get("logs") or "/nowhere")) / "consoles"
    found = {}
    for log in sorted(folder.glob("*.log")) if folder.is_dir() else ():
        lines = log.read_text(errors="replace").splitlines()
        if lines:
            found[log.stem] = "\n".join(lines[-_CONSOLE_LINES:])
    return found
