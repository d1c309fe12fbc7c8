"""`l2gate eras`: kernels built from trees of the user's, each asked on both emulated hosts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from l2gate.contract.judge import Verdict
from l2gate.errors import BenchError, L2gateError
from l2gate.events import Timeline
from l2gate.hosts import kinds
from l2gate.kernels import trees
from l2gate.kernels.trees import Tree
from l2gate.matrix.cells import Cell
from l2gate.matrix.matrix import Matrix
from l2gate.report.terminal import Progress

_PAYLOAD = "KVM_CAP_EXCEPTION_PAYLOAD"


def eras(
    paths: Sequence[Path], hosts: Sequence[str], folder: Path, jobs: int, console: Console
) -> int:
    """Build what has not been built, ask, and print the table. Returns the matrix's exit code, or
    2 if all that was built is as expected and a tree could not be built.

    Raises KernelSpecError for a path that is no kernel tree.
    """
    asked, broken = [], 0
    timeline = Timeline(Progress(console, verbose=True))
    for tree in [Tree.at(path) for path in paths]:
        try:
            built = trees.build(tree, timeline)
        except L2gateError as error:
            console.print(f"{error.cause}\n  mend: {error.mend}", markup=False, soft_wrap=True)
            broken += 1
            continue
        asked += [_cell(tree, built, kinds.find(host).name) for host in hosts]
    matrix = Matrix(asked, folder, jobs, console, name="eras")
    code = matrix.run() if asked else 0
    for found in matrix.found:
        for lack in found.result.get("unasked", []):
            text = f"{found.cell.label} on {found.cell.host}: {lack['table']}: {lack['cases']} "
            console.print(f"{text}cases were not asked, they need {lack['lacks']}", markup=False)
    return code or (BenchError.exit_code if broken else 0)


def _cell(tree: Tree, built: Path, host: str) -> Cell:
    return Cell(f"dir:{built}", host, *expected(tree), title=tree.version)


def expected(tree: Tree) -> tuple[Verdict, str]:
    """What the tree's own source has promised: the payload, the check, or nothing that is kept."""
    if tree.kvm.capability(_PAYLOAD).value:
        return Verdict.PASS, f"its source answers {_PAYLOAD}"
    if check := tree.kvm.commit_check():
        return Verdict.PASS, f"the commit's check is in its source, {check.partition(': ')[0]}"
    return Verdict.FAIL, "its source has neither the commit's check nor the payload"
