# SPDX-License-Identifier: MIT
"""`make test-install`: the README's commands, typed on bare Debian systems by root and by a user.

In each: set-up, lint, unit tests and a run with nothing there yet, and then the same with no
network. Prints one table; ends with 0 if everything in it is good, else with 2.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bare import PERSONS, Bare, Failed, Person, network_environment, remove
from l2gate.foundation.settings import cache_dir, checkout
from rich.console import Console
from rich.table import Table

OUT = checkout() / "build/install"
#: Seconds that each command may take on a slow machine.
COMMANDS = {"setup": 2400.0, "lint": 600.0, "unit": 900.0, "run HOST=emulated-amd": 1200.0}
_ROOT_SECONDS = 900.0
GOOD = "good"


@dataclass
class Row:
    """One installation, and how long each command took: cold, then offline."""

    suite: str
    who: str
    #: The `PYTHON=` that was typed; empty: none was.
    asked: str = ""
    python: str = ""
    cold: dict[str, float] = field(default_factory=dict)
    offline: dict[str, float] = field(default_factory=dict)
    verdict: str = ""

    @property
    def log(self) -> Path:
        return OUT / f"{self.suite}-{self.who}{f'-{self.asked}' if self.asked else ''}.log"


@dataclass(frozen=True)
class Plan:
    """What is asked for."""

    suites: list[str]
    persons: list[str]
    cold: bool


class Trial:
    """One root and one person in it."""

    def __init__(self, bare: Bare, row: Row, plan: Plan) -> None:
        self.bare, self.row, self.plan = bare, row, plan
        self.person: Person = PERSONS[row.who]

    def all(self) -> Iterator[Row]:
        """A row for each Python that the suite serves; the first is the one that `make` takes."""
        self.bare.admit(self.person, checkout(), self.row.log)
        if not self.plan.cold:
            self._make_place_for_cache()
        row = self.row
        self._commands(row)
        if row.verdict != GOOD:
            yield row
            return
        row.python = self._says("python3 -c 'import sys; print(*sys.version_info[:2], sep=\".\")'")
        yield row
        for other in sorted(set(self._pythons()) - {row.python}):
            row = Row(self.row.suite, self.row.who, f"python{other}", other)
            row.log.unlink(missing_ok=True)
            packages = f"apt-get install -q -y {row.asked}-venv"
            self.bare.type(packages, PERSONS["root"], row.log, 600)
            self._commands(row)
            yield row

    def _commands(self, row: Row) -> None:
        try:
            # With a cache that is there already only what needs the network is done with one.
            first = COMMANDS if self.plan.cold else ("setup",)
            for command in first:
                row.cold[command] = self._make(command, row, offline=False)
            for command in COMMANDS:
                row.offline[command] = self._make(command, row, offline=True)
            row.verdict = GOOD
        except Failed as failure:
            row.verdict = f"FAILED: {failure}"
            print(row.log.read_text(errors="replace")[-3000:], flush=True)

    def _make(self, command: str, row: Row, *, offline: bool) -> float:
        typed = f"make {command}{f' PYTHON={row.asked}' if row.asked else ''}"
        said = f"{typed}{' (offline)' if offline else ''}"
        _say(row, f"{said} ...")
        try:
            took = self.bare.type(
                f"cd '{self.person.checkout}' && {typed}",
                self.person,
                row.log,
                COMMANDS[command],
                offline=offline,
                read_only=self._cache(),
            )
        except Failed as failure:
            raise Failed(f"{said}: {failure}") from None
        _say(row, f"{said}: done, {took:.0f} s")
        return took

    def _cache(self) -> dict[Path, str]:
        return {} if self.plan.cold else {cache_dir(): f"{self.person.home}/.cache/l2gate"}

    def _make_place_for_cache(self) -> None:
        self.bare.type("mkdir -p .cache/l2gate", self.person, self.row.log, 60)

    def _says(self, command: str) -> str:
        answer = self.bare.folder / "tmp/answer"
        self.bare.type(f"{command} >/tmp/answer", self.person, self.row.log, 120)
        return answer.read_text().strip()

    def _pythons(self) -> list[str]:
        """The versions that the suite has a package of, and that l2gate takes."""
        names = self._says("apt-cache pkgnames python3.").split()
        minors = [int(m[1]) for name in names if (m := re.fullmatch(r"python3\.(\d+)", name))]
        return [f"3.{minor}" for minor in minors if minor >= 11]


def _say(row: Row, words: str) -> None:
    print(f"{row.suite:>9} {row.who:<4}  {words}", flush=True)


def trials(plan: Plan) -> Iterator[Row]:
    roots = OUT / "roots"
    remove(roots)  # what a killed one left
    roots.mkdir(parents=True)
    try:
        for suite in plan.suites:
            log = OUT / f"{suite}.log"
            log.unlink(missing_ok=True)
            print(f"{suite:>9}       making a bare root ...", flush=True)
            try:
                bare = Bare.make(suite, roots / suite, log, _ROOT_SECONDS)
            except Failed as failure:
                yield Row(suite, "-", verdict=f"FAILED: no root: {failure}: see {log}")
                continue
            for who in plan.persons:
                yield from _trial(bare, Row(suite, who), plan)
            bare.close()
    finally:
        remove(roots)


def _trial(base: Bare, row: Row, plan: Plan) -> Iterator[Row]:
    row.log.unlink(missing_ok=True)
    bare = base.copy(base.folder.with_name(f"{row.suite}-{row.who}"))
    try:
        yield from Trial(bare, row, plan).all()
    except Failed as failure:
        row.verdict = f"FAILED: {failure}"
        yield row
    finally:
        bare.close()


def table(rows: list[Row]) -> Table:
    shown = Table(title="seconds: cold / offline", title_justify="left")
    for name in ("suite", "Python", "who", *(c.partition(" ")[0] for c in COMMANDS), "verdict"):
        shown.add_column(name, overflow="fold")
    for row in rows:
        times = [f"{_seconds(row.cold, c)} / {_seconds(row.offline, c)}" for c in COMMANDS]
        shown.add_row(row.suite, row.python or "-", row.who, *times, row.verdict)
    return shown


def _seconds(taken: dict[str, float], command: str) -> str:
    return f"{taken[command]:.0f}" if command in taken else "-"


@contextmanager
def alone() -> Iterator[None]:
    """One at a time in a checkout: the roots and the logs have one place, which is its owner's."""
    owner = checkout().stat()
    OUT.mkdir(parents=True, exist_ok=True)
    with (OUT / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            for file in (OUT.parent, OUT, *OUT.iterdir()):
                os.chown(file, owner.st_uid, owner.st_gid)


def as_root() -> None:
    """Go on as root: what is bare has accounts, devices and mounts of its own."""
    if os.getuid() == 0:
        return
    if not shutil.which("sudo"):
        sys.exit("make test-install makes bare systems: run it as root, or install sudo")
    kept = {"L2GATE_CACHE": str(cache_dir()), **network_environment()}
    words = ["sudo", "env", *(f"{name}={value}" for name, value in kept.items())]
    os.execvp("sudo", [*words, sys.executable, "-B", str(Path(__file__).parent), *sys.argv[1:]])


def main() -> int:
    parser = argparse.ArgumentParser(prog="make test-install", description=__doc__)
    parser.add_argument("--suites", nargs="+", default=["bookworm", "trixie"])
    parser.add_argument("--who", nargs="+", default=list(PERSONS), choices=PERSONS)
    parser.add_argument("--cold", choices=("yes", "no"), default="yes")
    asked = parser.parse_args()
    as_root()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the roots are removed
    rows: list[Row] = []
    with alone():
        try:
            for row in trials(Plan(asked.suites, asked.who, asked.cold == "yes")):
                rows.append(row)
                _say(row, row.verdict)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        finally:
            Console().print(table(rows))
            print(f"logs: {OUT}")
    return 0 if rows and all(row.verdict == GOOD for row in rows) else 2


if __name__ == "__main__":
    sys.exit(main())
