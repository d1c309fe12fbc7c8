# SPDX-License-Identifier: MIT
"""SSH through paramiko: to a level of ours, whose host key is pinned; see sshname.py for others."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import paramiko

from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import BenchError, DeadlineExpired
from l2gate.transport.connection import Connection

#: Seconds in which a server that refuses a session is asked again.
_REFUSED_SECONDS = 2.0


@dataclass(frozen=True)
class Endpoint:
    """Where a level's SSH server is, and by which keys the two sides know each other."""

    level: str
    address: str
    port: int
    user: str
    key_file: str
    host_key: str


class SshConnection(Connection):
    """An SSH connection of this process."""

    def __init__(
        self,
        level: str,
        where: str,
        client: paramiko.SSHClient,
        closing: Sequence[Callable[[], None]] = (),
    ) -> None:
        """``client`` is connected; ``where`` is for messages, ``closing`` what ends with it."""
        super().__init__(level)
        self.where, self._client, self._closing = where, client, closing

    @classmethod
    def to_level(
        cls, endpoint: Endpoint, deadline: Deadline, via: Connection | None = None
    ) -> SshConnection:
        """Connect to a level of ours; with ``via``, through that connection.

        Raises DeadlineExpired if the server does not answer in time, BenchError if it is not
        the one whose host key is pinned or does not take our key.
        """
        where = f"{endpoint.address}:{endpoint.port}"
        return cls(endpoint.level, where, deadline_connect(endpoint, deadline, via))

    def close(self) -> None:
        self._client.close()
        for close in self._closing:
            close()

    def channel(self, deadline: Deadline) -> paramiko.Channel:
        transport = self._client.get_transport()
        try:
            if transport is None or not transport.is_active():
                raise paramiko.SSHException("the connection is closed")
            return _session(transport, deadline)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self._lost(error) from error

    def tunnel(self, address: str, port: int, deadline: Deadline) -> paramiko.Channel:
        """A TCP connection made from the far side (direct-tcpip)."""
        transport = self._client.get_transport()
        if transport is None:
            raise self._lost(paramiko.SSHException("the connection is closed"))
        return transport.open_channel(
            "direct-tcpip", (address, port), ("127.0.0.1", 0), timeout=max(1.0, deadline.remaining)
        )

    def _lost(self, error: Exception) -> BenchError:
        return BenchError(
            f"{self.level}: the SSH connection to {self.where} is lost ({error})",
            "look at that level's console in the job's results",
        )


def _session(transport: paramiko.Transport, deadline: Deadline) -> paramiko.Channel:
    """A session. A server with MaxSessions 1 still has the last one for a moment after both sides
    have closed it, and refuses."""
    soon = time.monotonic() + _REFUSED_SECONDS
    while True:
        try:
            return transport.open_session(timeout=max(1.0, deadline.remaining))
        except paramiko.ChannelException:
            if time.monotonic() > soon:
                raise
            time.sleep(0.02)


def dial(address: str, port: int, seconds: float) -> socket.socket:
    """A TCP connection for SSH. Raises OSError.

    Without Nagle's delay: a small packet would wait for the other side's delayed acknowledgement
    of the one before, 40 ms for each question.
    """
    sock = socket.create_connection((address, port), timeout=seconds)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def deadline_connect(
    endpoint: Endpoint, deadline: Deadline, via: Connection | None
) -> paramiko.SSHClient:
    """An authenticated client, tried again until the server is there or the deadline passes."""
    last = ""
    while not deadline.expired:
        client = _client(endpoint)
        try:
            sock: Any = (
                via.tunnel(endpoint.address, endpoint.port, deadline)
                if via
                else dial(endpoint.address, endpoint.port, max(0.1, deadline.remaining))
            )
            if isinstance(sock, socket.socket):  # a question and an answer, and no long stream
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.connect(
                endpoint.address,
                endpoint.port,
                endpoint.user,
                key_filename=endpoint.key_file,
                sock=sock,
                timeout=deadline.remaining,
                banner_timeout=deadline.remaining,
                auth_timeout=deadline.remaining,
                look_for_keys=False,
                allow_agent=False,
            )
            return client
        except (paramiko.BadHostKeyException, paramiko.AuthenticationException) as error:
            client.close()
            raise BenchError(f"{endpoint.level}: SSH refused: {error}") from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            client.close()
            last = str(error)
            time.sleep(min(0.1, deadline.remaining))
    raise DeadlineExpired(
        f"{endpoint.level}: no SSH on {endpoint.address}:{endpoint.port} within "
        f"{deadline.seconds:.0f} s ({last})",
        "look at that level's console in the job's results",
    )


def _client(endpoint: Endpoint) -> paramiko.SSHClient:
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    kind, encoded = endpoint.host_key.split()[:2]
    key = paramiko.PKey.from_type_string(kind, base64.b64decode(encoded))
    port = endpoint.port
    name = endpoint.address if port == 22 else f"[{endpoint.address}]:{port}"
    client.get_host_keys().add(name, kind, key)
    return client
