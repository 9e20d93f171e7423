"""Names in hf_overrides that nothing knows are told, with the nearest that there is."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from octavo.weights.config_json import OLDER_NAMES, add_modern_names, override
from octavo.weights.override_names import unknown_names

LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 9, "own_entry": 1}


@pytest.mark.parametrize(
    ("entries", "unknown"),
    [
        ({"max_position_embedings": 9}, {"max_position_embedings": "max_position_embeddings"}),
        ({"text_config": {"rms_norm_epsi": 1e-5}}, {"rms_norm_epsi": "rms_norm_eps"}),
        ({"zzzzzzzz": 1}, {"zzzzzzzz": None}),
        ({"rms_norm_eps": 1e-5, "own_entry": 2, "rope_theta": 9.0, "num_labels": 3}, {}),
        ({"classifier_from_token": ["n", "y"], "is_original_qwen3_reranker": True}, {}),
        ({"is_causal": False}, {}),
        ({"use_bidirectional_attention": True, "classifier_pooling": "mean"}, {}),
        ({"sbert_ce_default_activation_function": "torch.nn.Identity", "sentence_transformers": {}}, {}),
    ],
)
def test_unknown_names(entries: dict[str, Any], unknown: dict[str, str | None]) -> None:
    assert unknown_names(LLAMA, entries) == unknown


def test_a_kind_that_transformers_does_not_know() -> None:
    assert unknown_names({"model_type": "nobody's", "own_entry": 1}, {"own_entri": 1}) == {
        "own_entri": "own_entry"
    }


def test_names_that_the_config_has_need_no_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers.models.auto.configuration_auto", None)
    assert unknown_names(LLAMA, {"own_entry": 2, "vocab_size": 10}) == {}


@pytest.mark.parametrize(
    ("older", "entries"),
    [
        ({"model_type": "gpt2", "n_positions": 1024, "n_layer": 3}, {"n_positions": 512}),
        ({"model_type": "distilbert", "n_layers": 6, "max_position_embeddings": 512}, {"n_layers": 3}),
        ({"text_config": {"n_layer": 3, "n_positions": 64}}, {"text_config": {"n_positions": 32}}),
    ],
)
def test_entries_under_older_names_count(older: dict[str, Any], entries: dict[str, Any]) -> None:
    """The config had today's names beside the older ones by then, and those were not changed."""
    config: dict[str, Any] = {"vocab_size": 9, **older}
    add_modern_names(config.get("text_config", config))
    merged = override(config, entries)
    merged, entries = merged.get("text_config", merged), entries.get("text_config", entries)
    for name, value in entries.items():
        assert merged[name] == merged[OLDER_NAMES[name]] == value
