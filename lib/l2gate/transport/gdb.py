# SPDX-License-Identifier: MIT
"""QEMU's gdb server, spoken to just enough to plant a breakpoint (GDB manual, appendix E)."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import BenchError
from l2gate.transport.connection import Connection


class Gdb:
    """One client of a gdb server at a unix socket on L0. Use it only while the VM is stopped: QEMU
    takes a byte that comes while it runs for the wish to stop it.

    While a breakpoint is planted QEMU has KVM_GUESTDBG_USE_SW_BP set, and every #BP of the guest
    comes to it first.
    """

    def __init__(self, connection: Connection, helper: str, path: str, deadline: Deadline) -> None:
        argv = [helper, "bridge", "--unix", path, "--within", str(int(deadline.seconds))]
        self._channel = connection.execute(argv, deadline)
        self._rest = b""
        # Until it has answered once, it may still be about to stop the VM for its new client.
        self._channel.settimeout(max(0.1, deadline.remaining))
        self._channel.sendall(_packet("?"))
        self._read_packet()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def plant(self, address: int, deadline: Deadline) -> None:
        """A software breakpoint, where the page tables of the stopped vCPU have ``address``.

        Raises BenchError if QEMU does not take it.
        """
        self._ask(f"Z0,{address:x},1", deadline)

    def remove(self, address: int, deadline: Deadline) -> None:
        self._ask(f"z0,{address:x},1", deadline)

    def detach(self, deadline: Deadline) -> None:
        """QEMU drops all breakpoints and lets the VM go on, if it can."""
        self._ask("D", deadline)

    def close(self) -> None:
        self._channel.close()

    def _ask(self, words: str, deadline: Deadline) -> None:
        self._channel.settimeout(max(0.1, deadline.remaining))
        self._channel.sendall(_packet(words))
        try:
            answer = self._read_packet()
            while answer[:1] in (b"S", b"T"):  # it tells that the VM has stopped
                answer = self._read_packet()
        except TimeoutError:
            raise deadline.expire(f"QEMU's gdb server does not answer {words}") from None
        if answer != b"OK":
            raise BenchError(f"QEMU's gdb server answered {words} with {answer.decode()!r}")

    def _read_packet(self) -> bytes:
        while (end := self._rest.find(b"#")) < 0 or len(self._rest) < end + 3:
            data = self._channel.recv(4096)
            if not data:
                raise BenchError("QEMU's gdb server has closed the connection")
            self._rest += data
        packet, self._rest = self._rest[: end + 3], self._rest[end + 3 :]
        self._channel.sendall(b"+")
        return packet[packet.find(b"$") + 1 : -3]


def _packet(words: str) -> bytes:
    data = words.encode()
    return b"$" + data + b"#%02x" % (sum(data) & 0xFF)
