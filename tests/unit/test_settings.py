# SPDX-License-Identifier: MIT
"""Settings: one table, four sources, clear refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
from l2gate.foundation.errors import UsageError
from l2gate.foundation.settings import (
    GROUPS,
    OPTIONS,
    Option,
    from_environment,
    resolve,
    to_environment,
)


def test_defaults_are_the_table_s() -> None:
    settings = resolve()
    assert settings.to_dict() == {option.name: option.default for option in OPTIONS}


def test_the_first_source_that_names_a_value_wins() -> None:
    settings = resolve({"l2": "linux"}, {"l2": "tiny", "expect": "refuse"})
    assert (settings.l2, settings.expect) == ("linux", "refuse")


@pytest.mark.parametrize("name", [option.name for option in OPTIONS])
@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_value_is_refused_wherever_it_comes_from(name: str, value: str) -> None:
    """`--kernel "$KERNEL"` with no such variable must not ask another kernel."""
    with pytest.raises(UsageError, match=f"{name} is empty"):
        resolve({name: value})
    with pytest.raises(UsageError, match=f"{name} is empty"):
        resolve({}, from_environment({f"L2GATE_{name.upper()}": value}))


def test_a_source_that_names_nothing_leaves_it_to_the_next() -> None:
    assert resolve({"l2": None}, {"l2": "linux"}).l2 == "linux"


@pytest.mark.parametrize("wrong", ["kernle", "KERNEL", "hosts", "ssh-config"])
def test_a_name_that_is_no_setting_is_refused_with_the_nearest(wrong: str) -> None:
    with pytest.raises(UsageError, match=f"no setting {wrong}"):
        resolve({wrong: "x"})


def test_a_variable_that_is_no_setting_is_refused_with_the_nearest() -> None:
    for wrong, right in (("L2GATE_KERNLE", "L2GATE_KERNEL"), ("l2gate_host", "L2GATE_HOST"),
                         ("L2GATE_CACHES", "L2GATE_CACHE")):  # fmt: skip
        with pytest.raises(UsageError, match=wrong) as refused:
            from_environment({wrong: "x"})
        if wrong.isupper():
            assert f"did you mean {right}?" in refused.value.hint
    assert from_environment({"L2GATE_CACHE": "/c", "L2GATE_STATE": "/s", "HOME": "/"}) == {}


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


def test_every_setting_is_of_its_own_type_and_written_as_it_was_read() -> None:
    given = {
        "keep": "yes", "wait": "7", "patience": "2.5", "ssh_config": "/etc/my config",
        "qemu": "/opt/my\\ qemu -cpu host", "modules": "nested", "l2": "linux",
    }  # fmt: skip
    settings = resolve(given)
    assert (settings.keep, settings.wait, settings.patience) == (True, 7.0, 2.5)
    assert settings.ssh_config == Path("/etc/my config")
    assert settings.qemu == ("/opt/my qemu", "-cpu", "host")
    assert resolve(settings.to_dict() | {n: None for n, v in settings.to_dict().items() if not v}) \
        == settings  # fmt: skip
    assert resolve(from_environment(to_environment(settings))) == settings


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_a_default_is_what_its_text_would_be_read_as(option: Option) -> None:
    assert not option.default or option.parse(option.default) == option.value
    assert not option.choices or option.default in option.choices
    assert option.group in GROUPS and option.help


@pytest.mark.parametrize(("name", "value"), [("wait", "1e9"), ("wait", "inf"), ("patience", "nan"),
                                             ("keep", "maybe"), ("qemu", "a'b")])  # fmt: skip
def test_what_is_not_of_the_type_is_refused(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=name):
        resolve({name: value})
