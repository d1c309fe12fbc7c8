# SPDX-License-Identifier: MIT
"""Deadlines name what they wait for, and end."""

from __future__ import annotations

import pytest
from l2gate.foundation.deadline import Budget, Deadline
from l2gate.foundation.errors import DeadlineExpired


def test_poll_returns_what_the_condition_returned() -> None:
    answers = iter(["", "", "there"])
    assert Deadline("it comes", 5).poll(lambda: next(answers), interval=0) == "there"


def test_an_expired_deadline_names_its_condition() -> None:
    with pytest.raises(DeadlineExpired, match="L1 boots: not within 0 s"):
        Deadline("L1 boots", 0.01).poll(lambda: None, interval=0)


def test_a_budget_scales_seconds() -> None:
    assert Budget(6).deadline("x", 2).seconds == 12
