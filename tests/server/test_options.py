"""Options that a server refuses before it looks at the model."""

from __future__ import annotations

from typing import Any

import pytest

from octavo.base.errors import ConfigError
from octavo.config.root import EngineConfig
from octavo.server.options import check_options


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OCTAVO_API_KEY", "OCTAVO_ADMIN_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("alone", "with_it"),
    [
        ({"admin_api_key": ["secret"]}, {"admin_port": 9000}),
        ({"profile_dir": "traces"}, {"admin_port": 9000}),
        ({"admin_host": "localhost"}, {"admin_port": 9000}),
        ({"separate_prefix_caches": True}, {"api_key": ["secret"]}),
        ({"scheduling_policy": "fair"}, {"api_key": ["secret"]}),
    ],
)
def test_an_option_that_would_do_nothing_alone(alone: dict[str, Any], with_it: dict[str, Any]) -> None:
    (name,), (other,) = alone, with_it
    with pytest.raises(ConfigError, match=f"{name}.*there (are|is) none: give.*{other}") as caught:
        check_options(EngineConfig.from_options(alone))
    assert caught.value.param == name and "secret" not in caught.value.message
    check_options(EngineConfig.from_options({**alone, **with_it}))


def test_keys_of_the_environment_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTAVO_API_KEY", "secret")
    monkeypatch.setenv(
        "OCTAVO_ADMIN_API_KEY", "secret"
    )  # set for all servers of a machine, it may do nothing
    check_options(EngineConfig.from_options({"separate_prefix_caches": True}))


def test_a_store_that_keeps_nothing(tmp_path: Any) -> None:
    store = str(tmp_path / "responses.db")
    with pytest.raises(ConfigError, match="keeps none"):
        check_options(EngineConfig.from_options({"response_store": store, "max_stored_responses": 0}))
    check_options(EngineConfig.from_options({"response_store": store}))
