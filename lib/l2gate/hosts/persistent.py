# SPDX-License-Identifier: MIT
"""Emulated hosts that stand by themselves: `l2gate up` boots one, `l2gate down` ends it.

Each has a folder below L2GATE_STATE with its key, its known_hosts and an ssh_config, by which
ssh(1) and `--host ssh://NAME` reach it as they reach any machine, and a process that owns it.
"""

from __future__ import annotations

import json
import shlex
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from l2gate.foundation.settings import state_dir
from l2gate.transport.ssh import Endpoint


@dataclass(frozen=True)
class PersistentHost:
    """A host that stands: its name for ssh, its kind, its kernel, and the process that owns it."""

    name: str
    kind: str
    kernel: str
    owner: int
    #: When the owner was started (proc(5), field 22 of stat): a process id is used again.
    born: str

    @property
    def folder(self) -> Path:
        return home() / self.name

    @property
    def url(self) -> str:
        return f"ssh://{self.name}"

    @property
    def ssh(self) -> str:
        return shlex.join(["ssh", "-F", str(self.folder / "ssh_config"), self.name])

    @property
    def alive(self) -> bool:
        return born_at(self.owner) == self.born


def home() -> Path:
    """Where they are described."""
    return state_dir() / "persistent"


def born_at(pid: int) -> str:
    """When a process was started; empty if there is none, or if it has ended and only its parent
    has not taken note of it yet (proc(5): stat)."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else fields[18]


def config_of(name: str) -> Path | None:
    """The ssh_config of the persistent host ``name``; None if there is no such host."""
    config = home() / name / "ssh_config"
    return config if "/" not in name and config.is_file() else None


def persistent_hosts() -> list[PersistentHost]:
    """The hosts that stand. What one whose owner was killed has left is removed."""
    found = []
    for file in sorted(home().glob("*/host.json")):
        with suppress(OSError, ValueError, TypeError):
            host = PersistentHost(**json.loads(file.read_text()))
            if host.alive:
                found.append(host)
            else:
                shutil.rmtree(file.parent, ignore_errors=True)
    return found


def announce(host: PersistentHost, endpoint: Endpoint) -> None:
    """Write what ssh needs to reach it; host.json comes last, it says that all is there."""
    folder = host.folder
    key = folder / "key"
    key.touch(mode=0o600)
    key.write_bytes(Path(endpoint.key_file).read_bytes())
    known = folder / "known_hosts"
    known.write_text(f"[{endpoint.address}]:{endpoint.port} {endpoint.host_key}\n")
    lines = {
        "HostName": endpoint.address, "Port": endpoint.port, "User": endpoint.user,
        "IdentityFile": _quoted(key), "IdentitiesOnly": "yes",
        "UserKnownHostsFile": _quoted(known),
        "StrictHostKeyChecking": "yes",
    }  # fmt: skip
    config = "".join(f"    {key} {value}\n" for key, value in lines.items())
    (folder / "ssh_config").write_text(f"Host {host.name}\n{config}")
    draft = folder / ".host.json"
    draft.write_text(json.dumps(asdict(host)))
    draft.rename(folder / "host.json")


def _quoted(path: Path) -> str:
    """``path`` as ssh_config(5) takes it: blanks within quotes, and a % that begins no token."""
    return '"{}"'.format(str(path).replace("%", "%%"))
