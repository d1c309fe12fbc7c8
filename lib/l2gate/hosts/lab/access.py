# SPDX-License-Identifier: MIT
"""Access to a lab host: connected, root, with the helper on it.

A job needs one channel at a time: on it the helper's `serve` runs, and all else is a stream of it.
Nothing is installed there. What is brought lies in one folder (ROOM): the store, by content, which
later jobs use again, and a folder for each job, which its supervisor removes.
"""

from __future__ import annotations

import getpass
import hashlib
import socket
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from l2gate.foundation.deadline import Budget, Deadline
from l2gate.foundation.errors import BenchError, HelperError, MissingPrerequisite
from l2gate.foundation.settings import Settings
from l2gate.hosts.lab import qemuprogram
from l2gate.hosts.lab.modules import SCRIPT, ModuleScript
from l2gate.hosts.lab.prerequisites import Survey
from l2gate.hosts.lab.supervisor import Supervisor
from l2gate.hosts.probe import probe
from l2gate.transport.connection import Connection
from l2gate.transport.serve import served

#: The one folder that l2gate has on a lab host: persistent, root's alone, and not `noexec`.
ROOM = "/var/lib/l2gate"
STORE, JOBS = f"{ROOM}/store", f"{ROOM}/jobs"
LOCK = f"{ROOM}/lock"

_CONNECT_SECONDS = 30
#: A loop of the shell that a machine with hardware virtualization ends in this time.
_LOOP = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"
_LOOP_SECONDS = 0.02
#: No host is taken for slower: a deadline must come to its end.
_SLOWEST = 30.0

#: The folder; what killed supervisors have left in it, and what no job has used for a month, goes.
_MAKE_ROOM = f"""
umask 077 && mkdir -p {STORE} {JOBS} && chmod 700 {ROOM} || exit 1
find {STORE} -type f -mtime +30 -exec rm -f {{}} +
for job in {JOBS}/*; do
	[ -f "$job/supervisor" ] || continue
	grep -q "$job" "/proc/$(cat "$job/supervisor")/cmdline" 2>/dev/null || rm -rf "$job"
done
"""


@dataclass
class Lab:
    """A connection to a lab host, as root, with the helper on it. Close it."""

    connection: Connection
    user: str
    helper: str
    script: ModuleScript
    budget: Budget

    def close(self) -> None:
        self.connection.close()

    def probe(self) -> dict[str, Any]:
        """What the helper's `probe` says. Raises HelperError."""
        hint = f"is {ROOM} mounted noexec?"
        return probe(self.connection, self.helper, "L0", self.budget, hint)

    def survey(self, settings: Settings) -> Survey:
        """All that `host_checks` looks at."""
        deadline = self.budget.deadline("surveying L0", 30)
        qemu, problem = None, ""
        try:
            qemu = qemuprogram.find(self.connection, settings.qemu, deadline)
        except MissingPrerequisite as error:
            problem = error.cause
        free = self.connection.run(f"df -Pk {ROOM} | tail -1", deadline).stdout.split()
        return Survey(
            probe=self.probe(),
            user=self.user,
            qemu=qemu,
            qemu_problem=problem,
            install=install_command(self.connection, deadline) if qemu is None else "",
            room=ROOM,
            room_mb=int(free[-3]) // 1024 if len(free) > 3 else 0,
            settings=settings,
        )

    def store(self, source: Path, deadline: Deadline, mode: str = "600") -> str:
        """Bring a file into the store, by content; one that is there is used again."""
        digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
        target = f"{STORE}/{digest}-{source.name}"
        self.connection.put(source, target, deadline, mode)
        self.connection.run(["touch", target], deadline)  # used today
        return target

    def keep(
        self,
        job: str,
        settings: Settings,
        *,
        exclusive: bool,
        say: Any,
        log: Path | None = None,
    ) -> Supervisor:
        """Take the host's lock: for oneself where the module may change, else beside others."""
        within = Deadline("the host's lock", settings.wait)
        who = f"l2gate job {job} of {getpass.getuser()}@{socket.gethostname()}"
        argv = [self.helper, "supervise", "--lock", LOCK, "--folder", f"{JOBS}/{job}", "--who", who]
        if exclusive:
            argv += ["--exclusive", "--finally", self.script.command("restore")]
        return Supervisor(self.connection, argv, within, log, say)


