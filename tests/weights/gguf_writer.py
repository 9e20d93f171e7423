"""Tiny random models of transformers as GGUF files: names, keys and layouts as converters make them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import torch

from octavo.weights.config_json import add_modern_names
from tests.tiny import VOCAB_SIZE, save_model
from tests.weights.gguf_conversions import stacked_experts
from tests.weights.gguf_families.family import HEADS, INNER, KV_HEADS, WIDTH, GGUFFamily
from tests.weights.gguf_families.table import FAMILIES


def common(layers: int) -> dict[str, Any]:
    return {
        "block_count": layers,
        "context_length": 1024,
        "embedding_length": WIDTH,
        "feed_forward_length": INNER,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
    }


def save(
    folder: Path,
    architecture: str,
    variant: str = "",
    *,
    without: str = "",
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    wider: dict[str, Any] | None = None,
    **keys: Any,
) -> tuple[Path, Path]:
    """The folder of the model, and the GGUF file of the same numbers.

    without: the tensor, by Hugging Face's name, that the file lacks. wider: over the config. keys: over the
    file's.
    """
    from safetensors.torch import load_file

    family = FAMILIES[architecture][variant]
    model = save_model(folder / "model", family.model_type, **{**family.overrides, **(wider or {})})
    weights = load_file(model / "model.safetensors")
    weights = {name: tensor for name, tensor in weights.items() if name != without}
    file = folder / "tiny.gguf"
    write(file, architecture, family, weights, read_config(model), kind=kind, **keys)
    return model, file


def read_config(model: Path) -> dict[str, Any]:
    from transformers import AutoConfig

    config: dict[str, Any] = AutoConfig.from_pretrained(model).to_dict()
    add_modern_names(config)
    return config


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
    layers = config["num_hidden_layers"]
    writer = gguf.GGUFWriter(file, architecture)
    for key, value in {**common(layers), **family.keys, **more}.items():
        if value is not None:
            add_value(writer, key if key.startswith("tokenizer.") else f"{architecture}.{key}", value)
    if "tokenizer.ggml.model" not in more:
        writer.add_tokenizer_model(family.tokenizer)
        writer.add_token_list([f"t{index}" for index in range(VOCAB_SIZE)])
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(arch, layers)
    for name, tensor in {**weights, **stacked_experts(weights)}.items():
        for called, stored in family.convert(name, tensor, config):
            data = stored.contiguous().numpy()
            packs = kind != gguf.GGMLQuantizationType.F32 and data.ndim >= 2 and data.shape[-1] % 32 == 0
            if packs:
                data = gguf.quants.quantize(data, kind)
            writer.add_tensor(gguf_name(names, called), data, raw_dtype=kind if packs else None)
    rope = config.get("rope_parameters") or {}
    for length in ("long", "short"):
        if f"{length}_factor" in rope:
            factors = torch.tensor(rope[f"{length}_factor"], dtype=torch.float32)
            writer.add_tensor(f"rope_factors_{length}.weight", factors.numpy())
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
