"""Settings: one table, four sources, clear refusals."""

from __future__ import annotations

import pytest
from l2gate.errors import UsageError
from l2gate.settings import OPTIONS, from_environment, resolve, to_environment


def test_defaults_are_the_table_s() -> None:
    settings = resolve()
    assert settings.to_dict() == {option.name: option.default for option in OPTIONS}


def test_the_first_source_that_names_a_value_wins() -> None:
    settings = resolve({"l2": "linux"}, {"l2": "tiny", "expect": "refuse"})
    assert (settings.l2, settings.expect) == ("linux", "refuse")


def test_an_empty_value_is_not_a_value() -> None:
    assert resolve({"l2": ""}, {"l2": None}).l2 == "tiny"


@pytest.mark.parametrize(
    ("name", "value"),
    [("expect", "maybe"), ("l2", "windows"), ("patience", "much"), ("patience", "0")],
)
def test_what_an_option_does_not_take_is_refused(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=name):
        resolve({name: value})


def test_the_environment_carries_settings_to_another_process() -> None:
    settings = resolve({"kernel": "dir:/k", "patience": "2.5"})
    assert resolve(from_environment(to_environment(settings))) == settings
