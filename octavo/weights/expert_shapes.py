"""Which tensors a layer with experts has in place of an MLP, for `shapes.py`.

A kind of checkpoint is a function (config) -> shapes of one layer's tensors by name within the layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

Config = dict[str, Any]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """How a family holds its experts."""

    shapes: Callable[[Config], Shapes | None]
    """None: the config does not say enough."""
    is_sparse: Callable[[Config, int], bool] = lambda config, layer: True  # noqa: ARG005
    """Whether that layer has experts."""


def num_experts(config: Config) -> int | None:
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    return next((config[name] for name in names if config.get(name) is not None), None)


def one_by_one(
    config: Config, *, name: str = "mlp", matrices: tuple[str, str, str], inner: str = "intermediate_size"
) -> Shapes | None:
    """Three matrices for each expert: gate, up and down."""
    count, width, middle = num_experts(config), config["hidden_size"], config.get(inner)
    if count is None or middle is None:
        return None
    gate, up, down = matrices
    shapes: Shapes = {f"{name}.gate.weight": (count, width)}
    for expert in range(count):
        of_expert = f"{name}.experts.{expert}"
        shapes[f"{of_expert}.{gate}.weight"] = shapes[f"{of_expert}.{up}.weight"] = (middle, width)
        shapes[f"{of_expert}.{down}.weight"] = (width, middle)
    return shapes


QWEN = partial(one_by_one, matrices=("gate_proj", "up_proj", "down_proj"), inner="moe_intermediate_size")
OLMOE = partial(one_by_one, matrices=("gate_proj", "up_proj", "down_proj"))
MIXTRAL = partial(one_by_one, name="block_sparse_moe", matrices=("w1", "w3", "w2"))


def qwen2(config: Config) -> Shapes | None:
    """Beside an MLP of all tokens, and its gate."""
    shapes, width = QWEN(config), config["hidden_size"]
    middle = config.get("shared_expert_intermediate_size")
    if shapes is None or middle is None:
        return None
    return shapes | {
        "mlp.shared_expert.gate_proj.weight": (middle, width),
        "mlp.shared_expert.up_proj.weight": (middle, width),
        "mlp.shared_expert.down_proj.weight": (width, middle),
        "mlp.shared_expert_gate.weight": (1, width),
    }


def gpt_oss(config: Config) -> Shapes | None:
    """All experts in one tensor, inputs first, with biases."""
    count, width, middle = num_experts(config), config["hidden_size"], config["intermediate_size"]
    if count is None:
        return None
    return {
        "mlp.router.weight": (count, width),
        "mlp.router.bias": (count,),
        "mlp.experts.gate_up_proj": (count, width, 2 * middle),
        "mlp.experts.gate_up_proj_bias": (count, 2 * middle),
        "mlp.experts.down_proj": (count, middle, width),
        "mlp.experts.down_proj_bias": (count, width),
    }


def granite(config: Config) -> Shapes | None:
    """All experts in one tensor, outputs first."""
    count, width, middle = num_experts(config), config["hidden_size"], config["intermediate_size"]
    if count is None:
        return None
    return {
        "block_sparse_moe.router.layer.weight": (count, width),
        "block_sparse_moe.input_linear.weight": (count, 2 * middle, width),
        "block_sparse_moe.output_linear.weight": (count, width, middle),
    }


def qwen_is_sparse(config: Config, layer: int) -> bool:
    """Every decoder_sparse_step-th layer, but for those in mlp_only_layers."""
    step, dense = config.get("decoder_sparse_step"), config.get("mlp_only_layers")
    is_dense = isinstance(dense, list) and layer in dense
    return not is_dense and (layer + 1) % (step if isinstance(step, int) and step > 0 else 1) == 0
