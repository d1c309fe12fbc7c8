# SPDX-License-Identifier: MIT
"""`ssh://[user@]name[:port]`: a machine by the name that ssh(1) knows it by.

What a name means is asked of ssh(1) itself (`ssh -G`), so aliases, Include, Match, identity files,
ports and jumps hold as a person has set them up. The connection is paramiko's.
"""

from __future__ import annotations

import base64
import contextlib
import getpass
import hashlib
import re
import shlex
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import paramiko

from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import BenchError, UsageError
from l2gate.foundation.process import run
from l2gate.transport.connection import Connection
from l2gate.transport.ssh import SshConnection, dial

SCHEME = "ssh://"


@dataclass(frozen=True)
class Name:
    """A name as it was said: what the command line of ssh(1) takes."""

    host: str
    user: str = ""
    port: int = 0
    #: A file read instead of ~/.ssh/config (`ssh -F`); None: that one.
    config: Path | None = None

    @classmethod
    def parse(cls, spec: str, config: Path | None = None) -> Name:
        """Of `ssh://[user@]name[:port]`. Raises UsageError."""
        text = spec if spec.startswith(SCHEME) else SCHEME + spec
        try:
            parts = urlsplit(text)
            port = parts.port or 0
        except ValueError as error:
            raise UsageError(f"{spec}: {error}", "use ssh://[user@]name[:port]") from None
        host = parts.netloc.rpartition("@")[2]
        host = host.partition("]")[0].lstrip("[") if host.startswith("[") else host.split(":")[0]
        odd = not host.isprintable() or any(c in " \t'\"`$;&|<>(){}\\" for c in parts.netloc)
        odd = odd or parts.port == 0 or parts.username == ""
        if not host or host.startswith("-") or odd or parts.path.strip("/") or parts.password:
            raise UsageError(f"{spec} does not name a machine", "use ssh://[user@]name[:port]")
        return cls(host, parts.username or "", port, config)

    def command(self, *options: str) -> list[str]:
        """The words of ssh(1) that lead there."""
        words = ["ssh", *options]
        if self.config:
            words += ["-F", str(self.config)]
        if self.port:
            words += ["-p", str(self.port)]
        return [*words, f"{self.user}@{self.host}" if self.user else self.host]

    def by_ssh(self, *options: str) -> str:
        """A line for a person to type."""
        return shlex.join(self.command(*options))


@dataclass(frozen=True)
class Target:
    """What a name means."""

    name: Name
    address: str
    port: int
    user: str
    keys: tuple[str, ...]
    known_hosts: tuple[str, ...]
    #: The name under which known_hosts has it, if it is not the address.
    alias: str
    jumps: tuple[str, ...]
    proxy_command: str
    #: Whether the agent and the usual keys may be tried beside ``keys``.
    others: bool


def resolve(name: Name) -> Target:
    """Ask ssh(1). Raises MissingPrerequisite without one, BenchError for a broken configuration."""
    if name.config and not name.config.is_file():
        raise UsageError(
            f"ssh_config = {name.config} does not exist", "give a file that `ssh -F` accepts"
        )
    words = name.command("-G")
    text = run(words, what=f"asking ssh what {name.host} means", hint="see ssh_config(5)").decode()
    said: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        said.setdefault(key, []).append(value)

    def one(key: str, default: str = "") -> str:
        value = said.get(key, [default])[0]
        return "" if value == "none" else value

    address, port = one("hostname", name.host), int(one("port", "22"))
    user = one("user", getpass.getuser())

    keys = [_expand(key, name, address, port, user) for key in said.get("identityfile", [])]
    known = [*_files(one("userknownhostsfile")), *_files(one("globalknownhostsfile"))]
    return Target(
        name=name,
        address=address,
        port=port,
        user=user,
        keys=_existing(keys),
        known_hosts=_existing(known),
        alias=one("hostkeyalias"),
        jumps=tuple(filter(None, one("proxyjump").split(","))),
        proxy_command=one("proxycommand"),
        others=one("identitiesonly", "no") != "yes",
    )


def _files(line: str) -> list[str]:
    """The names in ``line``, in which `ssh -G` quotes nothing: of words that together name a file
    that exists, one name is made."""
    words, names = line.split(" "), []
    while words:
        ends = range(len(words), 0, -1)
        whole = (end for end in ends if Path(" ".join(words[:end])).expanduser().is_file())
        end = next(whole, 1)
        names.append(" ".join(words[:end]))
        words = words[end:]
    return names


def _existing(names: list[str]) -> tuple[str, ...]:
    paths = [Path(name).expanduser() for name in names]
    return tuple(str(path) for path in paths if path.is_file())


def connect(level: str, name: Name, deadline: Deadline) -> SshConnection:
    """Connect as ssh(1) would, through the jumps that it would take.

    Raises BenchError, with what fixes it, for a host key that is not known or has changed, for a
    login that is refused, and for a machine that does not answer.
    """
    target = resolve(name)
    with contextlib.ExitStack() as opened:
        sock: Any
        if target.jumps:
            via: Connection | None = None
            for jump in target.jumps:
                via = opened.enter_context(_connect(level, _jump(jump, name), deadline, via))
            assert via is not None
            sock = _tunnel(via, target, deadline)
        elif target.proxy_command:
            sock = paramiko.ProxyCommand(_expanded(target))
            opened.callback(sock.close)
        else:
            sock = _plain(target, deadline)
        return _login(level, target, sock, deadline, opened.pop_all().close)


