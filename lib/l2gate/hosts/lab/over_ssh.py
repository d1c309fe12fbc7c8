# SPDX-License-Identifier: MIT
"""`ssh://name`: a machine over SSH, by the user's own configuration."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace

from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import UsageError
from l2gate.foundation.settings import Settings
from l2gate.hosts.checks import Check
from l2gate.hosts.kind import Kind
from l2gate.hosts.lab.access import Lab
from l2gate.hosts.lab.kind import LabKind
from l2gate.hosts.persistent import config_of, persistent_hosts
from l2gate.transport import ssh_config
from l2gate.transport.connection import Connection


class SshKind(LabKind):
    """As ssh(1) reaches it; a host of `l2gate up` by the configuration that it has written."""

    @property
    def label(self) -> str:
        return "ssh"

    def named(self, word: str) -> Kind | None:
        return replace(self, name=word) if word.startswith(ssh_config.SCHEME) else None

    def candidates(self) -> Sequence[str]:
        return [host.url for host in persistent_hosts()]

    def connect(self, settings: Settings, deadline: Deadline) -> Connection:
        name = ssh_config.Name.parse(self.name, settings.ssh_config)
        if not name.config:
            name = replace(name, config=config_of(name.host))
        return ssh_config.connect("L0", name, deadline)

    def check_access(self, settings: Settings) -> None:
        ssh_config.Name.parse(self.name)
        config = settings.ssh_config
        if config and (config.is_dir() or not os.access(config, os.R_OK)):
            raise UsageError(f"ssh_config = {config} cannot be read",
                             "give a file that `ssh -F` accepts, or leave it out")  # fmt: skip

    def why_unreachable(self) -> str:
        return "" if shutil.which("ssh") else "there is no ssh(1)"

    def reached(self, lab: Lab) -> Check:
        """L1's SSH server is reached by the helper there: it needs no forwarding of the host's."""
        told = f"{lab.connection.level} is reached, one session carries all"
        return Check("host", "SSH", told, True)


KIND = SshKind(
    name=f"{ssh_config.SCHEME}[user@]name[:port]",
    what="a machine over SSH",
    options=frozenset({"qemu", "modules", "wait", "ssh_config"}),
)
