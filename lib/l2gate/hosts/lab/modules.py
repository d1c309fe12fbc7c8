# SPDX-License-Identifier: MIT
"""The KVM module of a lab host: loaded with nested=1 for a job, and put back as it was.

The work is done on the host by kvm-module.sh, which writes the former state down there first: what
a controller or a connection that broke off left changed can be put back by anyone who comes later.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import BenchError
from l2gate.transport.connection import Connection

SCRIPT = Path(__file__).with_name("kvm-module.sh")


@dataclass(frozen=True)
class ModuleScript:
    """kvm-module.sh on a host; ``folder`` is where it keeps its note."""

    connection: Connection
    script: str
    folder: str

    def command(self, verb: str) -> str:
        return f"sh {self.script} {self.folder} {verb}"

    def noted(self, deadline: Deadline) -> bool:
        """Whether a job has changed the module and has not put it back yet."""
        return self.connection.run(f"test -e {self.folder}/former-module", deadline,
                                   check=False).status == 0  # fmt: skip

    def nest(self, deadline: Deadline) -> str:
        """Load the module with nested=1, noting its state first. Raises BenchError, with the
        module as it was. Call it under the host's lock."""
        return self._run("nested", deadline)

    def restore(self, deadline: Deadline) -> str:
        """Put back what is noted. Raises BenchError, with the note kept."""
        return self._run("restore", deadline)

    def _run(self, verb: str, deadline: Deadline) -> str:
        done = self.connection.run(self.command(verb), deadline, check=False)
        if done.status == 0:
            return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""
        said = dict(re.findall(r"^(cause|hint): (.*)$", done.stderr, re.MULTILINE))
        cause = said.get("cause") or done.stderr.strip() or f"ended with {done.status}"
        raise BenchError(f"L0's KVM module: {cause}", said.get("hint", ""))
