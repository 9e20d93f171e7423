"""config.json and generation_config.json of a model folder beside honest weights: read, resolved, planned."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import torch
from safetensors.torch import save_file

from octavo.base.errors import ConfigError, ModelFileError
from octavo.config.model import ModelConfig
from octavo.weights.checkpoint import checkpoint_facts, open_checkpoint
from tests.fuzz.mutate import json_mutator
from tests.fuzz.target import Run, Target
from tests.weights.crafted import HEADS, HIDDEN, KV_HEADS, MIDDLE, TINY_CONFIG, VOCAB

SPLIT = b"\n\0\n"
WORDS = (
    *TINY_CONFIG, "rope_scaling", "rope_parameters", "rope_type", "factor", "yarn", "llama3", "longrope",
    "head_dim",
    "sliding_window", "layer_types", "quantization_config", "quant_method", "fp8", "mxfp4",
    "weight_block_size",
    "num_experts", "n_routed_experts", "text_config", "auto_map", "torch_dtype", "n_positions",
    "eos_token_id",
    "temperature", "top_k", "LlamaForCausalLM", "Qwen3ForCausalLM", "Gemma3ForCausalLM",
    "DeepseekV3ForCausalLM",
    "GptOssForCausalLM", "BertModel", "llama", "qwen3", "gemma3", "deepseek_v3",
    "original_max_position_embeddings",
)  # fmt: skip
_MUTATE = json_mutator(WORDS)


def opened(folder: Path) -> Run:
    torch.set_num_threads(1)
    head = HIDDEN // HEADS
    shapes = {"model.embed_tokens.weight": (VOCAB, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for layer in range(TINY_CONFIG["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        shapes |= {
            f"{prefix}.input_layernorm.weight": (HIDDEN,),
            f"{prefix}.post_attention_layernorm.weight": (HIDDEN,),
            f"{prefix}.self_attn.q_proj.weight": (HEADS * head, HIDDEN),
            f"{prefix}.self_attn.k_proj.weight": (KV_HEADS * head, HIDDEN),
            f"{prefix}.self_attn.v_proj.weight": (KV_HEADS * head, HIDDEN),
            f"{prefix}.self_attn.o_proj.weight": (HIDDEN, HEADS * head),
            f"{prefix}.mlp.gate_proj.weight": (MIDDLE, HIDDEN),
            f"{prefix}.mlp.up_proj.weight": (MIDDLE, HIDDEN),
            f"{prefix}.mlp.down_proj.weight": (HIDDEN, MIDDLE),
        }
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, folder / "model.safetensors")

    def run(data: bytes) -> None:
        config, _, generation = data.partition(SPLIT)
        (folder / "config.json").write_bytes(config)
        (folder / "generation_config.json").write_bytes(generation or b"{}")
        try:
            checkpoint = open_checkpoint(folder)
            assert checkpoint_facts(checkpoint, ModelConfig()).model_max_len > 0
        except (ModelFileError, ConfigError):
            return

    return run


def mutate(data: bytes, rng: Random) -> bytes:
    config, _, generation = data.partition(SPLIT)
    if rng.random() < 0.15:
        return config + SPLIT + _MUTATE(generation or b"{}", rng)
    return _MUTATE(config, rng) + SPLIT + generation


def seeds() -> Iterator[bytes]:
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64}  # fmt: skip
    generation = {"temperature": 0.6, "top_p": 0.9, "top_k": 20, "eos_token_id": [1, 2]}
    for config in (
        TINY_CONFIG,
        TINY_CONFIG | {"rope_scaling": rope},
        {**TINY_CONFIG, "text_config": TINY_CONFIG},
    ):
        yield json.dumps(config).encode() + SPLIT + json.dumps(generation).encode()


TARGET = Target(open=opened, seeds=seeds, mutate=mutate, max_bytes=8192)
