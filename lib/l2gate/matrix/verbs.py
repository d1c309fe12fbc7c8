"""`l2gate matrix`, `eras`, `mutants` and `observe` on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from l2gate import settings as options
from l2gate.errors import UsageError
from l2gate.events import Timeline
from l2gate.hosts import kinds
from l2gate.matrix import cells
from l2gate.matrix.eras import eras
from l2gate.matrix.matrix import Matrix, fetch_kernel
from l2gate.matrix.mutant import Mutant, all_mutants, read
from l2gate.matrix.mutants import Mutants
from l2gate.matrix.observe import observe
from l2gate.settings import checkout


def add(verbs: Any) -> None:
    """Add the verbs to a parser's subparsers."""
    matrix = verbs.add_parser("matrix", help="many kernels on many hosts, one table and one page")
    matrix.add_argument("kernels", nargs="*", metavar="SPEC", help="[all that have a name]")
    _add_common(matrix)
    matrix.set_defaults(verb=_matrix)
    observed = verbs.add_parser("observe", help="what a kernel does where nothing is promised")
    observed.add_argument("--host", default="emulated-amd", help="[emulated-amd]")
    observed.add_argument("--kernel", default="debian:6.12", help="[debian:6.12]")
    observed.add_argument("--json", type=Path, metavar="FILE")
    observed.add_argument("--folder", type=Path, default=checkout() / "build/observe")
    observed.set_defaults(verb=_observe)
    built = verbs.add_parser("eras", help="kernels built from trees of yours, on both hosts")
    built.add_argument("trees", nargs="+", type=Path, metavar="PATH", help="a Linux source tree")
    _add_common(built)
    built.set_defaults(verb=_eras)
    mutants = verbs.add_parser("mutants", help="is each broken KVM caught, for the right reason?")
    mutants.add_argument("names", nargs="*", metavar="NAME", help="or patch files [all]")
    _add_common(mutants)
    mutants.set_defaults(verb=_mutants)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", action="append", help="may come more than once [both emulated]")
    parser.add_argument("--jobs", type=int, default=0, help="how many at a time [the cores]")
    parser.add_argument(
        "--folder", type=Path, default=checkout() / "build", help="for table and page [build]"
    )


def _matrix(arguments: argparse.Namespace, console: Console) -> int:
    kernels = arguments.kernels or cells.all_kernels()
    asked = cells.cells(kernels, arguments.host or kinds.EMULATED)
    return Matrix(asked, arguments.folder, arguments.jobs, console).run()


def _eras(arguments: argparse.Namespace, console: Console) -> int:
    hosts = arguments.host or kinds.EMULATED
    return eras(arguments.trees, hosts, arguments.folder, arguments.jobs, console)


def _observe(arguments: argparse.Namespace, console: Console) -> int:
    asked = {"host": arguments.host, "kernel": arguments.kernel}
    wanted = options.resolve(asked, options.from_environment())
    fetch_kernel(wanted.kernel, Timeline())
    return observe(wanted, arguments.json, arguments.folder, console)


def _mutants(arguments: argparse.Namespace, console: Console) -> int:
    chosen = _chosen(arguments.names)
    if arguments.host:
        chosen = [mutant for mutant in chosen if mutant.host in arguments.host]
    if not chosen:
        raise UsageError("no mutant is about that host", "leave out --host")
    return Mutants(chosen, arguments.folder, arguments.jobs, console).run()


def _chosen(names: list[str]) -> list[Mutant]:
    known = {mutant.name: mutant for mutant in all_mutants()}
    if not names:
        return list(known.values())
    chosen = []
    for name in names:
        if name not in known and not Path(name).is_file():
            raise UsageError(f"there is no mutant {name}", f"use one of: {', '.join(known)}")
        chosen.append(known.get(name) or read(Path(name).resolve()))
    return chosen
