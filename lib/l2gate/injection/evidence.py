# SPDX-License-Identifier: MIT
"""What every way of injecting shares: the bench, its timeline, and the judgements so far."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import ClassVar

from l2gate.bench.facts import BenchFacts
from l2gate.contract.case_result import CaseResult
from l2gate.contract.choice import Choice, parse
from l2gate.contract.judge import Judgement, of_test
from l2gate.foundation.deadline import Budget
from l2gate.foundation.errors import NotHere
from l2gate.foundation.events import Timeline
from l2gate.records.events import CaseJudged
from l2gate.transport.console import CrashWatch
from l2gate.transport.multiplexer import SharedConnection


def none_chosen(who_has: str, choice: Choice) -> NotHere:
    """What a test or a table without any chosen case says."""
    return NotHere(
        f"{who_has} no case with {choice.text}", "leave --case out, or some of its words"
    )


class Evidence:
    """A test's hold on the bench. Close it at the test's end."""

    #: Whether it can do nothing on a bench that has a host and no L1.
    needs_l1: ClassVar[bool] = True
    #: The way of injecting that a test on it is about; empty: its cases have each their own.
    path: ClassVar[str] = ""

    def __init__(self, facts: BenchFacts, test: str, timeline: Timeline) -> None:
        self.facts, self.test, self.timeline = facts, test, timeline
        self.budget = Budget(facts.scale)
        self.choice = parse(facts.case)
        self.judgements: list[tuple[str, Judgement]] = []
        self._stack = ExitStack()
        try:
            with timeline.step("controller", "connecting to L0 and L1", "connect"):
                self._open()
        except BaseException:
            self._stack.close()
            raise

    @classmethod
    def demand(cls, facts: BenchFacts, test: str) -> None:
        """What can be told of such a bench without connecting to it: raises MissingPrerequisite or
        NotHere where ``test`` could not inject on it in this way."""

    @property
    def refuse_contract(self) -> bool:
        """Whether the kernel must refuse; else it must keep the payload contract."""
        return self.facts.contract.name == "refuse"

    @contextmanager
    def around(self) -> Iterator[None]:
        """What comes before and after the body of a test on it."""
        yield

    def _open(self) -> None:
        self._connections: list[SharedConnection] = []
        watch = CrashWatch(self.facts.console("L0"), self._break_off)
        self._stack.callback(watch.close)
        self._connect()

    def _break_off(self) -> None:
        """L0 has crashed: nobody waits for it until a deadline. In the watch's thread."""
        for connection in self._connections:
            connection.abort()

    def _connection(self, level: str) -> SharedConnection:
        """The job's connection to that level."""
        connection = SharedConnection(self.facts.multiplexer, level)
        self._connections.append(connection)
        return connection

    def _connect(self) -> None:
        """Open what the test needs; what goes onto the stack is closed with it."""
        raise NotImplementedError

    def close(self) -> None:
        """Close every connection."""
        self._stack.close()

    def _begin_anew(self) -> None:
        """Close every connection and open what the test needs once more."""
        self._stack.close()
        self._open()

    def record(self, name: str, case: CaseResult) -> Judgement:
        """Keep a case as evidence; ``name`` is what its test calls it."""
        judgement = Judgement(case.verdict, case.reason)
        self.judgements.append((name, judgement))
        self.timeline.record(CaseJudged(level="L0", text=f"{name}: {case.reason}", case=case))
        return judgement

    def check_consoles(self) -> None:
        """Raises GuestCrash if L0 or L1 has panicked."""
        for level in self.facts.consoles:
            self.facts.console(level).check()

    def verdict(self) -> Judgement:
        """The worst of the judgements so far, naming the first cases that share it.

        Raises NotHere if none of the test's cases is among those that were asked for.
        """
        if not self.judgements and self.choice.words:
            raise none_chosen(f"{self.test} has", self.choice)
        return of_test(self.judgements)
