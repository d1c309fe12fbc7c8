# SPDX-License-Identifier: MIT
"""Suite roots: a Debian suite unpacked in the cache, from which kernels and images are made.

A root holds the suite's kernel, its headers and source, the compiler that built it, and the
programs that go into the L0/L1 image. It is fetched once by mmdebstrap, from the mirror that
mmdebstrap takes by itself, and verified against the archive's keys.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from l2gate.foundation import cache
from l2gate.foundation.errors import BenchError, KernelSpecError, MissingPrerequisite
from l2gate.foundation.events import Timeline
from l2gate.foundation.process import owned

#: Bump when what `fetch` does changes in another way than the package list.
_RECIPE = "1"

_BUILD = ("gcc", "make", "patch", "xz-utils", "kmod", "zstd")
_EMULATOR = ("bochs", "bochs-term", "bochsbios", "ncurses-base")
_USERLAND = ("busybox-static", "dropbear-bin", "qemu-system-x86", "seabios")


@dataclass(frozen=True)
class Suite:
    """A Debian release and the kernel series it carries.

    The one that has the ``guests`` brings the programs of L0 and L1 as well; the others are fetched
    when one of their kernels is asked for.
    """

    name: str
    series: str
    guests: bool = False
    #: The suite that this one adds to, as backports do; empty: it stands by itself.
    onto: str = ""
    #: Packages of a root that has no kernel of its own; the rest is not in it then.
    only: tuple[str, ...] = ()

    @property
    def packages(self) -> tuple[str, ...]:
        if self.only:
            return self.only
        kernel = ("linux-image-amd64", "linux-headers-amd64", f"linux-source-{self.series}")
        programs = (*_USERLAND, *_EMULATOR) if self.guests else ()
        return (*kernel, *_BUILD, *programs)

    @property
    def what(self) -> str:
        if self.only:
            return "compiler of old kernels"
        return "kernel, QEMU, compiler" if self.guests else "kernel, compiler"

    @property
    def key(self) -> str:
        return f"{self.name}-{cache.digest(_RECIPE, *self.packages)}"


SUITES = (
    Suite("trixie", "6.12", guests=True),
    Suite("bookworm", "6.1"),
    Suite("bullseye", "5.10"),
    # The newest that Debian carries for a stable suite; sid and forky may have none that is signed.
    Suite("trixie-backports", "7.3", onto="trixie"),
)


def suite_of(series: str) -> Suite:
    """The suite that carries a kernel series. Raises KernelSpecError for an unknown one."""
    for suite in SUITES:
        if suite.series == series:
            return suite
    known = ", ".join(f"debian:{suite.series}" for suite in SUITES)
    raise KernelSpecError(f"no Debian suite is known for kernel {series}", f"use one of: {known}")


@dataclass(frozen=True)
class Root:
    """A fetched suite root; programs run inside it without network, in a private namespace."""

    suite: Suite
    path: Path

    @property
    def release(self) -> str:
        """The release of the suite's kernel, as `uname -r` says it."""
        releases = sorted(p.name for p in self._modules.iterdir())
        if len(releases) != 1:
            raise BenchError(
                f"{self.path} holds {len(releases)} kernels instead of one",
                "remove that folder and run `make images`",
            )
        return releases[0]

    @property
    def version(self) -> str:
        """The upstream version of that kernel, which its release need not tell (6.1.0-56-amd64 is
        6.1.192): as dpkg has it."""
        status = (self.path / "var/lib/dpkg/status").read_text()
        stanza = status.partition(f"\nPackage: linux-image-{self.release}\n")[2].partition("\n\n")[
            0
        ]
        found = re.search(r"^Version: ([\d.]+)", stanza, re.MULTILINE)
        return found.group(1) if found else "unknown"

    @property
    def modules(self) -> Path:
        """The module tree of that kernel."""
        return self._modules / self.release

    @property
    def _modules(self) -> Path:
        # Debian 11 has /lib beside /usr/lib, a later one has one link to the other.
        merged = self.path / "usr/lib/modules"
        return merged if merged.is_dir() else self.path / "lib/modules"

    def run(
        self,
        argv: Sequence[str],
        *,
        binds: Mapping[Path, str] | None = None,
        reads: Mapping[Path, str] | None = None,
        cwd: str = "/",
    ) -> subprocess.CompletedProcess[str]:
        """Run ``argv`` inside, the root read-only; ``binds`` maps folders of the controller to
        writable places inside, ``reads`` to others. Returns the finished process with stdout and
        stderr in one text.
        """
        words = ["bwrap", "--die-with-parent", "--unshare-pid", "--unshare-net"]
        words += ["--ro-bind", str(self.path), "/", "--dev", "/dev", "--proc", "/proc"]
        words += ["--tmpfs", "/tmp", "--tmpfs", "/mnt"]
        for outside, inside in (binds or {}).items():
            words += ["--bind", str(outside), inside]
        for outside, inside in (reads or {}).items():
            words += ["--ro-bind", str(outside), inside]
        words += ["--clearenv", "--setenv", "PATH", "/usr/sbin:/usr/bin:/sbin:/bin"]
        words += ["--setenv", "LC_ALL", "C.UTF-8", "--chdir", cwd, *argv]
        try:
            return subprocess.run(
                words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        except FileNotFoundError:
            raise MissingPrerequisite("bwrap is not installed", "run `make apt`") from None


def find(suite: Suite) -> Root:
    """The root as fetched before. Raises MissingPrerequisite if it was not."""
    if path := cache.find("roots", suite.key):
        return Root(suite, path)
    raise MissingPrerequisite(
        f"Debian {suite.name} (kernel {suite.series}) has not been fetched",
        "run `make images`" if suite.guests else f"run `l2gate images {suite.series}`",
    )


def fetch(suite: Suite, timeline: Timeline) -> Root:
    """The root, fetched now if it was not before. Raises BenchError with mmdebstrap's words."""

    def build(folder: Path) -> None:
        with timeline.step("controller", f"fetching Debian {suite.name} ({suite.what})"):
            _unpack(suite, folder)

    return Root(suite, cache.make("roots", suite.key, build))


def _unpack(suite: Suite, folder: Path) -> None:
    debstrap = ["mmdebstrap", "--variant=minbase", "--format=tar"]
    debstrap += ["--aptopt=APT::Install-Recommends false"]
    for trimmed in ("doc", "man", "locale", "info"):
        debstrap.append(f"--dpkgopt=path-exclude=/usr/share/{trimmed}/*")
    if suite.onto:
        # From the same mirror as its base, wherever that is.
        more = f"s/ {suite.onto} / {suite.name} /p"
        file = '"$1/etc/apt/sources.list'
        debstrap.append(f"--setup-hook=sed -n '{more}' {file}\" >{file}.d/{suite.name}.list\"")
        debstrap.append(f'--aptopt=APT::Default-Release "{suite.name}"')
    base = suite.onto or suite.name
    debstrap += [f"--include={','.join(suite.packages)}", base, "-"]
    # Unpacked as plain files of ours: no device nodes, no foreign owners, so no root is needed.
    untar = ["tar", "-x", "-C", str(folder), "--no-same-owner", "--exclude=./dev/*"]
    untar += ["--mode=u+rwX"]
    errors = folder.parent / f".{folder.name}.log"
    try:
        with errors.open("wb") as log:
            # The suite's own initramfs is never booted, and takes a quarter of the time to make.
            quick = os.environ | {"INITRD": "No"}
            with owned(debstrap, stdout=subprocess.PIPE, stderr=log, env=quick) as source:
                sink = subprocess.run(untar, stdin=source.stdout, stderr=log)
                assert source.stdout is not None
                source.stdout.close()
                status = source.wait()
        if status or sink.returncode:
            tail = "\n".join(errors.read_text(errors="replace").splitlines()[-8:])
            raise BenchError(
                f"mmdebstrap could not fetch Debian {suite.name}:\n{tail}",
                "check that apt reaches its mirror and that the disk has 3 GB free, then run "
                "`make images` again",
            )
    except FileNotFoundError as error:
        raise MissingPrerequisite(f"{error.filename} is not installed", "run `make apt`") from None
    finally:
        errors.unlink(missing_ok=True)
