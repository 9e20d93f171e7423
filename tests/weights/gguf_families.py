"""Tiny random models of transformers as GGUF files: names, keys and layouts as converters make them.

A family is a line: the case of tests/conformance, the keys of the file, and what happens to its tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import torch

from tests.conformance.families import OLDER
from tests.tiny import VOCAB_SIZE, save_model

Named = Iterator[tuple[str, torch.Tensor]]
WIDTH, HEADS, KV_HEADS, HEAD_DIM, INNER = 48, 6, 2, 12, 88


@dataclass(frozen=True, kw_only=True)
class GGUFFamily:
    model_type: str
    overrides: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, Any] = field(default_factory=dict)
    """Beside those of all; `None` leaves one of them out."""
    convert: Callable[[str, torch.Tensor, dict[str, Any]], Named] = lambda name, tensor, _: iter(
        [(name, tensor)]
    )
    """(Hugging Face's name, tensor, config) -> names that gguf's map knows, or GGUF's own, and tensors."""


def common(layers: int) -> dict[str, Any]:
    return {
        "block_count": layers,
        "context_length": 1024,
        "embedding_length": WIDTH,
        "feed_forward_length": INNER,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
    }


EPSILON = {"attention.layer_norm_epsilon": 1e-5}
WHOLE_WIDTH = {"attention.head_count_kv": HEADS, "rope.dimension_count": 8}


def turned(name: str, tensor: torch.Tensor, config: dict[str, Any]) -> Named:  # noqa: ARG001
    yield name, tensor.t() if tensor.ndim == 2 and ".h." in name else tensor


def by_kind(name: str, tensor: torch.Tensor, config: dict[str, Any]) -> Named:
    """All queries, all keys, all values; checkpoints have them by KV head."""
    if "query_key_value" in name:
        is_falcon = config["model_type"] == "falcon"
        kv_heads = falcon_kv_heads(config) if is_falcon else config["num_attention_heads"]
        rows = tensor.reshape(kv_heads, -1, 8, *tensor.shape[1:])
        parts = (rows[:, :-2], rows[:, -2:-1], rows[:, -1:])
        tensor = torch.cat([part.reshape(-1, *tensor.shape[1:]) for part in parts])
    yield name, tensor


def falcon_kv_heads(config: dict[str, Any]) -> int:
    return config["num_kv_heads"] if config["new_decoder_architecture"] else 1


def plus_one(name: str, tensor: torch.Tensor, config: dict[str, Any]) -> Named:  # noqa: ARG001
    yield name, tensor + 1 if name.endswith("norm.weight") else tensor


FALCON = {**OLDER, "ffn_hidden_size": 88}
FAMILIES: dict[str, dict[str, GGUFFamily]] = {
    "gpt2": {
        "": GGUFFamily(
            model_type="gpt2",
            overrides={**OLDER, "n_inner": 88},
            keys={**EPSILON, "attention.head_count_kv": None},
            convert=turned,
        )
    },
    "gptneox": {
        "parallel": GGUFFamily(
            model_type="gpt_neox",
            overrides={
                "num_key_value_heads": ...,
                "head_dim": ...,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
            },
            keys={
                **EPSILON,
                "rope.dimension_count": 4,
                "attention.head_count_kv": None,
                "use_parallel_residual": True,
            },
            convert=by_kind,
        ),
        "in turn": GGUFFamily(
            model_type="gpt_neox",
            overrides={
                "num_key_value_heads": ...,
                "head_dim": ...,
                "use_parallel_residual": False,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0},
            },
            keys={
                **EPSILON,
                "rope.dimension_count": 8,
                "attention.head_count_kv": None,
                "use_parallel_residual": False,
            },
            convert=by_kind,
        ),
    },
    "phi2": {
        "": GGUFFamily(
            model_type="phi",
            overrides={"head_dim": ..., "num_key_value_heads": HEADS},
            keys={**EPSILON, "attention.head_count_kv": HEADS, "rope.dimension_count": 4},
        )
    },
    "falcon": {
        "7B": GGUFFamily(
            model_type="falcon",
            overrides={**FALCON, "tie_word_embeddings": False},
            keys={**EPSILON, "attention.head_count_kv": 1, "tensor_data_layout": "jploski"},
            convert=by_kind,
        ),
        "40B": GGUFFamily(
            model_type="falcon",
            overrides={**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2},
            keys=EPSILON,
            convert=by_kind,
        ),
        "11B": GGUFFamily(
            model_type="falcon",
            overrides={
                **FALCON,
                "new_decoder_architecture": True,
                "num_kv_heads": 2,
                "num_ln_in_parallel_attn": 1,
            },
            keys=EPSILON,
            convert=by_kind,
        ),
    },
    "stablelm": {
        "": GGUFFamily(
            model_type="stablelm",
            overrides={
                "head_dim": ...,
                "use_qkv_bias": True,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
            },
            keys={**EPSILON, "rope.dimension_count": 4, "use_parallel_residual": False},
        ),
        "parallel": GGUFFamily(
            model_type="stablelm",
            overrides={
                "head_dim": ...,
                "use_parallel_residual": True,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.25},
            },
            keys={**EPSILON, "rope.dimension_count": 2, "use_parallel_residual": True},
        ),
    },
    "starcoder2": {
        "": GGUFFamily(
            model_type="starcoder2",
            overrides={"head_dim": ..., "sliding_window": None},
            keys={**EPSILON, "rope.freq_base": 1e4},
        )
    },
    "nemotron": {
        "": GGUFFamily(
            model_type="nemotron",
            overrides={"head_dim": ...},
            keys={**EPSILON, "rope.dimension_count": 4, "rope.scaling.type": "none"},
            convert=plus_one,
        )
    },
    "command-r": {
        "": GGUFFamily(
            model_type="cohere",
            overrides={"head_dim": ..., "logit_scale": 0.3},
            keys={**EPSILON, "logit_scale": 0.3, "rope.scaling.type": "none", "rope.freq_base": 5e5},
        )
    },
}
"""GGUF's architecture -> its variants."""


