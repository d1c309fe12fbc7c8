"""Suite roots: a Debian suite unpacked in the cache, from which kernels and images are made.

A root holds the suite's kernel, its headers and source, the compiler that built it, and the
programs that go into the L0/L1 image. It is fetched once by mmdebstrap, from the mirror that
mmdebstrap takes by itself, and verified against the archive's keys.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from l2gate.errors import BenchError, KernelSpecError, MissingPrerequisite
from l2gate.events import Timeline
from l2gate.images import cache

#: Bump when what `fetch` does changes in another way than the package list.
_RECIPE = "1"

_BUILD = ("gcc", "make", "patch", "xz-utils", "kmod", "zstd")
_EMULATOR = ("bochs", "bochs-term", "bochsbios", "ncurses-base")
_USERLAND = ("busybox-static", "dropbear-bin", "qemu-system-x86", "seabios")


@dataclass(frozen=True)
class Suite:
    """A Debian release and the kernel series it carries."""

    name: str
    series: str

    @property
    def packages(self) -> tuple[str, ...]:
        kernel = ("linux-image-amd64", "linux-headers-amd64", f"linux-source-{self.series}")
        return (*kernel, *_BUILD, *_USERLAND, *_EMULATOR)

    @property
    def key(self) -> str:
        return f"{self.name}-{cache.digest(_RECIPE, *self.packages)}"


SUITES = (Suite("trixie", "6.12"),)


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
        releases = sorted(p.name for p in (self.path / "usr/lib/modules").iterdir())
        if len(releases) != 1:
            raise BenchError(
                f"{self.path} holds {len(releases)} kernels instead of one",
                "remove that folder and run `make images`",
            )
        return releases[0]

    def run(
        self,
        argv: Sequence[str],
        *,
        binds: Mapping[Path, str] | None = None,
        cwd: str = "/",
    ) -> subprocess.CompletedProcess[str]:
        """Run ``argv`` inside, the root read-only; ``binds`` maps folders of the controller to
        writable places inside. Returns the finished process with stdout and stderr in one text.
        """
        words = ["bwrap", "--die-with-parent", "--unshare-pid", "--unshare-net"]
        words += ["--ro-bind", str(self.path), "/", "--dev", "/dev", "--proc", "/proc"]
        words += ["--tmpfs", "/tmp", "--tmpfs", "/mnt"]
        for outside, inside in (binds or {}).items():
            words += ["--bind", str(outside), inside]
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
        "run `make images`",
    )


def fetch(suite: Suite, timeline: Timeline) -> Root:
    """The root, fetched now if it was not before. Raises BenchError with mmdebstrap's words."""

    def build(folder: Path) -> None:
        with timeline.step("controller", f"fetching Debian {suite.name} (kernel, QEMU, compiler)"):
            _unpack(suite, folder)

    return Root(suite, cache.make("roots", suite.key, build))


def _unpack(suite: Suite, folder: Path) -> None:
    debstrap = ["mmdebstrap", "--variant=minbase", "--format=tar"]
    debstrap += ["--aptopt=APT::Install-Recommends false"]
    for trimmed in ("doc", "man", "locale", "info"):
        debstrap.append(f"--dpkgopt=path-exclude=/usr/share/{trimmed}/*")
    debstrap += [f"--include={','.join(suite.packages)}", suite.name, "-"]
    # Unpacked as plain files of ours: no device nodes, no foreign owners, so no root is needed.
    untar = ["tar", "-x", "-C", str(folder), "--no-same-owner", "--exclude=./dev/*"]
    untar += ["--mode=u+rwX"]
    errors = folder.parent / f".{folder.name}.log"
    try:
        with errors.open("wb") as log:
            # The suite's own initramfs is never booted, and takes a quarter of the time to make.
            quick = os.environ | {"INITRD": "No"}
            source = subprocess.Popen(debstrap, stdout=subprocess.PIPE, stderr=log, env=quick)
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
