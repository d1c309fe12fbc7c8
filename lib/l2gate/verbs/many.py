# SPDX-License-Identifier: MIT
"""`l2gate matrix | mutants | eras | observe | compare | bench | soak`: asking more than once."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from l2gate.bench.bench import preflight
from l2gate.contract.judge import Verdict
from l2gate.foundation.errors import UsageError
from l2gate.foundation.events import Timeline
from l2gate.foundation.files import check_file, check_folder
from l2gate.foundation.settings import AUTO, Settings, nearest
from l2gate.hosts import kinds
from l2gate.hosts.kind import Can
from l2gate.jobs import repeat
from l2gate.jobs.compare import compare as compare_hosts
from l2gate.matrix import cells
from l2gate.matrix import eras as from_trees
from l2gate.matrix import observe as observation
from l2gate.matrix.matrix import Matrix, fetch_kernel
from l2gate.matrix.mutant import Mutant, all_mutants, read
from l2gate.matrix.mutants import Mutants
from l2gate.verbs.screen import beside, screen
from l2gate.verbs.verb import wanted

#: What is observed if no kernel is named.
_OBSERVED = "debian:6.12"


def matrix(arguments: argparse.Namespace) -> int:
    """Every kernel on every host."""
    settings = wanted(arguments)
    asked = cells.cells(arguments.kernels or cells.all_kernels(), _hosts(arguments.host))
    check_folder(arguments.folder, "--folder")
    return Matrix(asked, arguments.folder, arguments.jobs, screen(), settings).run()


def mutants(arguments: argparse.Namespace) -> int:
    """Each broken KVM, each equivalent one."""
    settings = wanted(arguments)
    chosen, hosts = _chosen(arguments.names), _hosts(arguments.host, Can.EXCHANGE_KVM)
    chosen = [mutant for mutant in chosen if mutant.host in hosts]
    if not chosen:
        raise UsageError("no mutant is for that host", "leave out --host")
    check_folder(arguments.folder, "--folder")
    return Mutants(chosen, arguments.folder, arguments.jobs, screen(), settings).run()


def eras(arguments: argparse.Namespace) -> int:
    """Every tree on every host."""
    settings = wanted(arguments)
    check_folder(arguments.folder, "--folder")
    out = beside(arguments)
    asked, broken = from_trees.cells(arguments.trees, _hosts(arguments.host), out)
    matrix = Matrix(asked, arguments.folder, arguments.jobs, screen(), settings, name="eras")
    return from_trees.told(matrix, matrix.run(), broken, screen())


def _hosts(asked: Sequence[str] | None, can: Can = Can.BOOT_KERNELS) -> Sequence[str]:
    """Those that were named, or all that can do it. Raises UsageError for one that cannot."""
    return [kinds.require(host, can).name for host in asked] if asked else kinds.names(can)


def _chosen(names: list[str]) -> list[Mutant]:
    known = {mutant.name: mutant for mutant in all_mutants()}
    for name in names:
        if name not in known and not Path(name).is_file():
            raise UsageError(f"there is no mutant {name}", nearest(name, known))
    return [known.get(n) or read(Path(n).resolve()) for n in names] or list(known.values())


def observe(arguments: argparse.Namespace) -> int:
    """What nobody promises."""
    settings = wanted(arguments)
    if arguments.json:
        check_file(arguments.json, "--json")
    if settings.host == AUTO:
        settings = replace(settings, host=kinds.quickest(Can.BE_SPENT).name)
    kinds.require(settings.host, Can.BE_SPENT)
    if settings.kernel == AUTO:
        settings = replace(settings, kernel=_OBSERVED)
    preflight(settings)
    check_folder(arguments.folder, "--folder")
    fetch_kernel(settings.kernel, Timeline())
    return observation.observe(settings, arguments.json, arguments.folder, screen())


def compare(arguments: argparse.Namespace) -> int:
    """The hosts that boot a kernel, side by side."""
    return _prepared(arguments, compare_hosts)


def bench(arguments: argparse.Namespace) -> int:
    """Where the seconds go."""
    return _prepared(arguments, lambda settings, out: repeat.bench(settings, arguments.runs, out))


def soak(arguments: argparse.Namespace) -> int:
    """The same again and again, or some kernels in turn."""

    def body(settings: Settings, out: Console) -> int:
        specs = arguments.kernels or [settings.kernel]
        asked = [_asked(settings, spec) for spec in specs]
        for one in asked:
            preflight(one.settings)
        return repeat.soak(asked, arguments.runs, out)

    return _prepared(arguments, body)


def _asked(settings: Settings, spec: str) -> repeat.Asked:
    """With the verdict that it must come to, as in a matrix."""
    kernel = replace(settings, kernel=spec)
    if spec == AUTO:
        return repeat.Asked(kernel, Verdict.PASS)
    (cell,) = cells.cells([spec], [settings.host])
    return repeat.Asked(kernel, cell.expected)


def _prepared(arguments: argparse.Namespace, body: Callable[[Settings, Console], int]) -> int:
    """A usage error is told before the first time."""
    settings = wanted(arguments)
    preflight(settings)
    kinds.find(settings.host).prepare_kernel(settings, beside(arguments))
    return body(settings, screen())
