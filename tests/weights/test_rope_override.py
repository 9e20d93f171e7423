"""hf_overrides about rope, in the spelling that most pages show, on configs of today's transformers."""

from __future__ import annotations

from typing import Any

import pytest

from octavo.base.errors import ConfigError, ModelFileError
from octavo.layers.rope import RopeFacts
from octavo.weights.config_json import context_length, override

NEW: dict[str, Any] = {
    "model_type": "llama",
    "max_position_embeddings": 100,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5},
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 100}


def facts(config: dict[str, Any]) -> RopeFacts:
    return RopeFacts.from_config(config, 8, may_be_partial=True)


@pytest.mark.parametrize("inside", [False, True])
def test_a_scaling_is_followed_and_the_rest_stays(inside: bool) -> None:
    entries: dict[str, Any] = {"rope_scaling": YARN}
    config = override(NEW, {"text_config": entries} if inside else entries)
    found = facts(config)
    assert (found.kind, found.theta, found.head_dim, found.values["factor"]) == ("yarn", 500.0, 4, 4.0)
    assert context_length(config) == 400


def test_a_nested_config() -> None:
    config = override({"text_config": NEW}, {"text_config": {"rope_theta": 70.0}})
    assert facts(config["text_config"]).theta == 70.0


def test_numbers_alone_change_nothing_else() -> None:
    config = override({**NEW, "rope_parameters": {**YARN, "rope_theta": 9.0}}, {"rope_theta": 70})
    assert (facts(config).kind, facts(config).theta) == ("yarn", 70.0)


def test_a_scaling_is_taken_away() -> None:
    config = override({**NEW, "rope_parameters": {**YARN, "rope_theta": 9.0}}, {"rope_scaling": None})
    assert (facts(config).kind, facts(config).theta) == ("default", 9.0)
    assert context_length(config) == 100


def test_the_newer_spelling_wins_and_older_configs_are_as_they_were() -> None:
    both = {"rope_parameters": {"rope_type": "linear", "factor": 2.0}, "rope_theta": 70.0}
    assert facts(override(NEW, both)).kind == "linear"
    old = {"model_type": "llama", "max_position_embeddings": 100, "rope_theta": 500.0}
    assert facts(override(old, {"rope_scaling": YARN})).kind == "yarn"


def test_what_does_not_say_whose_rope_it_is_is_refused() -> None:
    ropes = {"full_attention": {"rope_theta": 9.0}, "sliding_attention": {"rope_theta": 8.0}}
    with pytest.raises(ConfigError, match=r"hf_overrides has rope_theta, .* different kinds"):
        override({**NEW, "rope_parameters": ropes}, {"rope_theta": 70.0})
    with pytest.raises(ConfigError, match="must be an object or null"):
        override(NEW, {"rope_scaling": "yarn"})
    with pytest.raises(ModelFileError, match="rope_theta"):
        override(NEW, {"rope_theta": "x"})
