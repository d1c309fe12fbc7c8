# SPDX-License-Identifier: MIT
"""`l2gate hosts | doctor | prepare | restore | up | down`: the machines."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from rich.console import Console

from l2gate.bench import up as booting
from l2gate.bench.bench import preflight
from l2gate.foundation import settings as options
from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import BenchError, L2gateError, MissingPrerequisite, UsageError
from l2gate.hosts import doctor as checks
from l2gate.hosts import kinds
from l2gate.hosts.checks import Check
from l2gate.hosts.kind import Can
from l2gate.hosts.lab import access as lab
from l2gate.hosts.persistent import PersistentHost, persistent_hosts
from l2gate.verbs import warm
from l2gate.verbs.screen import beside, screen
from l2gate.verbs.verb import wanted


def hosts(arguments: argparse.Namespace) -> int:
    """List the kinds, and what stands."""
    settings, console = wanted(arguments), screen()
    for kind in kinds.KINDS:
        default = " (auto)" if kinds.find(options.AUTO) is kind else ""
        _print(console, f"{kind.name}{default}: {kind.what}")
        if not kind.boots:
            continue
        try:
            _print(console, f"    can be used: {kind.check(settings)}")
        except L2gateError as error:
            _print(console, f"    cannot be used: {error.cause}")
            _print(console, f"    hint: {error.hint}")
    for host in persistent_hosts():
        _print(console, f"{host.url}: {host.kind} with {host.kernel}, by `l2gate up`")
        _print(console, f"    {host.ssh}")
    if kept := warm.listed():
        for line in kept:
            _print(console, line)
        _print(console, "    l2gate warm --stop ends and removes them")
    _print(console, "l2gate doctor --host H tells whether a host can be used")
    return 0


def doctor(arguments: argparse.Namespace) -> int:
    """Say what is there and what is not. Returns 0 if the suite can run."""
    settings = wanted(arguments)
    found = checks.examine(settings)
    ready = checks.ready(found)
    if arguments.json:
        told = {"host": settings.host, "ready": ready, "checks": [asdict(c) for c in found]}
        print(json.dumps(told, indent=1))
        return 0 if ready else BenchError.exit_code
    console = screen()
    for check in found:
        if check.hinders or not arguments.quiet:
            _show_check(console, check)
    said = "the suite can run" if ready else "the suite cannot run"
    _print(console, f"\n{settings.host}: {said}")
    return 0 if ready else BenchError.exit_code


def _show_check(console: Console, check: Check) -> None:
    state = "ok" if check.enough else "NO" if check.needed else "note"
    style = {"ok": "", "NO": "bold red"}.get(state, "yellow")
    line = f"{state:<5}{check.area:<12}{check.cause}"
    console.print(line, markup=False, soft_wrap=True, style=style or None)
    if check.hint:
        _print(console, f"                 hint: {check.hint}")


def _lab(arguments: argparse.Namespace, verb: str) -> tuple[lab.Lab, options.Settings]:
    settings = wanted(arguments)
    return kinds.find(settings.host).open(settings, verb), settings


def prepare(arguments: argparse.Namespace) -> int:
    """Say what would be installed on a lab host, and do it if asked."""
    host, settings = _lab(arguments, "prepare")
    console = screen()
    try:
        survey = host.survey(settings)
        if survey.qemu:
            _print(console, f"nothing to do: {survey.qemu.program} is there")
            return 0
        if not survey.install:
            raise MissingPrerequisite(
                survey.qemu_problem, "install QEMU for x86, or name it: --qemu"
            )
        _print(console, f"would be run on {settings.host} as root: {survey.install}")
        if not arguments.yes:
            _print(console, "do it: the same with --yes")
            return 0
        done = host.connection.run(survey.install, Deadline("installing QEMU", 1800))
        _print(console, done.stdout.strip()[-600:])
        return 0
    finally:
        host.close()


def restore(arguments: argparse.Namespace) -> int:
    """Put back a module that a job has changed and could not."""
    host, settings = _lab(arguments, "restore")
    console = screen()

    def waiting(holder: str) -> None:
        _print(console, f"waiting up to {settings.wait:g} s for the host: {holder} has it")

    try:
        _print(console, lab.restore(host, settings, waiting))
        return 0
    finally:
        host.close()


def up(arguments: argparse.Namespace) -> int:
    """Boot a host that stays."""
    settings, console = wanted(arguments), screen()
    kind = kinds.require(settings.host, Can.STAY_UP)
    name = booting.check_name(kind.name if arguments.name is None else arguments.name)
    preflight(settings)
    kind.prepare_kernel(settings, beside(arguments))
    host = booting.up(settings, name)
    _print(console, f"{host.kind} is up with {host.kernel}")
    _print(console, f"  l2gate run --host {host.url}")
    _print(console, f"  {host.ssh}")
    _print(console, f"  l2gate down {host.name}")
    return 0


def down(arguments: argparse.Namespace) -> int:
    """End what is named. Raises UsageError if nothing is."""
    there, console = {host.name: host for host in persistent_hosts()}, screen()
    if arguments.all and arguments.names:
        raise UsageError("--all and a name exclude each other", "leave one of them out")
    for name in arguments.names:
        if name not in there:
            raise UsageError(f"no host {name} is up", _up_are(there, name))
    for host in [there[n] for n in arguments.names] or _all_of(there, arguments.all):
        booting.down(host)
        _print(console, f"{host.name} is down")
    return 0


def _all_of(there: dict[str, PersistentHost], asked: bool) -> list[PersistentHost]:
    """All that are up, if that was asked for or a person says yes. Raises UsageError."""
    if not there:
        if asked:
            return []
        raise UsageError("no host is up", "`l2gate up` boots one")
    if asked or _says_yes(f"end {', '.join(there)}? [y/N] "):
        return list(there.values())
    raise UsageError("no host is named", f"{_up_are(there, '')}; --all shuts down all of them")


def _says_yes(question: str) -> bool:
    """Asks only where a person can answer."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stdout and sys.stdout.isatty()):
        return False
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _up_are(there: dict[str, PersistentHost], name: str) -> str:
    return options.nearest(name, there) if there else "none is up; `l2gate up` boots one"


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
