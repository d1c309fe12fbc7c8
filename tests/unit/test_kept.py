# SPDX-License-Identifier: MIT
"""Programs that outlive a test: the next one gets them as they were left, or a new one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import HelperError
from l2gate.transport.connection import Remote
from l2gate.transport.kept import KeptPrograms
from l2gate.transport.local import LocalConnection
from l2gate.transport.multiplexer import Multiplexer, Served, SharedConnection

#: Says its process id first, and then with each line how many it has read; ends when told to.
_COUNTS = (
    'echo "$$"; n=0; while read -r word; do n=$((n + 1)); '
    '[ "$word" = slowly ] && sleep 0.5; echo "$n $word"; '
    '[ "$word" = end ] && echo "my last words" >&2 && exit 1; done'
)


def multiplexer(tmp_path: Path, helper: Path) -> Multiplexer:
    served = Served(LocalConnection("L0"), str(helper))
    return Multiplexer(tmp_path / "multiplexer", {"L0": served})


@pytest.fixture
def place(tmp_path: Path, helper: Path) -> Iterator[str]:
    job = multiplexer(tmp_path, helper)
    yield str(tmp_path / "multiplexer")
    job.close()


def soon() -> Deadline:
    return Deadline("an answer", 10)


class Test:
    """One test's hold on the program."""

    __test__ = False

    def __init__(self, place: str) -> None:
        self.connection = SharedConnection(place, "L0")
        self.programs = KeptPrograms(self.connection)
        self.remote: Remote = self.programs.start(["sh", "-c", _COUNTS], soon())
        self.pid = self.remote.read_line(soon())

    def ask(self, word: str) -> str:
        self.remote.send(word)
        return self.remote.read_line(soon())

    def end(self, *, give_back: bool) -> None:
        if give_back:
            self.programs.give_back()
        self.remote.close()
        self.connection.close()


def alive(pid: str) -> bool:
    return Path(f"/proc/{pid}").exists()


def gone(pid: str) -> bool:
    Deadline(f"{pid} ends", 10).poll(lambda: not alive(pid))
    return True


def test_what_is_given_back_goes_on_with_the_next(place: str) -> None:
    first = Test(place)
    assert not first.programs.continued
    assert first.ask("hello") == "1 hello"
    first.end(give_back=True)
    second = Test(place)
    assert second.pid == first.pid
    assert second.programs.continued
    assert second.ask("again") == "2 again"


def test_what_is_not_given_back_ends(place: str) -> None:
    first = Test(place)
    first.end(give_back=False)
    assert gone(first.pid)
    second = Test(place)
    assert second.pid != first.pid
    assert not second.programs.continued


def test_what_owes_an_answer_is_not_kept(place: str) -> None:
    first = Test(place)
    first.remote.send("slowly")
    first.end(give_back=True)
    assert gone(first.pid)
    assert Test(place).pid != first.pid


def test_the_next_has_it_at_once(place: str) -> None:
    """Whoever gives back comes back only when the job has it."""
    pids = set()
    for _ in range(50):
        test = Test(place)
        pids.add(test.pid)
        test.end(give_back=True)
    assert len(pids) == 1


def test_one_that_has_ended_says_its_last_words(place: str) -> None:
    first = Test(place)
    first.ask("end")
    with pytest.raises(HelperError, match="ended unexpectedly"):
        first.remote.read_line(soon())
    Deadline("its last words", 10).poll(lambda: "my last words" in first.remote.words)


def test_all_that_is_kept_ends_with_the_job(tmp_path: Path, helper: Path) -> None:
    job = multiplexer(tmp_path, helper)
    first = Test(str(tmp_path / "multiplexer"))
    first.end(give_back=True)
    assert alive(first.pid)
    job.close()
    assert gone(first.pid)
