"""What some encoders have of their own: scores of distances, older configs, kinds that are refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from octavo import LLM
from octavo.attention import packed
from octavo.base.errors import ModelFileError
from octavo.layers.relative import DisentangledBias, DistanceBias
from tests.conformance.pooled import ENCODERS, save_modules, save_pooled
from tests.conformance.test_pooling import RAW, check, prompts, states

BIASED = {"mpnet": DistanceBias, "deberta-v3": DisentangledBias}


@pytest.mark.parametrize("name", BIASED)
def test_scores_of_distances_take_bounded_memory(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts are served in slices: as many as fit, at least one, and the answers stay the same."""
    most, seen = 6 * 3 * 90 * 90, []
    kind: Any = BIASED[name]
    usual = kind.forward

    def watched(self: Any, q_BHLD: torch.Tensor, k_BHLD: torch.Tensor) -> torch.Tensor:
        seen.append(q_BHLD.shape)
        return usual(self, q_BHLD, k_BHLD)

    monkeypatch.setitem(packed.SCORES_AT_ONCE, "cpu", most)
    monkeypatch.setattr(kind, "forward", watched)
    family, overrides = ENCODERS[name]
    folder = save_pooled(tmp_path / "model", family, **overrides)
    given = [ids for ids in prompts() if len(ids) >= 90][:2] * 4 + prompts()
    with LLM(str(folder), pooling_type="mean") as llm:
        check(llm.encode(given, RAW, use_tqdm=False), [one.mean(0) for one in states(folder, given)])
    assert all(texts == 1 or texts * heads * length**2 <= most for texts, heads, length, _ in seen)
    assert any(texts > 1 for texts, _, length, _ in seen if length >= 90)


def change(folder: Path, **entries: Any) -> None:
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **entries}
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not ...}))


NOMIC = {
    "activation_function": "swiglu",
    "causal": False,
    "head_dim": ...,
    "hidden_act": ...,
    "hidden_size": ...,
    "intermediate_size": ...,
    "layer_norm_eps": ...,
    "layer_norm_epsilon": 1e-12,
    "max_position_embeddings": ...,
    "n_embd": 48,
    "n_head": 6,
    "n_inner": 88,
    "n_layer": 3,
    "n_positions": 512,
    "num_attention_heads": ...,
    "num_hidden_layers": ...,
    "num_key_value_heads": ...,
    "prenorm": False,
    "qkv_proj_bias": False,
    "rope_parameters": ...,
    "rotary_emb_base": 700,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_scaling_factor": None,
}
"""What nomic-embed-text's own config says; ...: what it does not."""


def test_nomic_bert_by_its_first_config(tmp_path: Path) -> None:
    family, overrides = ENCODERS["nomic_bert"]
    rope = {"rope_theta": 700.0, "rope_type": "default"}
    folder = save_pooled(tmp_path / "model", family, rope_parameters=rope, **overrides)
    given = prompts()[:10]
    expected = [torch.nn.functional.normalize(one.mean(0), dim=0) for one in states(folder, given)]
    change(folder, **NOMIC)
    save_modules(folder, "mean_tokens", max_seq_length=300)
    with LLM(str(folder)) as llm:
        assert llm.config.model.max_model_len == 300
        check(llm.encode(given, use_tqdm=False), expected)
    change(folder, rotary_scaling_factor=2)
    with pytest.raises(ModelFileError, match="rotary_scaling_factor is 2"):
        LLM(str(folder))


