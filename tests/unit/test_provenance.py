# SPDX-License-Identifier: MIT
"""Where a result comes from; whatever git is, or is not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from l2gate.foundation import suite
from l2gate.foundation.events import Event
from l2gate.records.descriptions import Digest, HostDescription, KernelDescription
from l2gate.records.events import HostFound, KernelFound, L1QemuFound
from l2gate.report import provenance
from l2gate.report.result import assemble


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of something with a version, one commit old."""
    root = tmp_path / "a checkout"
    (root / "lib").mkdir(parents=True)
    (root / "lib/pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    identity = {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER")
                for what in ("NAME", "EMAIL")}  # fmt: skip
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run(["git", *words], cwd=root, check=True, env=os.environ | identity)
    for module in (provenance, suite):
        monkeypatch.setattr(module, "checkout", lambda: root)
    return root


def test_a_clean_checkout_is_named_by_its_commit(repository: Path) -> None:
    (repository / "result.json").write_text("not the suite's")
    found = provenance.version()
    assert (found.number, found.changed) == ("1.2.3", False)
    assert re.fullmatch("[0-9a-f]{40}", found.commit)
    assert provenance.version_line() == f"l2gate 1.2.3 (commit {found.commit[:7]})"


@pytest.mark.parametrize("name", ["lib/pyproject.toml", "lib/new.py"])
def test_what_is_not_committed_is_told(repository: Path, name: str) -> None:
    with (repository / name).open("a") as file:
        file.write("\n")
    assert provenance.version().changed is True
    assert provenance.version_line().endswith(" +changes)")


def test_git_s_own_variables_do_not_mislead(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = provenance.version().commit
    monkeypatch.setenv("GIT_DIR", "/nowhere/.git")
    monkeypatch.setenv("GIT_WORK_TREE", "/")
    assert provenance.version().commit == commit


def test_a_copy_inside_another_repository_has_no_commit(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = repository / "vendor/l2gate"
    shutil.copytree(repository / "lib", copy / "lib")
    monkeypatch.setattr(provenance, "checkout", lambda: copy)
    assert provenance.version_line() == "l2gate 1.2.3 (commit unknown)"


def test_without_git_the_commit_is_unknown(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert provenance.version() == provenance.Version("1.2.3", "unknown", None)


def test_a_git_that_hangs_is_left(
    repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "bin/git"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(provenance, "_GIT_SECONDS", 0.2)
    assert provenance.version().commit == "unknown"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_the_checkout_may_be_another_s(repository: Path) -> None:
    for path in (repository, *repository.rglob("*")):
        os.chown(path, 12345, 12345)
    assert provenance.version().commit != "unknown"


def test_the_suite_is_another_when_one_of_its_files_is(repository: Path) -> None:
    digests = set()
    for text in ("a", "b"):
        (repository / "lib/l2gate").mkdir(exist_ok=True)
        (repository / "lib/l2gate/x.py").write_text(text)
        suite.digest.cache_clear()
        digests.add(suite.digest())
    suite.digest.cache_clear()
    assert len(digests) == 2 and all(len(one) == 64 for one in digests)


def test_a_result_tells_where_it_comes_from() -> None:
    host = HostDescription(spec="h", emulator="Bochs 3.0", virtualization="VMX", nested="1")
    kernel = KernelDescription(spec="k", release="6.12", description="d",
                               image=Digest("/x/vmlinuz", "6" * 64),
                               patches=[Digest("images/era.patch", "5" * 64)])  # fmt: skip
    events: list[Event] = [
        HostFound(level="L0", text="host", host=host),
        KernelFound(level="L0", text="kernel", kernel=kernel),
        L1QemuFound(level="L0", text="QEMU", version="10.0.2"),
    ]
    found = assemble(events, None, {}, 61.2, "logs", (), provenance.here()).provenance
    assert found is not None
    age = datetime.now(UTC) - datetime.fromisoformat(found.started.replace("Z", "+00:00"))
    assert found.started.endswith("Z") and 0 <= age.total_seconds() < 30
    assert (found.seconds, found.emulator, found.l1_qemu) == (61.2, "Bochs 3.0", "10.0.2")
    assert [one.file for one in (found.image, *found.patches) if one] == [
        "/x/vmlinuz", "images/era.patch",
    ]  # fmt: skip
    lines = found.lines()
    assert len(lines) == 2 and "era.patch 555555555555" in lines[0] and "61 s" in lines[0]
    assert found.controller.cpus >= 1 and "Python 3." in lines[1]
