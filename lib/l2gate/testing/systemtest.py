# SPDX-License-Identifier: MIT
"""The base of every system test: a session on the job's bench, and a verdict at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TypeVar

from avocado import Test
from avocado.core.exceptions import TestInterrupt

from l2gate.bench.facts import BenchFacts
from l2gate.contract.judge import THEN, Judgement, Verdict, broken_off
from l2gate.contract.paths import ALL
from l2gate.foundation.errors import L2gateError, MissingPrerequisite, NotHere
from l2gate.foundation.events import timeline_from_environment
from l2gate.foundation.process import end_with
from l2gate.injection.evidence import Evidence
from l2gate.records.events import VerdictReached

E = TypeVar("E", bound=Evidence)
T = TypeVar("T", bound="SystemTest")

#: A kernel of each contract's era, for whoever wants its tests to run.
_KERNELS = {"refuse": "debian:6.12+patched", "payload": "debian:6.12"}

#: A test of what both contracts promise.
EITHER = "either"


@dataclass(frozen=True)
class ContractTest:
    """The contract that a test is about, what it injects on, and the contract under which it may
    leave L1 stopped for good (or empty): such tests come last."""

    contract: str
    on: type[Evidence]
    spoils_l1_under: str = ""

    @property
    def needs_l1(self) -> bool:
        """Whether it can do nothing without an L1."""
        return self.on.needs_l1


def contract_test(
    contract: str, on: type[E], *, spoils_l1_under: str = ""
) -> Callable[[Callable[[T, E], None]], Callable[[T], None]]:
    """A test that holds under one contract, or `either`; under another it is skipped, with cause
    and hint. So it is where another path than that of ``on`` is asked for.

    ``spoils_l1_under`` names the contract under which it may leave L1 stopped for good: it is run
    after all that does not, and whoever has a fresh L1 at hand gives it to the next test.

    The body gets what ``on`` names, connected. Everything is opened and closed here, in the test's
    own thread: Avocado runs tearDown in another one.
    """

    def decorate(body: Callable[[T, E], None]) -> Callable[[T], None]:
        known = ContractTest(contract, on, spoils_l1_under)

        @wraps(body)
        def test(self: T) -> None:
            self.run_under(known, on, lambda evidence: body(self, evidence))

        setattr(test, _ABOUT, known)
        return test

    return decorate


_ABOUT = "about_test"


def about(test: object) -> ContractTest:
    """What `contract_test` has noted of a test's method."""
    found = getattr(test, _ABOUT)
    assert isinstance(found, ContractTest)
    return found


class SystemTest(Test):  # type: ignore[misc]
    """A sentence of the contract."""

    #: Seconds after which Avocado interrupts a test; each wait inside has a deadline of its own.
    timeout = 900

    def run_under(self, known: ContractTest, on: type[E], body: Callable[[E], None]) -> None:
        judgement = self._judge(known, on, body)
        reached = VerdictReached(
            level="controller",
            text=f"{self.sentence}: {judgement.verdict}",
            test=self.sentence,
            verdict=judgement.verdict,
            reason=judgement.reason,
        )
        timeline_from_environment().record(reached)
        self.log.info("%s: %s", judgement.verdict, judgement.reason)
        if judgement.verdict is Verdict.SKIP:
            self.cancel(judgement.reason)
        if judgement.verdict is Verdict.FAIL:
            self.fail(judgement.reason)
        if judgement.verdict is not Verdict.PASS:
            self.error(f"{judgement.verdict}: {judgement.reason}")

    def run_avocado(self) -> None:
        """Avocado 113 ends a test by SIGTERM, as an exception that may come anywhere: while it is
        making the thread for the test or its tearDown, its own clean-up stumbles over a variable
        without a value, `pool` (avocado/core/test.py, _catch_test_status)."""
        try:
            super().run_avocado()
        except UnboundLocalError as error:
            raise TestInterrupt("interrupted while Avocado made the test's thread") from error

    @property
    def sentence(self) -> str:
        """`RefusedWhileL2IsActive.test_every_exception`."""
        return f"{type(self).__name__}.{self._testMethodName}"

    def _judge(self, known: ContractTest, on: type[E], body: Callable[[E], None]) -> Judgement:
        session: E | None = None
        try:
            facts = BenchFacts.from_environment()
            end_with(facts.owner)
            if why := why_skipped(known, facts, self.sentence):
                return Judgement(Verdict.SKIP, why)
            session = on(facts, self.sentence, timeline_from_environment())
            with session.around():
                body(session)
            session.check_consoles()
            return session.verdict()
        except NotHere as error:
            if session and session.judgements:  # a table before it had cases
                return session.verdict()
            return Judgement(Verdict.SKIP, str(error))
        except MissingPrerequisite as error:
            return Judgement(Verdict.SKIP, str(error))
        except L2gateError as error:
            return self._with_cause(session, error)
        finally:
            if session:
                session.close()

    def _with_cause(self, session: Evidence | None, error: L2gateError) -> Judgement:
        """A failing case seen before the error outweighs it; a crash explains it."""
        if session is None:
            return broken_off(error)
        if session.judgements and (seen := session.verdict()).verdict is Verdict.FAIL:
            return Judgement(Verdict.FAIL, f"{seen.reason}{THEN}{error}")
        try:
            session.check_consoles()
        except L2gateError as crash:
            return broken_off(crash)
        return broken_off(error)


def why_skipped(known: ContractTest, facts: BenchFacts, sentence: str) -> str | None:
    """Why that test is skipped on a bench of which only the facts are looked at, or None."""
    contract, path = known.contract, known.on.path
    if contract not in (EITHER, facts.contract.name):
        return (
            f"the {facts.contract.name} contract holds here ({facts.contract.why}), this test is "
            f"about the {contract} contract; hint: use a kernel of that era "
            f"({_KERNELS[contract]}) or ask for it with expect={contract}"
        )
    if path and facts.path not in (ALL, path):
        return (
            f"this test injects by {path}, asked for is path={facts.path}; hint: leave --path out, "
            f"or --path {path}"
        )
    try:
        known.on.demand(facts, sentence)
    except (MissingPrerequisite, NotHere) as error:
        return str(error)
    return None
