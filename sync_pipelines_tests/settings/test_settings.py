"""Settings: a name that was changed is still read."""

from __future__ import annotations

from typing import Any

import pytest

from sync_pipelines.errors import ConfigurationError
from sync_pipelines.settings.model import Settings, load_settings

EARLIER: dict[str, Any] = {"linger_s": 3}


def test_the_idle_wait_is_read_by_its_name_and_by_the_earlier_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().idle_wait_s == 5

    monkeypatch.setenv("SYNC_PIPELINES_LINGER_S", "2")
    assert (Settings().idle_wait_s, Settings().linger_s) == (2, 2)

    monkeypatch.setenv("SYNC_PIPELINES_IDLE_WAIT_S", "1")
    assert Settings().idle_wait_s == 1


def test_what_is_given_in_python_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNC_PIPELINES_LINGER_S", "2")

    assert Settings(idle_wait_s=4).idle_wait_s == 4
    assert Settings(**EARLIER).idle_wait_s == 3


def test_a_name_without_the_prefix_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINGER_S", "2")
    monkeypatch.setenv("IDLE_WAIT_S", "2")

    assert Settings().idle_wait_s == 5


def test_a_wrong_idle_wait_names_both_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNC_PIPELINES_LINGER_S", "-1")

    with pytest.raises(ConfigurationError, match=r"_IDLE_WAIT_S \(or SYNC_PIPELINES_LINGER_S, .*greater than .*'-1'"):
        load_settings()
