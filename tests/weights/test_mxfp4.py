"""MXFP4 of safetensors: what transformers reads, by either way into a model; refused where it is broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from octavo.base.errors import ModelFileError
from octavo.base.native import native_kernels
from octavo.engine.llm import LLM
from octavo.layers.placement import Placement
from octavo.messages.params import SamplingParams
from octavo.models.gpt_oss import GptOssForCausalLM
from octavo.models.load import load_weights, place_on_device
from octavo.weights import transfer
from octavo.weights.checkpoint import open_checkpoint
from octavo.weights.gguf.dequant import BLOCK_TYPES
from octavo.weights.gguf.dequant import dequantize as dequantize_gguf
from octavo.weights.mxfp4 import dequantize
from octavo.weights.shapes import expected_shapes

CONFIG: dict[str, Any] = {
    "architectures": ["GptOssForCausalLM"],
    "model_type": "gpt_oss",
    "vocab_size": 40,
    "hidden_size": 96,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_local_experts": 3,
    "num_experts_per_tok": 2,
    "sliding_window": 16,
    "max_position_embeddings": 64,
    "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]},
}
EXPERTS = ("model.layers.1.mlp.experts.gate_up_proj", "model.layers.1.mlp.experts.down_proj")
Weights = dict[str, torch.Tensor]


def packed_weights() -> Weights:
    generator = torch.Generator().manual_seed(0)
    weights: Weights = {}
    for name, shape in (expected_shapes(CONFIG) or {}).items():
        if name.endswith(("gate_up_proj", "down_proj")):
            experts, inputs, rows = shape
            blocks = torch.randint(0, 256, (experts, rows, inputs // 32, 16), generator=generator)
            scales = torch.randint(118, 128, (experts, rows, inputs // 32), generator=generator)
            weights |= {f"{name}_blocks": blocks.byte(), f"{name}_scales": scales.byte()}
        else:
            weights[name] = torch.randn(shape, generator=generator).bfloat16()
    return weights


def write(folder: Path, weights: Weights, config: dict[str, Any] = CONFIG) -> Path:
    """Two files, with the halves of a tensor in different ones."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    files = {"a.safetensors": {}, "b.safetensors": {}}
    for name, tensor in weights.items():
        files["b.safetensors" if name.endswith("_scales") else "a.safetensors"][name] = tensor
    for file, tensors in files.items():
        save_file(tensors, folder / file)
    weight_map = {name: file for file, tensors in files.items() for name in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def theirs(weights: Weights, name: str) -> torch.Tensor:
    return convert_moe_packed_tensors(weights[f"{name}_blocks"], weights[f"{name}_scales"])


def test_every_number_of_every_scale() -> None:
    blocks = np.tile(np.arange(256, dtype=np.uint8).reshape(16, 16), (255, 1))
    scales = np.repeat(np.arange(255, dtype=np.uint8), 16)
    out = np.empty(255 * 512, dtype=np.float32)
    dequantize(blocks, scales, out)
    levels = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])
    numbers = np.stack((blocks & 15, blocks >> 4), -1).reshape(-1, 32)
    with np.errstate(over="ignore"):
        expected = (levels[numbers] * 2.0 ** (scales[:, None].astype(float) - 127)).astype(np.float32)
    assert (out.reshape(expected.shape) == expected).all()
    dequantize(blocks[:1], np.array([255], dtype=np.uint8), out[:32])
    assert np.isnan(out[:32]).all()


def test_a_checkpoint_shows_the_tensors_that_were_packed(tmp_path: Path) -> None:
    weights = packed_weights()
    checkpoint = open_checkpoint(write(tmp_path, weights))
    assert set(checkpoint.tensor_names()) == set(expected_shapes(CONFIG) or {})
    assert checkpoint.stored_dtype == "MXFP4"
    for name in EXPERTS:
        loaded = checkpoint.load(name)
        assert loaded.dtype == torch.bfloat16
        assert tuple(loaded.shape) == checkpoint.shape(name)
        assert torch.equal(loaded, theirs(weights, name))
        assert torch.equal(checkpoint.load(name, torch.float32), theirs(weights, name).float())


