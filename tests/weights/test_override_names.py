"""Names in hf_overrides that nothing knows are told, with the nearest that there is."""

from __future__ import annotations

import sys
from typing import Any

import pytest

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
