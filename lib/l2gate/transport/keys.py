# SPDX-License-Identifier: MIT
"""Keys of one bench: made for it, kept in its private folder, gone with it."""

from __future__ import annotations

import base64
import io
import os
import struct
import tarfile
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

#: Bytes for a level's random pool: more than any kernel wants before getrandom(2) answers.
_ENTROPY = 256


@dataclass(frozen=True)
class KeyPair:
    """An Ed25519 key pair."""

    private: Ed25519PrivateKey

    @classmethod
    def generate(cls) -> KeyPair:
        return cls(Ed25519PrivateKey.generate())

    @property
    def public_line(self) -> str:
        """`ssh-ed25519 AAAA...`, as in authorized_keys and known_hosts."""
        raw = self.private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        return raw.decode()

    @property
    def public_base64(self) -> str:
        return self.public_line.split()[1]

    def write_openssh(self, path: Path) -> None:
        """The private half for paramiko or ssh(1), mode 0600."""
        pem = self.private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
            f.write(pem)

    def dropbear_host_key(self) -> bytes:
        """The private half as dropbear stores it (its source: signkey.c, ed25519.c)."""
        seed = self.private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        public = base64.b64decode(self.public_base64)[-32:]
        name = b"ssh-ed25519"
        return struct.pack(">I", len(name)) + name + struct.pack(">I", 64) + seed + public


def write_seed(path: Path, name: str, host_key: KeyPair, allowed: KeyPair) -> None:
    """The disk that gives a booting level its name, its keys and random bytes to begin with: a
    plain tar, mode 0600.

    Its first member is `name`: by these first bytes a booting level knows the disk.
    """
    members = {
        "name": name.encode() + b"\n",
        "host_key": host_key.dropbear_host_key(),
        "authorized_keys": allowed.public_line.encode() + b"\n",
        "entropy": os.urandom(_ENTROPY),
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member, content in members.items():
            info = tarfile.TarInfo(member)
            info.size, info.mode = len(content), 0o600
            archive.addfile(info, io.BytesIO(content))
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
        f.write(buffer.getvalue())
