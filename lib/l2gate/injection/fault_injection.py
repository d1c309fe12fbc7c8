# SPDX-License-Identifier: MIT
"""What happens to QEMU when the helper is killed while it borrows one of its threads."""

from __future__ import annotations

from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import HelperError
from l2gate.transport.connection import Connection

#: Kills the helper, busy in the middle of its ioctls, after each of these many microseconds.
_SCRIPT = """
i=0
while [ $i -lt {times} ]; do
	yes state | {helper} inject --pid {pid} >/dev/null &
	usleep $((30000 + i * 1237 % 20000))
	kill -9 $!
	wait $! 2>/dev/null
	i=$((i + 1))
done
"""


def _where(connection: Connection, pid: int, deadline: Deadline) -> list[str]:
    """In which system call, with which arguments, stack and instruction each thread waits."""
    command = f"for t in /proc/{pid}/task/*; do echo $(cat $t/comm) $(cat $t/syscall); done"
    return sorted(connection.run(command, deadline).stdout.splitlines())


def kill_half_way(
    connection: Connection, helper: str, pid: int, times: int, deadline: Deadline
) -> None:
    """Kill the helper ``times`` times with SIGKILL; the VM must be stopped by QMP.

    Raises HelperError if afterwards a thread of QEMU is not where it was, to the last register
    that /proc shows.
    """
    before = _where(connection, pid, deadline)
    script = _SCRIPT.format(times=times, helper=helper, pid=pid)
    connection.run(script, deadline, check=False)
    last: list[str] = []

    def same() -> bool:
        last[:] = _where(connection, pid, deadline)
        return _vcpus(last) == _vcpus(before) or deadline.expired

    deadline.poll(same)
    if _vcpus(last) != _vcpus(before):
        raise HelperError(f"QEMU is not as it was: {before} before, {last} after")


def _vcpus(threads: list[str]) -> list[str]:
    # the others serve QMP meanwhile; the vCPU's is the one that was borrowed
    return [thread for thread in threads if thread.startswith("CPU ")]
