"""Encoders in GGUF files against transformers on the checkpoint they were made from, float32."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from octavo import LLM
from octavo.base.errors import ModelFileError
from octavo.messages.pooling import PoolingParams
from octavo.weights.checkpoint import open_checkpoint
from octavo.weights.pooling_files import read_pooling
from tests.conformance.pooled import BOTH_WAYS, ENCODERS, LONGEST, save_pooled
from tests.tokens.small_tokenizers import REWRITTEN, precompiled, unigram_backend, unigram_metadata
from tests.weights.gguf_conversions import Named, plus_one
from tests.weights.gguf_families.family import WIDE, GGUFFamily
from tests.weights.gguf_writer import read_config, write

TOLERANCE = 1e-5
MEAN, CLS, RANK = 1, 2, 4
GIVEN = [[1, *range(5, 5 + length), 2] for length in (1, 40, 9)]
KEYS = {
    "context_length": LONGEST,
    "attention.head_count_kv": None,
    "attention.causal": False,
    "attention.layer_norm_epsilon": 1e-12,
    "pooling_type": MEAN,
    "tokenizer.ggml.token_type_count": 2,
}


def without_pooler(name: str, tensor: torch.Tensor, config: dict[str, Any]) -> Named:
    """Which converters leave out."""
    if not name.startswith("pooler."):
        yield name, tensor


def save(folder: Path, case: str, *, tokenizer: str = "bert", **keys: Any) -> tuple[Path, Path]:
    """The folder of the model, and the GGUF file of the same numbers."""
    from safetensors.torch import load_file

    kind, overrides = ENCODERS[case]
    model = save_pooled(folder / "model", kind, **overrides)
    family = GGUFFamily(model_type=kind, tokenizer=tokenizer, keys=KEYS, convert=without_pooler)
    weights, config = load_file(model / "model.safetensors"), read_config(model)
    config.setdefault("num_hidden_layers", config.get("n_layers"))
    architecture = "nomic-bert" if case == "nomic_bert" else "bert"
    write(folder / "tiny.gguf", architecture, family, weights, config, **keys)
    return model, folder / "tiny.gguf"


def expected(model: Path, pooling: int, given: list[list[int]] = GIVEN) -> list[torch.Tensor]:
    from transformers import AutoModel

    reference = AutoModel.from_pretrained(model, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.inference_mode():
        hidden = [reference(torch.tensor([ids])).last_hidden_state[0] for ids in given]
    return [one.mean(0) if pooling == MEAN else one[0] for one in hidden]


@pytest.mark.parametrize(
    ("case", "pooling"), [("bert", MEAN), ("bert", CLS), ("distilbert", MEAN), ("nomic_bert", MEAN)]
)
def test_embeds_as_transformers(tmp_path: Path, case: str, pooling: int) -> None:
    rope = {"rope.freq_base": 1000.0} if case == "nomic_bert" else {}
    model, file = save(tmp_path, case, pooling_type=pooling, **rope)
    raw = PoolingParams(use_activation=False)
    with LLM(str(file), skip_tokenizer_init=True, dtype="float32") as llm:
        assert llm.config.model.max_model_len == LONGEST
        outputs = llm.encode(GIVEN, raw, use_tqdm=False)
    for output, wanted in zip(outputs, expected(model, pooling), strict=True):
        assert (output.outputs.data - wanted).abs().max().item() < TOLERANCE


def test_xlm_roberta_with_its_tokenizer(tmp_path: Path) -> None:
    """Converters cut the rows of positions before a text's first."""
    from safetensors.torch import load_file

    charsmap = precompiled(REWRITTEN)
    original = unigram_backend(charsmap)
    first = 2
    model = save_pooled(
        tmp_path / "model",
        "xlm-roberta",
        vocab_size=original.get_vocab_size(),
        max_position_embeddings=LONGEST + first,
        pad_token_id=first - 1,
        type_vocab_size=1,
    )

    def convert(name: str, tensor: torch.Tensor, config: dict[str, Any]) -> Named:
        is_cut = name == "embeddings.position_embeddings.weight"
        yield from without_pooler(name, tensor[first:] if is_cut else tensor, config)

    family = GGUFFamily(model_type="xlm-roberta", keys={**KEYS, "pooling_type": CLS}, convert=convert)
    weights, config = load_file(model / "model.safetensors"), read_config(model)
    write(tmp_path / "tiny.gguf", "bert", family, weights, config, **unigram_metadata(original, charsmap))
    texts = ["the quick brown ﬁx", "", "jumps over " * 40, "日本 the 語 zebra!"]
    given = [original.encode(text).ids for text in texts]
    with LLM(str(tmp_path / "tiny.gguf"), dtype="float32") as llm:
        assert llm.config.model.max_model_len == LONGEST
        outputs = llm.encode(texts, PoolingParams(use_activation=False), use_tqdm=False)
    for output, ids, wanted in zip(outputs, given, expected(model, CLS, given), strict=True):
        assert output.prompt_token_ids == ids
        assert (output.outputs.data - wanted).abs().max().item() < TOLERANCE


