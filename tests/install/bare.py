# SPDX-License-Identifier: MIT
"""A bare Debian: a root as a fresh system has it, in which a person types commands.

It is made by mmdebstrap from the mirror that mmdebstrap takes by itself. How this machine reaches
the network (proxies, its own certificates, an index of its own) is told to it as an administrator
would: nothing else of this machine is in it.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from l2gate.foundation.process import die_with_parent

_INSIDE = Path(__file__).with_name("inside.py")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: What a person has on it before anything of l2gate: the README's first line, as root or by sudo.
_FIRST = "apt-get update -q && apt-get install -q -y make git"
_BARE = ("ca-certificates",)
#: Whatever is mounted or started in these ends with the first process.
_NAMESPACES = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child")


class Failed(Exception):
    """A step ended with another status than 0, or did not end in time; the log says why."""


@dataclass(frozen=True)
class Person:
    """Who types: their login, home, and folder for the checkout, with a blank and an umlaut."""

    name: str
    home: str
    folder: str

    @property
    def checkout(self) -> str:
        return f"{self.home}/{self.folder}"


PERSONS = {
    "root": Person("root", "/root", "Büro Süd/l2gate"),
    "user": Person("jorg", "/home/Jörg Groß", "l2gate für alle"),
}

#: Settings of pip, and variables, by which a machine is told of its network.
_PIP = ("index-url", "extra-index-url", "trusted-host", "timeout", "default-timeout", "retries",
        "proxy", "cert")  # fmt: skip
_CERTIFICATES = r"^(SSL_CERT_FILE|PIP_CERT|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|GIT_SSL_CAINFO)$"


@functools.cache
def network_environment() -> dict[str, str]:
    """What of this machine's environment and of pip's configuration says how to reach an index.

    Folders of this machine are left out: the root does not have them.
    """
    said = {
        name: value
        for name, value in os.environ.items()
        if name.lower().endswith("_proxy") or re.match(_CERTIFICATES, name)
    }
    words = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(words, capture_output=True, text=True).stdout
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        name = key.rpartition(".")[2]
        places = [w for w in value.strip("'").split() if not w.startswith("file:")]
        if name in _PIP and places:
            said[f"PIP_{name.upper().replace('-', '_')}"] = " ".join(places)
    return said


def _network_files() -> set[Path]:
    """What the root needs of this machine's files, at the same place, to reach the network."""
    named = {v for k, v in network_environment().items() if re.match(_CERTIFICATES, k)}
    files = {Path("/etc/resolv.conf"), Path("/etc/ssl/certs/ca-certificates.crt")}
    return {file for file in files | {Path(name) for name in named} if file.is_file()}


def _apt_options() -> str:
    """What apt is told here of the way to its mirror."""
    dumped = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True)
    ours = re.findall(
        r"^Acquire::(?:https?|ftp|Check-\w+|Retries|Force\w+)\b.*;$", dumped.stdout, re.M
    )
    for scheme in ("http", "https"):
        if proxy := os.environ.get(f"{scheme}_proxy"):
            ours.append(f'Acquire::{scheme}::Proxy "{proxy}";')
    return "".join(f"{line}\n" for line in ours)


class Bare:
    """A root in a folder of its own, which is removed by `close`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def make(cls, suite: str, folder: Path, log: Path, seconds: float) -> Bare:
        """A fresh root of ``suite``. Raises Failed."""
        options = folder.with_name(f"{folder.name}.apt")
        options.write_text(_apt_options())
        words = [*_NAMESPACES, "--mount-proc", "mmdebstrap", "--variant=minbase"]
        words += [f"--include={','.join(_BARE)}"]
        # The disk of this machine need not outlive a power cut for a root that is thrown away.
        words += [f"--aptopt={options}", "--dpkgopt=force-unsafe-io", suite, str(folder)]
        bare = cls(folder)
        _logged(words, log, seconds, os.environ)
        for file in _network_files():
            within = folder / str(file).lstrip("/")
            within.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, within)
        (folder / "etc/hostname").write_text("bare\n")
        (folder / "etc/hosts").write_text("127.0.0.1 localhost bare\n::1 localhost\n")
        bare.type(_FIRST, PERSONS["root"], log, seconds)
        return bare

    def copy(self, folder: Path) -> Bare:
        """The same root once more."""
        subprocess.run(["cp", "-a", "--reflink=auto", self.folder, folder], check=True)
        return Bare(folder)

    def admit(self, person: Person, checkout: Path, log: Path) -> None:
        """Give ``person`` an account, sudo unless they are root, and a checkout."""
        root = PERSONS["root"]
        if person != root:
            self.type("apt-get install -q -y sudo", root, log, 300)
            self.type(f"useradd -m -s /bin/bash -d '{person.home}' {person.name}", root, log, 60)
            rule = self.folder / "etc/sudoers.d/person"
            rule.write_text(f"{person.name} ALL=(ALL) NOPASSWD: ALL\n")
        target = self.folder / person.checkout.lstrip("/")
        target.mkdir(parents=True)
        _copy_checkout(checkout, target)
        mine = f"chown -R {person.name}: '{person.home}'"
        self.type(mine, root, log, 60)
        commit = "git init -q && git add -A && git -c user.name=l2gate -c user.email=l2gate@bare"
        self.type(f"cd '{person.checkout}' && {commit} commit -q -m checkout", person, log, 60)

    def type(
        self,
        command: str,
        person: Person,
        log: Path,
        seconds: float,
        *,
        offline: bool = False,
        read_only: Mapping[Path, str] | None = None,
    ) -> float:
        """Have ``person`` run a command line; what it says goes to ``log``. Returns how many
        seconds it took. Raises Failed if it fails, or is not done after ``seconds``."""
        words = [*_NAMESPACES, "--uts", *(["--net"] if offline else [])]
        words += [sys.executable, str(_INSIDE), *(["--offline"] if offline else [])]
        for outside, within in (read_only or {}).items():
            words += ["--read-only", str(outside), within]
        words += [str(self.folder), "runuser", "-u", person.name, "--"]
        words += ["bash", "-c", f"cd && {command}"]
        environment = network_environment() | {
            "HOME": person.home,
            "USER": person.name,
            "LOGNAME": person.name,
            "PATH": _PATH,
            "TERM": "dumb",
            "DEBIAN_FRONTEND": "noninteractive",
        }
        with log.open("a") as file:
            file.write(f"\n$ {command}{'   (offline)' if offline else ''}\n")
        return _logged(words, log, seconds, environment)

    def close(self) -> None:
        remove(self.folder)
        self.folder.with_name(f"{self.folder.name}.apt").unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Remove a tree in which killed processes may still be writing their last."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.2)


def _copy_checkout(checkout: Path, target: Path) -> None:
    """What git knows of or would take in: changes that are not committed yet as well."""
    words = ["git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(words, cwd=checkout, capture_output=True, check=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (checkout / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(checkout / name, target / name)


def _logged(
    words: Sequence[str], log: Path, seconds: float, environment: Mapping[str, str]
) -> float:
    start = time.monotonic()
    with log.open("ab") as file:
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
                timeout=seconds,
                preexec_fn=die_with_parent(),
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"not done after {seconds:.0f} s") from None
    if done.returncode:
        raise Failed(f"exit status {done.returncode}")
    return time.monotonic() - start
