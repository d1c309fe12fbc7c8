# SPDX-License-Identifier: MIT
"""`l2gate eras`: kernels built from trees of the user's, each asked on every host that boots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from l2gate.contract.judge import Verdict
from l2gate.foundation.errors import BenchError, L2gateError
from l2gate.foundation.events import Timeline
from l2gate.kernels import trees
from l2gate.kernels.trees import Tree
from l2gate.matrix.cells import Cell
from l2gate.matrix.matrix import Matrix

_PAYLOAD = "KVM_CAP_EXCEPTION_PAYLOAD"


def cells(
    paths: Sequence[Path], hosts: Sequence[str], timeline: Timeline
) -> tuple[list[Cell], list[str]]:
    """The cells of what was built, now if it was not before, and why the rest could not be.

    Raises KernelSpecError for a path that is no kernel tree.
    """
    asked: list[Cell] = []
    broken = []
    for tree in [Tree.at(path) for path in paths]:
        try:
            built = trees.build(tree, timeline)
        except L2gateError as error:
            broken.append(str(error))
            continue
        asked += [_cell(tree, built, host) for host in hosts]
    return asked, broken


def told(matrix: Matrix, code: int, broken: Sequence[str], console: Console) -> int:
    """Print what the table does not say. Returns the exit code: the matrix's, or 2 if all that was
    built is as expected and a tree could not be built."""
    for found in matrix.found:
        for lack in found.result.unasked if found.result else []:
            text = f"{found.cell.label} on {found.cell.host}: {lack.cases} cases of "
            text += f"{lack.table} were not asked, they need {lack.lacks}"
            console.print(text, markup=False, soft_wrap=True)
    for why in broken:
        console.print(why, markup=False, soft_wrap=True, style="bold red")
    return code or (BenchError.exit_code if broken else 0)


def _cell(tree: Tree, built: Path, host: str) -> Cell:
    verdict, why = expected(tree)
    red = verdict is Verdict.FAIL
    return Cell(f"dir:{built}", host, verdict, why, title=tree.version, harmful=red)


def expected(tree: Tree) -> tuple[Verdict, str]:
    """What the tree's own source has promised: the payload, the check, or nothing that is kept."""
    if tree.kvm.capability(_PAYLOAD).value:
        return Verdict.PASS, f"its source answers {_PAYLOAD}"
    if check := tree.kvm.commit_check():
        return Verdict.PASS, f"the commit's check is in its source, {check.partition(': ')[0]}"
    return Verdict.FAIL, "its source has neither the commit's check nor the payload"
