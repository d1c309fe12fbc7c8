# SPDX-License-Identifier: MIT
"""`l2gate up` and `l2gate down`: a host that stays up by itself, owned by a process."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from l2gate.foundation import settings as options
from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import BenchError, UsageError
from l2gate.foundation.events import FileSink, Timeline
from l2gate.foundation.guard import guarded
from l2gate.foundation.process import end_other
from l2gate.foundation.scratch import Scratch
from l2gate.foundation.settings import Settings, child_environment
from l2gate.hosts import kinds
from l2gate.hosts.host import HostContext, PersistentCapable
from l2gate.hosts.persistent import PersistentHost, announce, born_at, home, persistent_hosts
from l2gate.images import build

_UP_SECONDS = 600
_DOWN_SECONDS = 30.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def check_name(name: str) -> str:
    """``name`` itself. Raises UsageError for one that ssh would not take for one host, and for one
    that is taken."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not a valid host name",
            "use letters, digits, dashes, dots and underscores, and begin with a letter or digit",
        )
    if any(host.name == name for host in persistent_hosts()):
        raise UsageError(
            f"{name} is already up", f"run `l2gate down {name}`, or choose another --name"
        )
    return name


def up(settings: Settings, name: str) -> PersistentHost:
    """Boot a host in a process of its own, and wait until it can be reached.

    Raises BenchError with the owner's last words.
    """
    folder = home() / name
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise BenchError(
            f"cannot create {folder}: {error.strerror}", "set L2GATE_STATE to another folder"
        ) from error
    log = folder / "owner.log"
    command = [sys.executable, "-m", __spec__.name, name]
    with log.open("wb") as output:
        owner = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=child_environment(settings),
            start_new_session=True,
        )
    try:
        return _wait(owner, folder, log, settings)
    except BaseException:
        owner.send_signal(signal.SIGTERM)
        owner.wait()
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _wait(
    owner: subprocess.Popen[bytes], folder: Path, log: Path, settings: Settings
) -> PersistentHost:
    deadline = Deadline(f"{folder.name} is up", _UP_SECONDS * settings.patience)
    file = folder / "host.json"

    def ready() -> bool:
        if owner.poll() is not None:
            words = log.read_text(errors="replace").strip().splitlines()[-3:]
            raise BenchError(f"{folder.name} did not come up: {' / '.join(words)}")
        return file.exists()

    deadline.poll(ready, 0.1)
    return PersistentHost(**json.loads(file.read_text()))


def down(host: PersistentHost) -> None:
    """End a host and see that its owner is gone. Raises BenchError if it does not go."""
    if not end_other(host.owner, lambda: host.alive, signal.SIGTERM, _DOWN_SECONDS):
        raise BenchError(
            f"{host.name}: its owner, process {host.owner}, does not exit", "kill that process"
        )
    shutil.rmtree(host.folder, ignore_errors=True)


# --- the owner ------------------------------------------------------------------------------------


def _own(name: str) -> int:
    """Boot the host that the environment asks for, and stay until SIGTERM or its end."""

    wanted = options.resolve(options.from_environment())
    folder = home() / name
    timeline = Timeline(FileSink(folder / "timeline.jsonl"))
    kind = kinds.find(wanted.host)
    with Scratch("up") as private:
        kernel = kind.prepare_kernel(wanted, timeline)
        context = HostContext(wanted, build.images(timeline), private, folder, timeline)
        host = kind.make(context, kernel)
        assert isinstance(host, PersistentCapable) and kernel is not None
        try:
            host.boot()
            born = born_at(os.getpid())
            known = PersistentHost(name, kind.name, kernel.spec, os.getpid(), born)
            announce(known, host.endpoint)
            host.wait()
        finally:
            host.close()
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: _own(sys.argv[1])))
