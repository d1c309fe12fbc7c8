# SPDX-License-Identifier: MIT
"""`l2gate images | kernels | cache`: what jobs are made of."""

from __future__ import annotations

import argparse

from l2gate.foundation import cache as store
from l2gate.foundation.events import Timeline
from l2gate.images.build import build_all
from l2gate.kernels import kernel
from l2gate.verbs.screen import progress, screen


def images(arguments: argparse.Namespace) -> int:
    """Fetch and build; a second call does nothing."""
    console = screen()
    series = [one.removeprefix("debian:") for one in arguments.series]
    build_all(Timeline(progress(arguments, console, steps=True)), series)
    console.print("images and kernels are ready")
    return 0


def kernels(arguments: argparse.Namespace) -> int:
    """List the kernels that have a name, or build what is named."""
    console = screen()
    timeline = Timeline(progress(arguments, console, steps=True))
    for spec in arguments.build or ():
        built = kernel.prepare(spec, timeline)
        told = f"{spec}: {built.release}, {built.description}"
        console.print(told, markup=False, soft_wrap=True)
    if not arguments.build:
        for spec, proves in kernel.known():
            console.print(f"{spec:28} {proves}", markup=False, soft_wrap=True)
    return 0


def cache(arguments: argparse.Namespace) -> int:
    """Say what is kept and how large it is; with --prune remove what was not used for long."""
    console = screen()
    held = store.entries()
    if arguments.prune is not None:
        for entry in store.prunable(held, arguments.prune):
            store.remove(entry)
            console.print(f"removed {entry.name}: {_megabytes(entry.size)}", markup=False)
        held = store.entries()
    for folder in store.folders():
        mine = [entry for entry in held if entry.folder == folder]
        total = sum(entry.size for entry in mine)
        console.print(f"{folder}: {_megabytes(total)}", markup=False, soft_wrap=True)
        for kind in dict.fromkeys(entry.kind for entry in mine):
            of_kind = [entry for entry in mine if entry.kind == kind]
            size = _megabytes(sum(entry.size for entry in of_kind))
            what = store.KINDS.get(kind, "not of this version of l2gate")
            console.print(
                f"  {kind:<14}{len(of_kind):>4}  {size:>9}  {what}", markup=False, soft_wrap=True
            )
    if spare := store.prunable(held, store.UNUSED_DAYS):
        size = _megabytes(sum(entry.size for entry in spare))
        console.print(f"l2gate cache --prune would free {size}", markup=False)
    return 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
