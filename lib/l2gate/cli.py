"""l2gate run | contract | doctor | prepare | restore | up | ...: for a person or a script."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from l2gate import doctor, oracle, up
from l2gate import settings as options
from l2gate.bench import preflight
from l2gate.compare import compare
from l2gate.deadline import Deadline
from l2gate.errors import BenchError, L2gateError, MissingPrerequisite, UsageError
from l2gate.events import FileSink, Timeline
from l2gate.hosts import kinds
from l2gate.hosts.lab import access as lab
from l2gate.hosts.standing import Standing, standing
from l2gate.images import helper
from l2gate.images.build import build_all
from l2gate.job import TESTS, Job
from l2gate.kernels import kernel
from l2gate.matrix import verbs as matrix_verbs
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
    told = verbs.add_parser(
        "contract", help="what a kernel has promised, by what that is known, what is expected"
    )
    _add_options(told)
    told.add_argument("--json", action="store_true", help="for a script")
    told.add_argument("--boot", action="store_true", help="boot L0 and ask, where source would do")
    told.set_defaults(verb=_contract)
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
    matrix_verbs.add(verbs)
    _add_host_verbs(verbs)
    hosts = verbs.add_parser("hosts", help="list the kinds of hosts and whether they can be used")
    hosts.add_argument("--bochs", help="Bochs binary of emulated-intel")
    hosts.set_defaults(verb=_hosts)
    images = verbs.add_parser("images", help="fetch and build everything that jobs need")
    images.add_argument("series", nargs="*", help="other Debian kernels to fetch too, as 6.1")
    images.set_defaults(verb=_images)
    kernels = verbs.add_parser("kernels", help="list the kernels that have a name, or build some")
    kernels.add_argument("--build", nargs="+", metavar="SPEC", help="build these now")
    kernels.set_defaults(verb=_kernels)
    return parser


def _add_host_verbs(verbs: Any) -> None:
    examined = verbs.add_parser("doctor", help="every prerequisite at once: found, enough, mend")
    _add_options(examined)
    examined.add_argument("--json", action="store_true", help="for a script")
    examined.set_defaults(verb=_doctor)
    prepared = verbs.add_parser(
        "prepare", help="say what a lab host lacks, and install it if asked"
    )
    _add_options(prepared)
    prepared.add_argument("--yes", action="store_true", help="do it")
    prepared.set_defaults(verb=_prepare)
    restored = verbs.add_parser(
        "restore", help="put back a KVM module that a broken job has changed"
    )
    _add_options(restored)
    restored.set_defaults(verb=_restore)
    booted = verbs.add_parser("up", help="boot an emulated host that stays, as a lab machine")
    _add_options(booted)
    booted.add_argument("--name", default="", help="its name for ssh [the kind of host]")
    booted.set_defaults(verb=_up)
    ended = verbs.add_parser("down", help="end what `l2gate up` has booted")
    ended.add_argument("names", nargs="*", metavar="NAME", help="which [all of them]")
    ended.set_defaults(verb=_down)


def _add_options(parser: argparse.ArgumentParser) -> None:
    for option in options.OPTIONS:
        if option.name == "keep":
            parser.add_argument("--keep", action="store_const", const="yes", help=option.help)
        else:
            default = f" [{option.default}]" if option.default else ""
            flag = f"--{option.name.replace('_', '-')}"
            parser.add_argument(flag, help=f"{option.help}{default}")


def _wanted(arguments: argparse.Namespace) -> options.Settings:
    asked = {option.name: getattr(arguments, option.name, None) for option in options.OPTIONS}
    return options.resolve(asked, options.from_environment())


def _complain(error: L2gateError) -> None:
    print(f"l2gate: {error.cause}", file=sys.stderr)
    if error.mend:
        print(f"  mend: {error.mend}", file=sys.stderr)


# --- l2gate images, l2gate kernels ----------------------------------------------------------------


def _images(arguments: argparse.Namespace, console: Console) -> int:
    build_all(Timeline(Progress(console, verbose=True)), arguments.series)
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
            console.print(f"    can be used: {kind.check(wanted)}", markup=False)
        except L2gateError as error:
            console.print(f"    cannot be used: {error.cause}", markup=False, soft_wrap=True)
            console.print(f"    mend: {error.mend}", markup=False, soft_wrap=True)
    for host in standing():
        console.print(f"{host.url}: {host.kind} with {host.kernel}, by `l2gate up`", markup=False)
        console.print(f"    {host.ssh}", markup=False, soft_wrap=True)
    console.print("local: this machine; ssh://[user@]name[:port]: a machine over SSH", markup=False)
    console.print("    l2gate doctor --host H tells whether it can be used", markup=False)
    return 0


# --- l2gate doctor, prepare, restore, up, down ----------------------------------------------------


def _doctor(arguments: argparse.Namespace, console: Console) -> int:
    wanted = _wanted(arguments)
    checks = doctor.examine(wanted)
    ready = doctor.ready(checks)
    if arguments.json:
        found = {"host": wanted.host, "ready": ready, "checks": [asdict(c) for c in checks]}
        print(json.dumps(found, indent=1))
        return 0 if ready else BenchError.exit_code
    for check in checks:
        state = "ok" if check.enough else "NO" if check.needed else "note"
        line = f"{state:<5}{check.area:<12}{check.cause}"
        style = {"ok": "green", "NO": "bold red"}.get(state, "yellow")
        console.print(line, markup=False, soft_wrap=True, style=style if state != "ok" else None)
        if check.mend:
            console.print(f"                 mend: {check.mend}", markup=False, soft_wrap=True)
    said = "the suite can run" if ready else "the suite cannot run"
    console.print(f"\n{wanted.host}: {said}", markup=False)
    return 0 if ready else BenchError.exit_code


def _lab(arguments: argparse.Namespace, verb: str) -> tuple[lab.Lab, options.Settings]:
    wanted = _wanted(arguments)
    kind = kinds.find(wanted.host)
    if kind.emulated:
        raise UsageError(
            f"{verb} is for lab hosts, not for {kind.name}", "--host local or ssh://..."
        )
    kind.check(wanted)
    return lab.open_lab(kind.name, helper.build(Timeline()), wanted), wanted


def _prepare(arguments: argparse.Namespace, console: Console) -> int:
    host, wanted = _lab(arguments, "prepare")
    try:
        survey = host.survey(wanted)
        if survey.qemu:
            console.print(f"nothing to do: {survey.qemu.program} is there", markup=False)
            return 0
        if not survey.install:
            raise MissingPrerequisite(
                survey.qemu_problem, "install QEMU for x86, or name it: --qemu"
            )
        console.print(f"would be run on {wanted.host} as root: {survey.install}", markup=False)
        if not arguments.yes:
            console.print("do it: the same with --yes", markup=False)
            return 0
        done = host.connection.run(survey.install, Deadline("installing QEMU", 1800))
        console.print(done.stdout.strip()[-600:], markup=False)
        return 0
    finally:
        host.close()


def _restore(arguments: argparse.Namespace, console: Console) -> int:
    host, wanted = _lab(arguments, "restore")

    def waiting(holder: str) -> None:
        console.print(f"waiting up to {wanted.wait} s for the host: {holder} has it", markup=False)

    try:
        console.print(lab.restore(host, wanted, waiting), markup=False)
        return 0
    finally:
        host.close()


def _up(arguments: argparse.Namespace, console: Console) -> int:
    wanted = _wanted(arguments)
    kind = kinds.find(wanted.host)
    if not kind.emulated:
        raise UsageError(
            f"{kind.name} is not l2gate's to boot", "use --host emulated-intel or -amd"
        )
    preflight(wanted)
    kind.prepare_kernel(wanted, Timeline(Progress(Console(stderr=True), verbose=True)))
    host = up.up(wanted, kind.name, arguments.name)
    console.print(f"{host.kind} is up with {host.kernel}", markup=False)
    console.print(f"  l2gate run --host {host.url}", markup=False)
    console.print(f"  {host.ssh}", markup=False, soft_wrap=True)
    console.print(f"  l2gate down {host.name}", markup=False)
    return 0


def _down(arguments: argparse.Namespace, console: Console) -> int:
    there = {host.name: host for host in standing()}
    for name in arguments.names:
        if name not in there:
            raise UsageError(f"no host {name} is up", f"up are: {', '.join(there) or 'none'}")
    chosen: list[Standing] = [there[n] for n in arguments.names] or list(there.values())
    for host in chosen:
        up.down(host)
        console.print(f"{host.name} is down", markup=False)
    return 0


def _on_all(arguments: argparse.Namespace, verb: Callable[[options.Settings], int]) -> int:
    """A verb that asks more than once: what cannot be meant is refused before the first time."""
    if getattr(arguments, "runs", 1) < 1:
        raise UsageError(f"--runs {arguments.runs} is none", "use 1 or more")
    wanted = _wanted(arguments)
    preflight(wanted)
    said = Timeline(Progress(Console(stderr=True), verbose=True))
    kinds.find(wanted.host).prepare_kernel(wanted, said)
    return verb(wanted)


# --- l2gate contract ------------------------------------------------------------------------------


def _contract(arguments: argparse.Namespace, console: Console) -> int:
    said = Timeline(Progress(Console(stderr=True), verbose=True))
    answer = oracle.ask(_wanted(arguments), said, boot=arguments.boot)
    if arguments.json:
        print(json.dumps(answer.to_json(), indent=1))
    else:
        oracle.show(console, answer)
    return 0


# --- l2gate run -----------------------------------------------------------------------------------


def _run(arguments: argparse.Namespace, console: Console) -> int:
    wanted = _wanted(arguments)
    if arguments.json:
        _check_writable(arguments.json)
    preflight(wanted)
    with Scratch("run") as folder, Progress(console, arguments.verbose) as progress:
        timeline = folder / "timeline.jsonl"
        # Built here and not in the job: a patch that does not compile is bad usage.
        with_console = Timeline(progress, FileSink(timeline))
        with suppress(MissingPrerequisite):  # the job says so itself, and skips its tests
            kinds.find(wanted.host).prepare_kernel(wanted, with_console)
        job = Job(wanted, arguments.tests, folder, timeline)
        result, code = job.run(progress)
    show(console, result)
    if arguments.json:
        result.write(arguments.json)
    return code


def _check_writable(path: Path) -> None:
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(f"--json {path} cannot be written", "name a file in a folder of yours")


if __name__ == "__main__":
    sys.exit(main())
