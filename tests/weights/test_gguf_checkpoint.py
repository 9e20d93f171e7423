"""GGUF metadata and tensors against Hugging Face's own reading of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from octavo.base.errors import ModelFileError
from octavo.config.model import ModelConfig
from octavo.weights.checkpoint import checkpoint_facts, open_checkpoint
from octavo.weights.gguf.architectures import ARCHITECTURES
from octavo.weights.gguf.keys import Keys
from octavo.weights.gguf.rope import rope_scaling
from octavo.weights.gguf_checkpoint import GGUFCheckpoint
from tests.weights.crafted import (
    HIDDEN,
    LLAMA_KEYS,
    VOCAB,
    Info,
    changed,
    gguf_bytes,
    llama_tensors,
    write_gguf,
)
from tests.weights.lies import GGUF_METADATA


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "Tiny-Chat.Q4_K_M.gguf"


def refused(path: Path, keys: dict[str, Any], tensors: list[Info] | None, *words: str) -> None:
    write_gguf(path, keys, tensors)
    with pytest.raises(ModelFileError) as caught:
        open_checkpoint(path)
    for word in words:
        assert word in caught.value.message


@pytest.mark.parametrize(("name", "of_text"), [("qwen2vl", "qwen2"), ("qwen3vl", "qwen3")])
def test_the_text_part_of_a_model_that_sees_pictures_is_the_model_for_text(
    tmp_path: Path, name: str, of_text: str
) -> None:
    head_dim, extra = HIDDEN // 4, []
    for layer in range(2):
        for part, heads in (("q", 4), ("k", 2), ("v", 2)):
            if of_text == "qwen2":
                extra.append(Info(f"blk.{layer}.attn_{part}.bias", (heads * head_dim,)))
            elif part != "v":
                extra.append(Info(f"blk.{layer}.attn_{part}_norm.weight", (head_dim,)))
    opened = []
    for architecture in (name, of_text):
        keys = {key.replace("llama.", f"{architecture}."): value for key, value in LLAMA_KEYS.items()}
        keys |= {"general.architecture": architecture, f"{architecture}.attention.key_length": head_dim}
        if architecture == name:
            keys |= {f"{name}.rope.dimension_sections": [2, 1, 1, 0], f"{name}.n_deepstack_layers": 3}
        opened.append(open_checkpoint(write_gguf(tmp_path / architecture, keys, [*llama_tensors(), *extra])))
    assert opened[0].config == opened[1].config
    assert opened[0].tensor_names() == opened[1].tensor_names()


def test_a_decoder_made_to_see_both_ways_says_so(path: Path) -> None:
    """The models refuse it."""
    checkpoint = open_checkpoint(write_gguf(path, {**LLAMA_KEYS, "llama.attention.causal": False}))
    assert checkpoint.config["is_causal"] is False
    assert "is_causal" not in open_checkpoint(write_gguf(path)).config


def test_config_and_facts(path: Path) -> None:
    checkpoint = open_checkpoint(write_gguf(path))
    assert isinstance(checkpoint, GGUFCheckpoint)
    assert checkpoint.config == {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "dtype": "float32",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    facts = checkpoint_facts(checkpoint, ModelConfig())
    assert (facts.name, facts.architecture) == ("Tiny-Chat", "LlamaForCausalLM")
    assert (facts.model_max_len, facts.vocab_size, facts.stored_dtype) == (128, VOCAB, "float32")
    source = checkpoint.tokenizer_source()
    assert source.folder is None
    assert source.gguf_metadata is not None
    assert source.gguf_metadata["tokenizer.ggml.tokens"][:2] == ["t0", "t1"]
    assert not any(key.startswith("llama.") for key in source.gguf_metadata)


def permuted(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """What converters to GGUF do with q and k."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def test_llama_tensors_come_back_as_they_went_in(path: Path) -> None:
    config = LlamaConfig(
        hidden_size=HIDDEN, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=VOCAB, max_position_embeddings=128, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    state = LlamaForCausalLM(config).state_dict()
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    tensors = []
    for name, weight in state.items():
        stem, suffix = name.rsplit(".", 1)
        stored = (
            permuted(weight, 4) if "q_proj" in name else permuted(weight, 2) if "k_proj" in name else weight
        )
        data = stored.contiguous().numpy().tobytes()
        tensors.append(Info(f"{names.get_name(stem)}.{suffix}", tuple(weight.shape), 0, data))
    checkpoint = open_checkpoint(write_gguf(path, LLAMA_KEYS, tensors))
    assert set(checkpoint.tensor_names()) == set(state)
    assert checkpoint.config["tie_word_embeddings"] is False
    for name, weight in state.items():
        assert torch.equal(checkpoint.load(name), weight), name
        assert torch.equal(checkpoint.load(name, torch.bfloat16), weight.bfloat16()), name


def test_plain_tensors_are_views_of_one_map(path: Path) -> None:
    checkpoint = open_checkpoint(write_gguf(path))
    first, second = (checkpoint.load("model.layers.1.mlp.up_proj.weight") for _ in range(2))
    assert first.data_ptr() == second.data_ptr()
    gate = checkpoint.load("model.layers.1.mlp.gate_proj.weight")
    assert gate.dtype == torch.bfloat16
    query = checkpoint.load("model.layers.1.self_attn.q_proj.weight")
    assert query.dtype == torch.float16
    checkpoint.close()
    assert torch.isfinite(first).all()
    with pytest.raises(ModelFileError):
        checkpoint.load("model.norm.weight")


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0"])
def test_quantised_queries_are_unpermuted(path: Path, kind: str) -> None:
    type_id = gguf.GGMLQuantizationType[kind]
    weight = torch.randn(32, HIDDEN, generator=torch.Generator().manual_seed(1))
    packed = gguf.quants.quantize(permuted(weight, 4).contiguous().numpy(), type_id)
    tensors = changed(llama_tensors(), "blk.0.attn_q.weight", type_id=int(type_id), data=packed.tobytes())
    checkpoint = open_checkpoint(write_gguf(path, LLAMA_KEYS, tensors))
    direct = gguf.quants.dequantize(gguf.quants.quantize(weight.numpy(), type_id), type_id)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(checkpoint.load(name), torch.from_numpy(direct))
    assert torch.equal(checkpoint.load(name, torch.float16), torch.from_numpy(direct).half())


GGUF_ARCHITECTURES = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_names_are_those_of_the_format(name: str) -> None:
    arch = GGUF_ARCHITECTURES[name]
    tensor_map = gguf.get_tensor_name_map(arch, 2)
    stems = [gguf.TENSOR_NAMES[tensor].format(bid=1) for tensor in gguf.MODEL_TENSORS[arch]]
    architecture = ARCHITECTURES[name]
    translated = {stem: architecture.find_name(f"{stem}.weight") for stem in stems}
    known = {stem: new for stem, new in translated.items() if new is not None}
    outside = {each.rpartition(".")[0] for each in architecture.outside_names}
    assert outside - set(stems) <= {"output"}  # for architectures that always tie it
    assert len(known) == len(architecture.layer_names) + len(outside & set(stems))
    for stem, new in known.items():
        # Converters call the bias that experts are chosen by a bias of something.
        called = new.replace("e_score_correction_bias", "e_score_correction").replace("dt_bias", "dt_proj")
        bare = called.removesuffix(".weight")
        # BLOOM's first checkpoints, which the converter goes by, have no name in front.
        spellings = (called, bare, bare.removeprefix("transformer."))
        assert stem in map(tensor_map.get_name, spellings)


def test_gemma3_norms_and_layer_types(path: Path) -> None:
    keys = {key.replace("llama.", "gemma3."): value for key, value in LLAMA_KEYS.items()}
    keys |= {"general.architecture": "gemma3", "gemma3.attention.sliding_window": 16}
    tensors = llama_tensors()
    for index in range(2):
        for norm, size in (
            ("attn_q_norm", 8), ("attn_k_norm", 8), ("post_attention_norm", 32), ("post_ffw_norm", 32),
        ):  # fmt: skip
            data = np.full(size, 1.5, np.float32).tobytes()
            tensors.append(Info(f"blk.{index}.{norm}.weight", (size,), 0, data))
    checkpoint = open_checkpoint(write_gguf(path, keys, tensors))
    assert checkpoint.config["layer_types"] == ["sliding_attention"] * 2
    assert checkpoint.config["sliding_window"] == 16
    assert checkpoint.load("model.layers.0.self_attn.q_norm.weight").tolist() == [0.5] * 8
    # No rotation order in this architecture: rows come as they are.
    raw = next(info for info in tensors if info.name == "blk.0.attn_k.weight")
    assert raw.shape == checkpoint.shape("model.layers.0.self_attn.k_proj.weight")


def renamed(architecture: str, **more: Any) -> dict[str, Any]:
    """The keys of the crafted file for another architecture."""
    keys = {key.replace("llama.", f"{architecture}."): value for key, value in LLAMA_KEYS.items()}
    own = {f"{architecture}.{name}": value for name, value in more.items()}
    return keys | {"general.architecture": architecture} | own


def test_granite_has_its_factors(path: Path) -> None:
    factors = {"attention.scale": 0.5, "embedding_scale": 12.0, "residual_scale": 0.25, "logit_scale": 8.0}
    config = open_checkpoint(write_gguf(path, renamed("granite", **factors))).config
    assert config["architectures"] == ["GraniteForCausalLM"]
    assert config["attention_multiplier"] == 0.5
    assert config["embedding_multiplier"] == 12.0
    assert config["residual_multiplier"] == 0.25
    assert config["logits_scaling"] == 8.0
    del factors["residual_scale"]
    refused(path, renamed("granite", **factors), None, "granite.residual_scale")


def test_smollm3_is_stored_as_llama(path: Path) -> None:
    checkpoint = open_checkpoint(write_gguf(path, renamed("smollm3")))
    llama = open_checkpoint(write_gguf(path.with_name("llama.gguf")))
    assert checkpoint.config["architectures"] == ["SmolLM3ForCausalLM"]
    assert checkpoint.tensor_names() == llama.tensor_names()


def test_a_window_makes_olmo3_of_olmo2(path: Path) -> None:
    tensors = [
        info for info in llama_tensors() if not info.name.endswith(("attn_norm.weight", "ffn_norm.weight"))
    ]
    for index in range(2):
        tensors += [
            Info(f"blk.{index}.{norm}.weight", (size,))
            for norm, size in (
                ("attn_q_norm", 32), ("attn_k_norm", 16), ("post_attention_norm", 32), ("post_ffw_norm", 32),
            )
        ]  # fmt: skip
    checkpoint = open_checkpoint(write_gguf(path, renamed("olmo2"), tensors))
    assert checkpoint.config["architectures"] == ["Olmo2ForCausalLM"]
    assert checkpoint.shape("model.layers.1.post_feedforward_layernorm.weight") == (32,)
    keys = renamed("olmo2", **{"attention.sliding_window": 16, "attention.sliding_window_pattern": 2})
    config = open_checkpoint(write_gguf(path, keys, tensors)).config
    assert (config["architectures"], config["sliding_window"]) == (["Olmo3ForCausalLM"], 16)
    assert config["layer_types"] == ["sliding_attention", "full_attention"]


@pytest.mark.parametrize("name", ["gemma", "gemma2"])
def test_older_gemmas(path: Path, name: str) -> None:
    keys = {key.replace("llama.", f"{name}."): value for key, value in LLAMA_KEYS.items()}
    keys["general.architecture"] = name
    data = np.full(32, 1.5, np.float32).tobytes()
    tensors = changed(llama_tensors(), "output_norm.weight", data=data)
    if name == "gemma2":
        keys |= {"gemma2.attention.sliding_window": 16, "gemma2.attn_logit_softcapping": 20.0}
        tensors += [
            Info(f"blk.{index}.{norm}.weight", (32,), 0, data)
            for index in range(2)
            for norm in ("post_attention_norm", "post_ffw_norm")
        ]
    checkpoint = open_checkpoint(write_gguf(path, keys, tensors))
    config = checkpoint.config
    assert (config["model_type"], config["hidden_act"]) == (name, "gelu_pytorch_tanh")
    assert checkpoint.load("model.norm.weight").tolist() == [0.5] * 32
    if name == "gemma2":
        assert config["layer_types"] == ["sliding_attention", "full_attention"]
        assert (config["attn_logit_softcapping"], config["final_logit_softcapping"]) == (20.0, 30.0)
        assert (config["query_pre_attn_scalar"], config["sliding_window"]) == (8, 16)
        assert checkpoint.load("model.layers.1.post_feedforward_layernorm.weight").tolist() == [0.5] * 32


def test_qwen2_needs_its_biases(path: Path) -> None:
    keys = {key.replace("llama.", "qwen2."): value for key, value in LLAMA_KEYS.items()}
    keys["general.architecture"] = "qwen2"
    refused(path, keys, None, "q_proj.bias")


def test_a_sliding_window_makes_it_mistral(path: Path) -> None:
    config = open_checkpoint(write_gguf(path, LLAMA_KEYS | {"llama.attention.sliding_window": 64})).config
    assert (config["model_type"], config["sliding_window"]) == ("mistral", 64)
    assert config["architectures"] == ["MistralForCausalLM"]


@pytest.mark.parametrize(("keys", "words"), GGUF_METADATA)
def test_metadata_lies(path: Path, keys: dict[str, Any], words: list[str]) -> None:
    refused(path, LLAMA_KEYS | keys, None, *words)


def test_missing_and_unknown_tensors(path: Path) -> None:
    tensors = llama_tensors()
    without = [info for info in tensors if info.name != "blk.1.ffn_up.weight"]
    refused(path, LLAMA_KEYS, without, "model.layers.1.mlp.up_proj.weight")
    refused(path, LLAMA_KEYS, [*tensors, Info("blk.0.attn_sub_norm.weight", (32,))], "attn_sub_norm")
    refused(path, LLAMA_KEYS, [*tensors, Info("blk.0.attn_q.bias", (16,))], "blk.0.attn_q.bias", "16", "32")
    vocabulary_only = gguf_bytes(LLAMA_KEYS, [])
    path.write_bytes(vocabulary_only)
    with pytest.raises(ModelFileError, match="token_embd"):
        open_checkpoint(path)


def test_defaults_for_sampling(path: Path) -> None:
    keys = LLAMA_KEYS | {
        "general.sampling.temp": 0.7, "general.sampling.top_k": 20, "general.sampling.min_p": 0.0,
        "tokenizer.ggml.eot_token_id": 5, "tokenizer.ggml.padding_token_id": 2**32 - 1,
    }  # fmt: skip
    checkpoint = open_checkpoint(write_gguf(path, keys))
    assert checkpoint.generation_config == {
        "temperature": 0.7, "top_k": 20, "min_p": 0.0, "do_sample": True,
        "bos_token_id": 1, "eos_token_id": [2, 5],
    }  # fmt: skip


def test_yarn_and_linear(path: Path) -> None:
    linear = LLAMA_KEYS | {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    checkpoint = open_checkpoint(write_gguf(path, linear))
    assert checkpoint.config["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}
    assert checkpoint_facts(checkpoint, ModelConfig()).model_max_len == 512
    yarn = LLAMA_KEYS | {
        "llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 2.0,
        "llama.rope.scaling.original_context_length": 64,
    }  # fmt: skip
    checkpoint = open_checkpoint(write_gguf(path, yarn))
    assert checkpoint.config["rope_scaling"] == {
        "rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64,
    }  # fmt: skip
    assert checkpoint_facts(checkpoint, ModelConfig()).model_max_len == 128


@pytest.mark.parametrize(("factor", "original", "theta"), [(8.0, 8192, 500000.0), (32.0, 4096, 10000.0)])
def test_llama3_scaling_is_found_from_its_divisors(
    path: Path, factor: float, original: int, theta: float
) -> None:
    scaling = {
        "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": original,
    }  # fmt: skip
    config = LlamaConfig(
        hidden_size=256, num_attention_heads=2, max_position_embeddings=131072,
        rope_parameters=scaling | {"rope_theta": theta},
    )  # fmt: skip
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 1.0 / theta ** (torch.arange(0, 128, 2) / 128)
    found = rope_scaling(Keys({}, "llama"), (plain / scaled).numpy(), head_dim=128, theta=theta)
    assert found is not None
    assert found.pop("factor") == pytest.approx(scaling.pop("factor"), rel=1e-5)
    assert found == scaling


def test_rope_divisors_must_make_sense(path: Path) -> None:
    keys, tensors = LLAMA_KEYS, llama_tensors()
    for values in (np.zeros(4), np.full(4, np.nan), np.array([1, 9, 2, 3]), np.full(3, 2.0)):
        data = values.astype(np.float32).tobytes()
        refused(path, keys, [*tensors, Info("rope_freqs.weight", values.shape, 0, data)], "rope_freqs")
    ones = [*tensors, Info("rope_freqs.weight", (4,), 0, np.ones(4, np.float32).tobytes())]
    assert open_checkpoint(write_gguf(path, keys, ones)).config["rope_scaling"] is None


@pytest.mark.real
@pytest.mark.slow
def test_real_model_equals_transformers(real_gguf: Path) -> None:
    checkpoint = open_checkpoint(real_gguf)
    assert checkpoint.name == "SmolLM2-135M-Instruct"
    assert checkpoint.stored_dtype == "Q4_1"
    config = LlamaConfig(**checkpoint.config)
    theirs = load_gguf_checkpoint(str(real_gguf))["config"]
    for key in set(theirs) & set(checkpoint.config):
        assert checkpoint.config[key] == pytest.approx(theirs[key]), key
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    tensors = load_gguf_checkpoint(str(real_gguf), return_tensors=True, model_to_load=model)["tensors"]
    assert set(tensors) == set(checkpoint.tensor_names())
    for name, tensor in tensors.items():
        assert torch.equal(checkpoint.load(name), tensor), name
