"""`l2gate matrix` on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from l2gate.matrix import cells
from l2gate.matrix.matrix import Matrix, usable_hosts
from l2gate.settings import checkout


def add(verbs: Any) -> None:
    """Add the verbs to a parser's subparsers."""
    matrix = verbs.add_parser("matrix", help="many kernels on many hosts, one table and one page")
    matrix.add_argument("kernels", nargs="*", metavar="SPEC", help="[all that have a name]")
    _add_common(matrix)
    matrix.set_defaults(verb=_matrix)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", action="append", help="may come more than once [both emulated]")
    parser.add_argument("--jobs", type=int, default=0, help="how many at a time [the cores]")
    parser.add_argument(
        "--folder", type=Path, default=checkout() / "build", help="for table and page [build]"
    )


def _matrix(arguments: argparse.Namespace, console: Console) -> int:
    kernels = arguments.kernels or cells.all_kernels()
    asked = cells.cells(kernels, arguments.host or usable_hosts())
    return Matrix(asked, arguments.folder, arguments.jobs, console).run()
