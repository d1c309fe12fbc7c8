# SPDX-License-Identifier: MIT
"""What happens to QEMU when the helper is killed while it borrows one of its threads."""

from __future__ import annotations

from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import HelperError
from l2gate.transport.connection import Connection

#: Kills the helper while it makes one ioctl after another, each time so many microseconds after its
#: first answer; says how often that was what has ended it.
_SCRIPT = """
answers={helper}.answers.$$
mkfifo -m 600 $answers || exit
trap 'rm -f $answers' EXIT
i=0 killed=0
while [ $i -lt {times} ]; do
	yes state | {helper} inject --pid {pid} >$answers &
	{{ read -r ready && read -r first && usleep $((i * 237 % 900)); kill -9 $!; }} <$answers
	wait $! 2>/dev/null
	[ $? -eq 137 ] && killed=$((killed + 1))
	i=$((i + 1))
done
echo $killed
"""


def _where(connection: Connection, pid: int, deadline: Deadline) -> list[str]:
    """In which system call, with which arguments, stack and instruction each thread of a VM's CPU
    waits, and which signals it blocks; the others serve QMP meanwhile."""
    task = f"/proc/{pid}/task/*"
    look = f"grep -H '' {task}/comm {task}/syscall; grep -H SigBlk {task}/status"
    told: dict[str, list[str]] = {}
    for line in connection.run(look, deadline).stdout.splitlines():
        path, _, words = line.partition(":")
        told.setdefault(path.rpartition("/")[0], []).append(words)
    waits = sorted(" ".join(words) for words in told.values() if words[0].startswith("CPU "))
    if not waits:
        raise HelperError("QEMU names no thread as that of a CPU", "is it started by l2gate?")
    return waits


def kill_half_way(
    connection: Connection, helper: str, pid: int, times: int, deadline: Deadline
) -> None:
    """Kill the helper ``times`` times with SIGKILL; the VM must be stopped by QMP.

    Raises HelperError if it did not come to that, or if afterwards a vCPU's thread of QEMU is not
    where it was, to the last register that /proc shows.
    """
    before = _where(connection, pid, deadline)
    script = _SCRIPT.format(times=times, helper=helper, pid=pid)
    killed = connection.run(script, deadline, check=False)
    if killed.stdout.split() != [str(times)]:
        words = " ".join(f"{killed.stdout} {killed.stderr}".split())
        raise HelperError(f"the helper was to be killed {times} times half-way, but: {words}")
    last: list[str] = []

    def same() -> bool:
        last[:] = _where(connection, pid, deadline)
        return last == before or deadline.expired

    deadline.poll(same)
    if last != before:
        raise HelperError(f"QEMU is not as it was: {before} before, {last} after")