class Access(Protocol):
    """How a lab host is reached."""

    @property
    def name(self) -> str: ...
    def connect(self, settings: Settings, deadline: Deadline) -> Connection: ...


def open_lab(access: Access, helper: Path, settings: Settings) -> Lab:
    """Connect, become root, make the folder and bring the helper.

    Raises BenchError where there is no connection, MissingPrerequisite where there is no root.
    """
    start = Deadline(f"connecting to {access.name}", _CONNECT_SECONDS * settings.patience)
    connection = access.connect(settings, start)
    try:
        user = _become_root(connection, access.name, start)
        clock = Deadline("measuring L0's speed", 2 * _CONNECT_SECONDS * settings.patience)
        slow = min(_SLOWEST, max(1.0, _slowness(connection, clock)))
        budget = Budget(slow * settings.patience)
        deadline = budget.deadline("bringing the helper to L0", 20)
        connection.run(_MAKE_ROOM, deadline)
        lab = Lab(connection, user, "", ModuleScript(connection, "", ROOM), budget)
        lab.helper = lab.store(helper, deadline, mode="700")
        lab.connection = connection = _served(connection, lab.helper, deadline)
        script = lab.store(SCRIPT, deadline)
        lab.script = ModuleScript(connection, script, ROOM)
        return lab
    except BaseException:
        connection.close()
        raise


def _served(connection: Connection, helper: str, deadline: Deadline) -> Connection:
    """From now on one channel carries all: as root, without a sudo for each command, and whatever
    the SSH server allows besides. Raises HelperError if the helper does not run."""
    through = served(connection, helper)
    try:
        through.channel(deadline)
    except BenchError as error:
        raise HelperError(error.cause, error.hint or f"is {ROOM} mounted noexec?") from error
    return through


def _become_root(connection: Connection, spec: str, deadline: Deadline) -> str:
    """Who we are there. Raises MissingPrerequisite for a user without a free sudo."""
    uid = connection.run("id -u", deadline).stdout.strip()
    user = connection.run("id -un", deadline, check=False).stdout.strip() or f"uid {uid}"
    if uid == "0":
        return f"{spec} as root"
    connection.sudo = True
    done = connection.run("id -u", deadline, check=False)
    if done.stdout.strip() == "0":
        return f"{spec} as {user}, root by sudo"
    why = (done.stderr.strip().splitlines() or ["sudo says nothing"])[-1]
    raise MissingPrerequisite(
        f"{spec}: {user} is not root and cannot become root without a password ({why})",
        f"log in as root, or let sudo do it: echo '{user} ALL=(root) NOPASSWD: ALL' "
        f">/etc/sudoers.d/l2gate",
    )


def _slowness(connection: Connection, deadline: Deadline) -> float:
    """How much slower than a machine with hardware virtualization it is, by the wall's clock."""
    connection.run("true", deadline)
    start = time.monotonic()
    connection.run("true", deadline)
    trip = time.monotonic() - start
    connection.run(_LOOP, deadline)
    return (time.monotonic() - start - 2 * trip) / _LOOP_SECONDS


#: A program that installs, what it is asked first, and the package that holds QEMU for x86.
_INSTALLERS = (
    ("apt-get", "apt-get install -y --no-install-recommends qemu-system-x86"),
    ("dnf", "dnf install -y qemu-kvm"),
    ("zypper", "zypper --non-interactive install qemu-x86"),
    ("pacman", "pacman -S --noconfirm qemu-system-x86"),
)


def install_command(connection: Connection, deadline: Deadline) -> str:
    """What would install QEMU there; empty if no installer is known."""
    for program, command in _INSTALLERS:
        if connection.run(f"command -v {program}", deadline, check=False).status == 0:
            return command
    return ""


def restore(lab: Lab, settings: Settings, waiting: Any) -> str:
    """Put the module back as its note says, under the host's lock. Raises BenchError."""
    if not lab.script.noted(lab.budget.deadline("looking for a note on L0", 10)):
        return "there is nothing to put back"
    job = f"restore-{uuid.uuid4().hex[:12]}"
    supervisor = lab.keep(job, settings, exclusive=True, say=waiting)
    try:
        return lab.script.restore(lab.budget.deadline("putting the KVM module back", 30))
    finally:
        supervisor.close(lab.budget.deadline("the supervisor ends", 30))
