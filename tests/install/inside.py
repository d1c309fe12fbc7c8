# SPDX-License-Identifier: MIT
"""Enters a bare root: `unshare ... python inside.py [options] ROOT WORD...`.

By pivot_root(2) and not by chroot(2), after which no user namespace can be made: bubblewrap and
mmdebstrap, which l2gate uses, need them. By plain util-linux and not by bubblewrap, under which no
set-user-id program works (sudo, newuidmap). Runs in namespaces of its own for mounts and processes,
so that whatever was mounted or started is gone when it ends.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import socket
import struct
import subprocess
from pathlib import Path

_NODES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2",
          "ptmx": "pts/ptmx"}  # fmt: skip
#: linux/sockios.h, linux/if.h.
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1


def mount(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True)


def devices(dev: Path) -> None:
    """What a container has in /dev: nothing of this machine's but what everybody may use."""
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", dev)
    for name in _NODES:
        (dev / name).touch()
        mount("--bind", f"/dev/{name}", dev / name)
    for name, target in _LINKS.items():
        (dev / name).symlink_to(target)
    (dev / "pts").mkdir()
    mount("-t", "devpts", "-o", "newinstance,ptmxmode=666,mode=620,gid=5", "devpts", dev / "pts")
    (dev / "shm").mkdir()
    mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", dev / "shm")


def loopback_up() -> None:
    """`ip link set lo up`: a network namespace is born with it down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh22x", b"lo", _IFF_UP)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, request)


def enter(root: Path, read_only: list[tuple[str, str]]) -> None:
    """Make ``root`` this process's root, with ``read_only`` folders of outside bound inside."""
    mount("--bind", root, root)
    mount("-t", "proc", "proc", root / "proc")
    mount("-t", "sysfs", "-o", "ro", "sysfs", root / "sys")
    devices(root / "dev")
    for outside, within in read_only:
        target = root / within.lstrip("/")
        mount("--bind", outside, target)
        mount("-o", "remount,bind,ro", target)
    os.chdir(root)
    subprocess.run(["pivot_root", ".", "."], check=True)
    subprocess.run(["umount", "-l", "."], check=True)
    os.chdir("/")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--offline", action="store_true", help="only a loopback device")
    parser.add_argument("--read-only", nargs=2, action="append", default=[], help="a folder inside")
    parser.add_argument("root", type=Path)
    parser.add_argument("words", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    if asked.offline:
        loopback_up()
    socket.sethostname("bare")
    enter(asked.root, asked.read_only)
    # What a background job ignores, a person at a shell does not.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.execvp(asked.words[0], asked.words)


if __name__ == "__main__":
    main()
