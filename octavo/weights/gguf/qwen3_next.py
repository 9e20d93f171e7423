"""GGUF files of Qwen3-Next: three layers of gated delta nets to one that attends, experts in all.

G groups of a delta net, K and V widths of a group's keys and values, E width.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from octavo.base.errors import ModelFileError
from octavo.weights.gguf import names
from octavo.weights.gguf.architecture import Architecture, Config
from octavo.weights.gguf.keys import Keys
from octavo.weights.gguf.mamba import add_mixer_tensor
from octavo.weights.gguf.reader import GGUFTensor
from octavo.weights.gguf.views import ExpertNames, Part, View, Views

if TYPE_CHECKING:
    import torch

_LAYER = {
    **{name: ours for name, ours in names.QWEN2_MOE_LAYER.items() if name != "ffn_norm"},
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ssm_conv1d": "linear_attn.conv1d",
    "ssm_dt": "linear_attn.dt_bias",
    "ssm_a": "linear_attn.A_log",
    "ssm_norm": "linear_attn.norm",
    "ssm_ba": "linear_attn.in_proj_ba",
    "ssm_out": "linear_attn.out_proj",
}


def _extend(config: Config, keys: Keys) -> None:
    keys.count("expert_count")
    period, layers = keys.count("full_attention_interval", 4), config["num_hidden_layers"]
    heads, inner = keys.count("ssm.time_step_rank"), keys.count("ssm.inner_size")
    if inner % heads:
        raise ModelFileError(
            f"qwen3next.ssm.inner_size {inner} is not a multiple of the {heads} value heads in "
            "qwen3next.ssm.time_step_rank."
        )
    config |= {
        "layer_types": [
            "linear_attention" if (index + 1) % period else "full_attention" for index in range(layers)
        ],
        "linear_conv_kernel_dim": keys.count("ssm.conv_kernel"),
        "linear_key_head_dim": keys.count("ssm.state_size"),
        "linear_num_key_heads": keys.count("ssm.group_count"),
        "linear_num_value_heads": heads,
        "linear_value_head_dim": inner // heads,
        "norm_topk_prob": True,
        "shared_expert_intermediate_size": keys.count("expert_shared_feed_forward_length"),
        "attention_bias": keys.has_tensor("attn_output.bias"),
    }


def _add_own(views: Views, tensor: GGUFTensor, name: str | None, config: Config) -> bool:
    """One matrix of a delta net, group by group in checkpoints, is two by kind in files."""
    if tensor.name.endswith(".ssm_norm.weight") and name is not None:
        views[name] = View.of(tensor)  # the one norm to whose weights nothing is added
        return True
    is_gate = tensor.name.endswith(".attn_gate.weight")
    if not is_gate and not tensor.name.endswith(".attn_qkv.weight"):
        return add_mixer_tensor(views, tensor, name, config)
    groups, key = config["linear_num_key_heads"], config["linear_key_head_dim"]
    value = config["linear_num_value_heads"] * config["linear_value_head_dim"] // groups
    rows = groups * (value if is_gate else 2 * key + value)
    if len(tensor.shape) != 2 or tensor.shape[0] != rows:
        raise ModelFileError(
            f"The GGUF tensor {tensor.name!r} has the shape {list(tensor.shape)}; its metadata say {rows} "
            "rows."
        )
    layer = tensor.name.split(".")[1]
    view = views.setdefault(
        f"model.layers.{layer}.linear_attn.in_proj_qkvz.weight",
        View((groups * 2 * (key + value), tensor.shape[1])),
    )
    # Within a group: queries, keys, values, gate.
    places = {2 * key + value: value} if is_gate else {0: key, key: key, 2 * key: value}
    start = 0
    for place, width in places.items():
        view.parts.append(
            Part(
                tensor=tensor,
                rows=range(start, start + groups * width),
                shape=(groups, width, tensor.shape[1]),
                take=partial(_rows_of_groups, groups=groups, start=place, stop=place + width),
            )
        )
        start += groups * width
    return True


def _rows_of_groups(whole: torch.Tensor, *, groups: int, start: int, stop: int) -> torch.Tensor:
    return whole.view(groups, -1, whole.shape[1])[:, start:stop]


QWEN3_NEXT = Architecture(
    class_name="Qwen3NextForCausalLM",
    model_type="qwen3_next",
    layer_names=_LAYER,
    experts=ExpertNames("mlp", gate="gate_proj", up="up_proj", down="down_proj"),
    may_rotate_part=True,
    norm_offset=1.0,
    add_own_tensor=_add_own,
    extend=_extend,
)
