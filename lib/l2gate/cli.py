"""l2gate run | compare | bench | soak | hosts | kernels | images: for a person or a script."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from l2gate import settings as options
from l2gate.bench import preflight
from l2gate.compare import compare
from l2gate.errors import L2gateError, UsageError
from l2gate.events import FileSink, Timeline
from l2gate.hosts import kinds
from l2gate.images.build import build_all
from l2gate.job import TESTS, Job
from l2gate.kernels import kernel
from l2gate.repeat import bench, soak
from l2gate.report.terminal import Progress, show
from l2gate.scratch import Scratch


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code; the README lists what each means."""
    arguments = _parser().parse_args(argv)
    console = Console(highlight=False)
    try:
        return int(arguments.verb(arguments, console))
    except L2gateError as error:
        _complain(error)
        return error.exit_code
    except KeyboardInterrupt:
        print("l2gate: interrupted", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(UsageError.exit_code, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="l2gate", description=__doc__)
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=_Parser)
    run = verbs.add_parser("run", help="ask the question of one kernel on one host")
    _add_options(run)
    run.add_argument("--json", type=Path, metavar="FILE", help="write the whole result there")
    run.add_argument("--verbose", action="store_true", help="show every step")
    run.add_argument("tests", nargs="*", help=f"system tests to run [all in {TESTS}]")
    run.set_defaults(verb=_run)
    compared = verbs.add_parser("compare", help="the same cases on all emulated hosts")
    _add_options(compared)
    compared.set_defaults(verb=lambda a, c: _on_all(a, lambda wanted: compare(wanted, c)))
    for name, what, verb, runs in (
        ("bench", "where the seconds go, over several jobs", bench, 3),
        ("soak", "the same verdict every time?", soak, 50),
    ):
        repeated = verbs.add_parser(name, help=what)
        _add_options(repeated)
        repeated.add_argument("--runs", type=int, default=runs, help=f"on each host [{runs}]")
        repeated.set_defaults(
            verb=lambda a, c, verb=verb: _on_all(a, lambda wanted: verb(wanted, a.runs, c))
        )
    hosts = verbs.add_parser("hosts", help="list the kinds of hosts and whether they can be used")
    hosts.add_argument("--bochs", help="Bochs binary of emulated-intel")
    hosts.set_defaults(verb=_hosts)
    images = verbs.add_parser("images", help="fetch and build everything that jobs need")
    images.set_defaults(verb=_images)
    kernels = verbs.add_parser("kernels", help="list the kernels that have a name, or build some")
    kernels.add_argument("--build", nargs="+", metavar="SPEC", help="build these now")
    kernels.set_defaults(verb=_kernels)
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    for option in options.OPTIONS:
        if option.name == "keep":
            parser.add_argument("--keep", action="store_const", const="yes", help=option.help)
        else:
            default = f" [{option.default}]" if option.default else ""
            parser.add_argument(f"--{option.name}", help=f"{option.help}{default}")


def _wanted(arguments: argparse.Namespace) -> options.Settings:
    asked = {option.name: getattr(arguments, option.name, None) for option in options.OPTIONS}
    return options.resolve(asked, options.from_environment())


def _complain(error: L2gateError) -> None:
    print(f"l2gate: {error.cause}", file=sys.stderr)
    if error.mend:
        print(f"  mend: {error.mend}", file=sys.stderr)


# --- l2gate images, l2gate kernels ----------------------------------------------------------------


def _images(arguments: argparse.Namespace, console: Console) -> int:
    build_all(Timeline(Progress(console, verbose=True)))
    console.print("images and kernels are ready")
    return 0


def _kernels(arguments: argparse.Namespace, console: Console) -> int:
    timeline = Timeline(Progress(console, verbose=True))
    for spec in arguments.build or ():
        built = kernel.prepare(spec, timeline)
        console.print(f"{spec}: {built.release}, {built.description}", markup=False)
    if not arguments.build:
        for spec, proves in kernel.known():
            console.print(f"{spec:28} {proves}", markup=False, soft_wrap=True)
    return 0


# --- l2gate hosts, compare, bench, soak -----------------------------------------------------------


def _hosts(arguments: argparse.Namespace, console: Console) -> int:
    wanted = _wanted(arguments)
    for kind in kinds.KINDS:
        default = " (auto)" if kinds.find(kinds.AUTO) is kind else ""
        console.print(f"{kind.name}{default}: {kind.what}", markup=False, soft_wrap=True)
        try:
            console.print(f"    can be used: {kind.emulator(wanted)}", markup=False)
        except L2gateError as error:
            console.print(f"    cannot be used: {error.cause}", markup=False, soft_wrap=True)
            console.print(f"    mend: {error.mend}", markup=False, soft_wrap=True)
    return 0


def _on_all(arguments: argparse.Namespace, verb: Callable[[options.Settings], int]) -> int:
    """A verb that asks more than once: what cannot be meant is refused before the first time."""
    if getattr(arguments, "runs", 1) < 1:
        raise UsageError(f"--runs {arguments.runs} is none", "use 1 or more")
    wanted = _wanted(arguments)
    preflight(wanted)
    kernel.prepare(wanted.kernel, Timeline(Progress(Console(stderr=True), verbose=True)))
    return verb(wanted)


# --- l2gate run -----------------------------------------------------------------------------------


def _run(arguments: argparse.Namespace, console: Console) -> int:
    wanted = _wanted(arguments)
    if arguments.json:
        _check_writable(arguments.json)
    preflight(wanted)
    with Scratch("run") as folder:
        timeline = folder / "timeline.jsonl"
        # Built here and not in the job: a patch that does not compile is bad usage.
        with_console = Timeline(Progress(console, arguments.verbose), FileSink(timeline))
        kernel.prepare(wanted.kernel, with_console)
        job = Job(wanted, arguments.tests, folder, timeline)
        result, code = job.run(Progress(console, arguments.verbose))
    show(console, result)
    if arguments.json:
        result.write(arguments.json)
    return code


def _check_writable(path: Path) -> None:
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(f"--json {path} cannot be written", "name a file in a folder of yours")


if __name__ == "__main__":
    sys.exit(main())