def _connect(level: str, name: Name, deadline: Deadline, via: Connection | None) -> SshConnection:
    """To a jump host; one that has jumps of its own is reached by them if it is the first."""
    if via is None:
        return connect(level, name, deadline)
    target = resolve(name)
    return _login(level, target, _tunnel(via, target, deadline), deadline, lambda: None)


def _jump(spec: str, of: Name) -> Name:
    return Name.parse(spec, of.config)


def _tunnel(via: Connection, target: Target, deadline: Deadline) -> Any:
    try:
        return via.tunnel(target.address, target.port, deadline)
    except paramiko.SSHException as error:
        raise BenchError(
            f"the jump host does not reach {target.address}:{target.port}: {error}",
            f"check that `{target.name.by_ssh()}` gets there",
        ) from error


def _plain(target: Target, deadline: Deadline) -> socket.socket:
    try:
        return dial(target.address, target.port, max(0.1, deadline.remaining))
    except OSError as error:
        raise BenchError(
            f"{target.name.host} ({target.address}:{target.port}) does not answer: {error}",
            f"check that `{target.name.by_ssh()}` gets there",
        ) from error


def _expanded(target: Target) -> str:
    return _expand(target.proxy_command, target.name, target.address, target.port, target.user)


def _expand(text: str, name: Name, address: str, port: int, user: str) -> str:
    """``text`` with its tokens (ssh_config(5), TOKENS) replaced; `ssh -G` leaves some."""
    tokens = {
        "%h": address, "%p": str(port), "%r": user, "%n": name.host, "%%": "%",
        "%d": str(Path.home()), "%u": getpass.getuser(),
    }  # fmt: skip
    return re.sub("%.", lambda token: tokens.get(token[0], token[0]), text)


def _login(
    level: str, target: Target, sock: Any, deadline: Deadline, close: Callable[[], None]
) -> SshConnection:
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(_Unknown(target))
    for file in target.known_hosts:
        with contextlib.suppress(OSError, paramiko.SSHException):
            client.load_system_host_keys(file)
    keys: Any = list(target.keys) or None
    # An alias stands in known_hosts without a port, as for port 22.
    host, port = (target.alias, 22) if target.alias else (target.address, target.port)
    try:
        client.connect(
            host,
            port,
            target.user,
            key_filename=keys,
            sock=sock,
            timeout=deadline.remaining,
            banner_timeout=deadline.remaining,
            auth_timeout=deadline.remaining,
            look_for_keys=target.others,
            allow_agent=target.others,
        )
    except BaseException as error:
        client.close()
        close()
        raise _refused(target, error) from error
    # A cable that was pulled is noticed, though nothing is being said.
    transport = client.get_transport()
    if transport:
        transport.set_keepalive(_KEEPALIVE_SECONDS)
    return SshConnection(level, f"{target.name.host}", client, (close,))


_KEEPALIVE_SECONDS = 15


def _refused(target: Target, error: BaseException) -> BaseException:
    host = target.name.host
    if isinstance(error, BenchError):
        return error
    if isinstance(error, paramiko.BadHostKeyException):
        entry = target.alias or _entry(target)
        return BenchError(
            f"{host} presents a host key that known_hosts does not have ({_print_of(error.key)})",
            f"if the machine was reinstalled: ssh-keygen -R '{entry}' and "
            f"`{target.name.by_ssh('-o', 'StrictHostKeyChecking=ask')} true`",
        )
    if isinstance(error, paramiko.PasswordRequiredException):
        return BenchError(f"{host}: the key has a passphrase", "add it to the agent with ssh-add")
    if isinstance(error, paramiko.AuthenticationException):
        return BenchError(
            f"{host} refuses to log {target.user} in: {error}",
            f"check that `{target.name.by_ssh('-o', 'BatchMode=yes')} true` works without a "
            "password (ssh-copy-id, ssh-add)",
        )
    if isinstance(error, (paramiko.SSHException, OSError, EOFError)):
        why = str(error) or type(error).__name__
        return BenchError(f"{host}: no SSH: {why}", f"check that `{target.name.by_ssh()}` works")
    return error


class _Unknown(paramiko.MissingHostKeyPolicy):
    """Refuses a host key that no known_hosts has, with the command that adds it."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def missing_host_key(self, client: Any, hostname: str, key: paramiko.PKey) -> None:
        ask = self._target.name.by_ssh("-o", "StrictHostKeyChecking=ask")
        raise BenchError(
            f"the host key of {self._target.name.host} is not known ({_print_of(key)})",
            f"compare it with the machine's own and add it: `{ask} true`",
        )


def _print_of(key: paramiko.PKey) -> str:
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return f"{key.get_name()} SHA256:{digest}"


def _entry(target: Target) -> str:
    return target.address if target.port == 22 else f"[{target.address}]:{target.port}"