def save(folder: Path, architecture: str, variant: str = "") -> tuple[Path, Path]:
    """The folder of the model, and the GGUF file of the same numbers."""
    from safetensors.torch import load_file

    family = FAMILIES[architecture][variant]
    model = save_model(folder / "model", family.model_type, **family.overrides)
    weights = load_file(model / "model.safetensors")
    file = folder / "tiny.gguf"
    write(file, architecture, family, weights, read_config(model))
    return model, file


def read_config(model: Path) -> dict[str, Any]:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(model).to_dict()


def write(
    file: Path,
    architecture: str,
    family: GGUFFamily,
    weights: dict[str, torch.Tensor],
    config: dict[str, Any],
    *,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    **more: Any,
) -> None:
    """kind: of matrices. more: keys over those of the family."""
    layers = config.get("num_hidden_layers") or config["n_layer"]
    writer = gguf.GGUFWriter(file, architecture)
    for key, value in {**common(layers), **family.keys, **more}.items():
        if value is not None:
            add_value(writer, f"{architecture}.{key}", value)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{index}" for index in range(VOCAB_SIZE)])
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(arch, layers)
    for name, tensor in weights.items():
        for called, stored in family.convert(name, tensor, config):
            data = stored.contiguous().numpy()
            packs = kind != gguf.GGMLQuantizationType.F32 and data.ndim >= 2
            if packs:
                data = gguf.quants.quantize(data, kind)
            writer.add_tensor(gguf_name(names, called), data, raw_dtype=kind if packs else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_name(names: gguf.TensorNameMap, called: str) -> str:
    if called.startswith(("blk.", "output", "token_embd")):
        return called
    found = names.get_name(called, try_suffixes=(".weight", ".bias"))
    assert found is not None, called
    return found


def add_value(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case list():
            writer.add_array(key, value)
        case _:
            raise AssertionError(value)


CASES = [(name, variant) for name, variants in FAMILIES.items() for variant in variants]