@pytest.mark.parametrize("scaling", [None, {"type": "ntk", "factor": 8.0}])
def test_gte_by_its_first_name(tmp_path: Path, scaling: dict[str, Any] | None) -> None:
    """NewModel and NewForSequenceClassification, with a scaling that transformers does not know."""
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForSequenceClassification

    family, overrides = ENCODERS["gte"]
    rope = {"rope_theta": 500.0, "rope_type": "default"}
    folder = save_pooled(tmp_path / "model", family, num_labels=3, rope_parameters=rope, **overrides)
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    if scaling is not None:
        powers = torch.arange(0, 8, 2) / 8
        model.base_model.rotary_emb.inv_freq = (500.0 * 8) ** -powers / 8 ** (2 / 8)
    given = prompts()[:10]
    with torch.inference_mode():
        expected = [model(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))) for ids in given]
    weights = load_file(folder / "model.safetensors")
    weights = {re.sub("^gte[.]", "new.", name): weight for name, weight in weights.items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    change(
        folder,
        architectures=["NewForSequenceClassification"],
        model_type="new",
        pack_qkv=True,
        position_embedding_type="rope",
        rope_parameters=...,
        rope_scaling=scaling,
        rope_theta=500.0,
    )
    with LLM(str(folder)) as llm:
        check(llm.encode(given, RAW, use_tqdm=False), [one.logits[0] for one in expected])


@pytest.mark.parametrize("name", ["bert", "mpnet", "nomic_bert"])
def test_entries_of_other_kinds_change_nothing(tmp_path: Path, name: str) -> None:
    """As transformers has it: ELECTRA alone has narrow embeddings, DeBERTa alone may lack positions."""
    family, overrides = ENCODERS[name]
    folder = save_pooled(tmp_path / "model", family, **overrides)
    change(folder, embedding_size=24, position_biased_input=False)
    given = prompts()[:5]
    with LLM(str(folder), pooling_type="mean") as llm:
        check(llm.encode(given, RAW, use_tqdm=False), [one.mean(0) for one in states(folder, given)])


def test_mpnet_counts_positions_from_two_whatever_pads(tmp_path: Path) -> None:
    family, overrides = ENCODERS["mpnet"]
    folder = save_pooled(tmp_path / "model", family, **{**overrides, "pad_token_id": 0})
    given = prompts()[:5]
    with LLM(str(folder), pooling_type="mean") as llm:
        assert llm.config.model.max_model_len == 512
        check(llm.encode(given, RAW, use_tqdm=False), [one.mean(0) for one in states(folder, given)])


@pytest.mark.parametrize(
    ("name", "entries", "words"),
    [
        ("deberta-v3", {"share_att_key": False}, "share_att_key is False"),
        ("deberta-v3", {"pos_att_type": "c2p"}, "pos_att_type is c2p"),
        ("deberta-v3", {"pos_att_type": 7}, "pos_att_type is 7"),
        ("deberta-v3", {"conv_kernel_size": 3}, "conv_kernel_size is 3"),
        ("deberta-v3", {"position_buckets": 2}, "position_buckets is 2"),
        ("deberta-v3", {"position_buckets": "many"}, "position_buckets is many"),
        ("deberta-v3", {"position_buckets": 64}, r"\[64, 48\].*\[128, 48\]|\[128, 48\].*\[64, 48\]"),
        ("deberta-v3", {"hidden_act": ["gelu"]}, r"hidden_act is \"\['gelu'\]\""),
        ("mpnet", {"architectures": 5}, "architectures is 5; it must be a list of names"),
        ("mpnet", {"architectures": ["GuessModel", 5]}, "it must be a list of names"),
        ("mpnet", {"relative_attention_num_buckets": 31}, "31"),
        ("mpnet", {"max_position_embeddings": 300}, r"300"),
        ("electra", {"embedding_size": 25}, "25"),
        ("gte", {"head_dim": 9}, "head_dim is 9"),
        ("gte", {"logn_attention_scale": True}, "logn_attention_scale is True"),
        (
            "gte",
            {"rope_parameters": ..., "rope_scaling": {"type": "ntk", "factor": 2, "mixed_b": 1}},
            "mixed_b",
        ),
        ("gte", {"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ("nomic_bert", {"num_experts": 8}, "num_experts is 8"),
        ("nomic_bert", {"intermediate_size": 80}, "80"),
    ],
)
def test_configs_that_cannot_be(tmp_path: Path, name: str, entries: dict[str, Any], words: str) -> None:
    family, overrides = ENCODERS[name]
    folder = save_pooled(tmp_path / "model", family, **overrides)
    change(folder, **entries)
    with pytest.raises(ModelFileError, match=words):
        LLM(str(folder))
