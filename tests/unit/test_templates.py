# SPDX-License-Identifier: MIT
"""Templates: found by their key, void after a reboot or a death, bounded, forgotten whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from l2gate.hosts import templates
from l2gate.hosts.persistent import born_at
from l2gate.hosts.templates import Draft, Template


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("L2GATE_STATE", str(tmp_path / "state"))


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def made(draft: Draft, key: str = "k", **more: object) -> Template:
    (draft.path / "ram").write_text("guest")
    told: dict[str, object] = {"boot_id": templates.boot_id(), "parked": 0, "born": ""} | more
    return Template(
        folder=draft.path,
        key=key,
        kind="emulated-amd",
        kernel="debian:6.12",
        booted=templates.now(),
        host_key="ssh-ed25519 AAAA",
        about={"port": 1},
        **told,  # type: ignore[arg-type]
    )


def kept(key: str = "k", **more: object) -> Template:
    with closing(Draft()) as draft:
        return draft.publish(made(draft, key, **more))


def test_what_was_kept_is_found_by_its_key() -> None:
    published = kept()
    assert templates.find("k") == published and templates.find("other") is None
    assert (published.folder / "ram").read_text() == "guest"
    assert published.folder.stat().st_mode & 0o777 == 0o700


def test_what_was_not_published_is_gone() -> None:
    with closing(Draft()) as draft:
        made(draft)
    assert not draft.path.exists() and templates.kept() == []


def test_who_comes_second_keeps_its_own_until_it_is_done() -> None:
    first = kept()
    with closing(Draft()) as draft:
        second = draft.publish(made(draft))
        assert second.folder != first.folder and second.folder.exists()
    assert templates.find("k") == first and not second.folder.exists()


def test_one_of_an_earlier_boot_of_this_machine_is_void() -> None:
    folder = kept(boot_id="another").folder
    assert templates.find("k") is None and not folder.exists()


def test_one_whose_parked_process_is_gone_is_void(sleeper: subprocess.Popen[bytes]) -> None:
    kept(parked=sleeper.pid, born=born_at(sleeper.pid))
    assert templates.find("k")
    sleeper.kill()
    sleeper.wait()
    assert templates.find("k") is None and templates.kept() == []


def test_a_process_that_has_its_number_by_chance_is_left_alone(
    sleeper: subprocess.Popen[bytes],
) -> None:
    templates.forget(kept(parked=sleeper.pid, born="1"))
    assert sleeper.poll() is None and templates.kept() == []


def test_what_is_forgotten_ends(sleeper: subprocess.Popen[bytes]) -> None:
    template = kept(parked=sleeper.pid, born=born_at(sleeper.pid))
    templates.forget(template)
    assert sleeper.wait(10) == -signal.SIGKILL and not template.folder.exists()


def test_what_runs_from_a_forgotten_one_goes_on() -> None:
    template = kept()
    with (template.folder / "ram").open() as file:
        templates.forget(template)
        assert file.read() == "guest"


def test_the_longest_unused_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "MOST", 6)
    for number in range(templates.MOST):
        folder = kept(str(number)).folder
        then = time.time() - 1000 + number
        os.utime(folder / "template.json", (then, then))
    assert templates.find("0") is not None  # by which it was used
    kept("new")
    assert [one.key for one in templates.kept()] == ["2", "3", "4", "5", "0", "new"]


def test_where_there_is_no_room_the_longest_unused_make_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(3):
        folder = kept(str(number)).folder
        then = time.time() - 1000 + number
        os.utime(folder / "template.json", (then, then))
    free = templates.LEFT_FREE - 2
    monkeypatch.setattr(templates, "_free", lambda: free + 3 - len(templates.kept()))
    assert templates.make_room() and [one.key for one in templates.kept()] == ["2"]
    free -= 2
    assert not templates.make_room() and templates.kept() == []


@pytest.mark.parametrize("record", ["", "{", "[]", '{"key": 1}', "\0"])
def test_a_damaged_one_is_none(record: str) -> None:
    template = kept()
    (template.folder / "template.json").write_text(record)
    assert templates.find("k") is None and templates.kept() == []
    assert kept() == templates.find("k")  # and its place is free


def test_what_a_killed_job_has_left_is_swept() -> None:
    script = (
        "import os, signal; from l2gate.hosts.templates import Draft; d = Draft(); "
        "print(d.path, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
    )
    left = Path(done.stdout.strip())
    assert left.exists()
    with closing(Draft()):
        assert not left.exists()