def test_a_file_that_does_not_say_how_it_pools(tmp_path: Path) -> None:
    _, file = save(tmp_path, "bert", pooling_type=None)
    facts = read_pooling(open_checkpoint(file).config)
    assert facts.pooling == "cls" and "no file of the model says how" in facts.why_pooling


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"tokenizer": "gpt2"}, "a tokenizer of kind 'gpt2'; those with 'bert' and 't5'"),
        ({"pooling_type": RANK}, "an encoder that scores"),
        ({"pooling_type": 5}, "pooling_type is 5"),
        (
            {"tokenizer.ggml.token_type_count": 3},
            r"token_type_embeddings.weight. has the shape \[2, 48\].*\[3, 48\]",
        ),
        ({"context_length": 500}, r"position_embeddings.weight. has the shape \[512, 48\].*\[500, 48\]"),
    ],
)
def test_what_is_refused(tmp_path: Path, keys: dict[str, Any], words: str) -> None:
    _, file = save(tmp_path, "bert", **keys)
    with pytest.raises(ModelFileError, match=words):
        open_checkpoint(file)


@pytest.mark.parametrize("has_dense", [True, False])
def test_embedding_gemma(tmp_path: Path, has_dense: bool) -> None:
    """A decoder whose tokens see both ways, and two layers behind the pooling."""
    from safetensors.torch import load_file

    kind, overrides = BOTH_WAYS["gemma3"]
    wider = {"head_dim": 12, "num_hidden_layers": 6, "query_pre_attn_scalar": 12}
    model = save_pooled(tmp_path / "model", kind, **{**overrides, **wider})
    config = json.loads((model / "config.json").read_text())
    keys = {
        **WIDE,
        "context_length": LONGEST,
        "attention.sliding_window": config["sliding_window"],
        "rope.freq_base": 1e6,
        "pooling_type": MEAN,
    }
    generator = torch.Generator().manual_seed(3)
    dense = {
        "dense_2.weight": torch.randn(20, 48, generator=generator),
        "dense_3.weight": torch.randn(7, 20, generator=generator),
    }
    widths = {"dense_2_feat_in": 48, "dense_2_feat_out": 20, "dense_3_feat_in": 20, "dense_3_feat_out": 7}
    weights = load_file(model / "model.safetensors")
    family = GGUFFamily(model_type=kind, tokenizer="llama", keys=keys, convert=plus_one)
    if has_dense:
        weights, keys = {**weights, **dense}, {**keys, **widths}
        family = replace(family, keys=keys)
    write(tmp_path / "tiny.gguf", "gemma-embedding", family, weights, config)
    wanted = expected(model, MEAN)
    if has_dense:
        wrong = replace(family, keys={**keys, "dense_3_feat_in": 21})
        write(tmp_path / "wrong.gguf", "gemma-embedding", wrong, weights, config)
        with pytest.raises(ModelFileError, match="'dense_3' of the model takes 21 numbers; 20 come in"):
            LLM(str(tmp_path / "wrong.gguf"), skip_tokenizer_init=True)
        wanted = [dense["dense_3.weight"] @ (dense["dense_2.weight"] @ one) for one in wanted]
    raw = PoolingParams(use_activation=False)
    with LLM(str(tmp_path / "tiny.gguf"), skip_tokenizer_init=True, dtype="float32") as llm:
        outputs = llm.encode(GIVEN, raw, use_tqdm=False)
    for output, one in zip(outputs, wanted, strict=True):
        assert (output.outputs.data - one).abs().max().item() < TOLERANCE * max(1.0, one.abs().max().item())
