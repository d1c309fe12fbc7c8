"""One page for many kernels: self-contained HTML, from what the matrix and the mutants found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from l2gate.contract.judge import Verdict
from l2gate.injection.vectors import label, name

_TEMPLATE = "page.html.j2"
#: Of a console that many lines are kept, its last ones.
_CONSOLE_LINES = 120
#: Of the cases behind one square that many are told in full, the ones that do not pass first.
_CASES_TOLD = 12
_WORST = (Verdict.FAIL, Verdict.INFRA_ERROR, Verdict.INCONCLUSIVE, Verdict.SKIP, Verdict.PASS)


@dataclass(frozen=True)
class Row:
    """One kernel on one host. ``result`` is the JSON of its run."""

    kernel: str
    host: str
    expected: str
    verdict: str
    as_expected: bool
    reason: str
    seconds: float
    again: str
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
    def paths(self) -> list[str]:
        return list(dict.fromkeys(square.path for square in self.squares))

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
    again: str

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
    return [_square(row, path, vector, grouped[path, vector]) for path, vector in sorted(grouped)]


def _square(row: Row, path: str, vector: int, cases: list[dict[str, Any]]) -> Square:
    verdict = next(v for v in _WORST if any(case["verdict"] == v for case in cases))
    order = {v.value: place for place, v in enumerate(_WORST)}
    cases = sorted(cases, key=lambda case: order[case["verdict"]])
    passed = sum(case["verdict"] == Verdict.PASS for case in cases)
    return Square(
        path,
        vector,
        verdict.value,
        f"{passed} of {len(cases)} pass",
        tuple(_told(case) for case in cases[:_CASES_TOLD]),
        max(0, len(cases) - _CASES_TOLD),
        f"{row.again} {_test_file(cases[0])}",
    )


def _told(case: dict[str, Any]) -> dict[str, Any]:
    """What the page says of one case."""
    proof = case["proof"]
    keys = ("guest_mode", "how", "cr3", "rip", "marker", "unchanged", "changed", "exit")
    life = proof.get("liveness") or {}
    return {
        "verdict": case["verdict"],
        "what": _what(case),
        "reason": case["reason"],
        "seen": case["seen_errno"] or "accepted",
        "proof": {key: proof[key] for key in keys if proof.get(key) not in (None, [])},
        "alive": f"L1 {_went_on(life.get('l1'))}, L2 {_went_on(life.get('l2'))}",
        "deviations": case.get("deviations", []),
    }


def _went_on(alive: object) -> str:
    return "went on" if alive else "did not go on"


def _what(case: dict[str, Any]) -> str:
    if "table" in case:
        return f"{case['table']}.txt:{case['line']} {case['case']}: {case['asked']}"
    asked = "" if case["injected"] else " injected=0"
    times = f", {case['repeat']} times" if case["repeat"] > 1 else ""
    what = label(case["vector"], case["error_code"])
    return f"{case['test']}: {what}{asked} with {case['active_level']} active{times}"


#: Where the tests of a class are.
_FILES = {
    "AcceptedWhileL1IsActive": "accepted_while_l1_active",
    "LeavesNoTrace": "leaves_no_trace",
    "PayloadContract": "payload_contract",
    "RefusedAlways": "refused_always",
    "RefusedWhateverL1Intercepts": "refused_whatever_l1_intercepts",
    "RefusedWhileL2IsActive": "refused_while_l2_active",
    "TheFiveReasons": "the_five_reasons",
    "ThroughQemuItself": "through_qemu",
}


def _test_file(case: dict[str, Any]) -> str:
    kind = str(case["test"]).partition(".")[0]
    return f"tests/injection/{_FILES[kind]}.py:{case['test']}" if kind in _FILES else ""


def consoles(result: dict[str, Any]) -> dict[str, str]:
    """The last lines of each console of a run."""
    folder = Path(str(result.get("logs") or "/nowhere")) / "consoles"
    found = {}
    for log in sorted(folder.glob("*.log")) if folder.is_dir() else ():
        lines = log.read_text(errors="replace").splitlines()
        if lines:
            found[log.stem] = "\n".join(lines[-_CONSOLE_LINES:])
    return found
