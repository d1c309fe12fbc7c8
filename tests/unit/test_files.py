# SPDX-License-Identifier: MIT
"""A file that was asked for is written whole, where it was asked for, and nothing else is."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from l2gate import cli
from l2gate.foundation.errors import BenchError, UsageError
from l2gate.foundation.files import check_file, check_folder, write_whole
from l2gate.verbs import asking


def test_what_can_be_written_is_left_as_it_is(tmp_path: Path) -> None:
    there, new = tmp_path / "there", tmp_path / "new"
    there.write_text("before")
    check_file(there, "--json")
    check_file(new, "--json")
    check_folder(tmp_path / "a/b", "--folder")
    assert there.read_text() == "before" and not new.exists()
    assert list((tmp_path / "a/b").iterdir()) == []


@pytest.mark.parametrize("name", [".", "no/x", "file/x", "/proc/x", "/dev/nope/x"])
def test_what_cannot_is_refused_by_its_option(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--json .* cannot be written: ."):
        check_file(tmp_path / name, "--json")


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "far/target")
    write_whole(link, "told")
    assert link.is_symlink() and (tmp_path / "far/target").read_text() == "told"
    assert list((tmp_path / "far").iterdir()) == [tmp_path / "far/target"]


def test_a_pipe_is_written_into_and_not_replaced(tmp_path: Path) -> None:
    """So is a device: root's `--json /dev/null` must not become a file."""
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    check_file(pipe, "--json")
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_whole(pipe, "told")
    reader.join(10)
    assert read == ["told"] and stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "result"
    target.write_text("before")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        write_whole(target, "after")
    assert target.read_text() == "before" and list(tmp_path.iterdir()) == [target]


def test_a_verdict_is_told_though_its_file_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A disk that fills up during a run costs the file, not what the run has found."""

    class Full:
        def write(self, path: Path) -> None:
            write_whole(path, "")
            raise OSError(errno.ENOSPC, "No space left on device")

    told: list[object] = []
    job = SimpleNamespace(run=lambda progress: (Full(), 1))
    kind = SimpleNamespace(prepare_kernel=lambda settings, timeline: None)
    monkeypatch.setattr(asking, "Job", lambda *_: job)
    monkeypatch.setattr(asking, "preflight", lambda settings: None)
    monkeypatch.setattr("l2gate.verbs.asking.kinds.find", lambda name: kind)
    monkeypatch.setattr(asking, "show", lambda console, result, quiet: told.append(result))
    with pytest.raises(BenchError, match="x could not be written: No space"):
        cli.main(["run", "-q", "--json", str(tmp_path / "x")])
    assert len(told) == 1