def test_rows_come_packed_as_in_gguf_files(tmp_path: Path) -> None:
    weights = packed_weights()
    checkpoint = open_checkpoint(write(tmp_path, weights))
    for name in EXPERTS:
        assert checkpoint.stored_kind(name) == "MXFP4" and checkpoint.stored_matrix(name) is None
        stored = checkpoint.stored_matrix(name, is_turned=True)
        assert stored is not None and stored.kind == "MXFP4"
        rows = theirs(weights, name).transpose(1, 2).float().reshape(-1, stored.columns)
        numbers = np.empty((stored.rows, stored.columns), dtype=np.float32)
        dequantize_gguf(stored.data, BLOCK_TYPES[39], numbers)
        assert torch.equal(torch.from_numpy(numbers), rows)
        stored.release()
        assert torch.equal(checkpoint.load(name), theirs(weights, name))


@pytest.mark.skipif(native_kernels() is None, reason="no native kernels were compiled")
def test_native_kernels_keep_experts_packed(tmp_path: Path) -> None:
    path = write(tmp_path, packed_weights(), {**CONFIG, "torch_dtype": "bfloat16"})
    prompt = list(range(30))
    logprobs = []
    for options in ({}, {"dtype": "float32"}):
        with LLM(str(path), skip_tokenizer_init=True, max_model_len=64, num_blocks=20, **options) as llm:
            assert llm.config.model.packed_weights is (not options)
            params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)
            (output,) = llm.generate([{"prompt_token_ids": prompt}], params)
            found = output.prompt_logprobs or []
            logprobs.append(
                [entry[token].logprob for entry, token in zip(found[1:], prompt[1:], strict=True)]
            )
    packed, exact = map(torch.tensor, logprobs)
    # Inputs of experts are rounded to 8 bits; a few tokens are on the edge between experts.
    assert 0 < (packed - exact).abs().median() < 0.02 * exact.abs().max()


@pytest.mark.parametrize("way", ["load", "upload", "upload in small pieces"])
def test_numbers_land_in_the_model(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = packed_weights()
    checkpoint = open_checkpoint(write(tmp_path, weights))
    placement = Placement(dtype=torch.bfloat16, device=torch.device("cpu"), max_positions=64)
    model = GptOssForCausalLM(checkpoint.config, placement)
    if way == "load":
        load_weights(model, checkpoint)
    else:
        if "small" in way:
            monkeypatch.setattr(transfer, "BUFFER_BYTES", 1024)
        place_on_device(model.weight_slots(), checkpoint)
    experts = model.blocks[1].mlp.experts
    assert torch.equal(experts.gate_up_XGE, theirs(weights, EXPERTS[0]).transpose(1, 2))
    assert torch.equal(experts.down_XEF, theirs(weights, EXPERTS[1]).transpose(1, 2))
    bias = "model.layers.1.mlp.experts.down_proj_bias"
    assert torch.equal(experts.down_bias_XE, weights[bias])


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (f"{EXPERTS[0]}_scales", None, "no 'model.layers.1.mlp.experts.gate_up_proj_scales'"),
        (
            f"{EXPERTS[0]}_scales",
            torch.zeros(3, 128, 2, dtype=torch.uint8),
            r"\[3, 128, 3, 16\] and its scales",
        ),
        (f"{EXPERTS[1]}_blocks", torch.zeros(3, 96, 2, 16), "in float32 and uint8; both parts must be uint8"),
        (f"{EXPERTS[1]}_blocks", None, "has no tensor 'model.layers.1.mlp.experts.down_proj'"),
    ],
)
def test_halves_that_do_not_go_together(
    tmp_path: Path, name: str, change: torch.Tensor | None, words: str
) -> None:
    weights = packed_weights()
    if change is None:
        del weights[name]
    else:
        weights[name] = change
    with pytest.raises(ModelFileError, match=words):
        open_checkpoint(write(tmp_path, weights))


def test_a_size_that_the_config_does_not_give(tmp_path: Path) -> None:
    folder = write(tmp_path, packed_weights(), {**CONFIG, "num_local_experts": 4})
    with pytest.raises(ModelFileError, match=r"shape \[3.*config says \[4"):
        open_checkpoint(folder)


def test_other_quantisations_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, packed_weights(), {**CONFIG, "quantization_config": {"quant_method": "awq"}})
    with pytest.raises(ModelFileError, match=r"\(awq\); of safetensors only mxfp4 and fp8 are read"):
        open_checkpoint(folder)
