"""GGUF files of models with Mamba-2 mixers: Mamba 2 and Falcon-H1, and what all such mixers share.

H heads of a mixer, C convolved columns, W taps, I inner width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from octavo.base.errors import ModelFileError
from octavo.weights.gguf.architecture import Architecture, Config
from octavo.weights.gguf.bits import Floats
from octavo.weights.gguf.keys import Keys
from octavo.weights.gguf.names import LLAMA_LAYER
from octavo.weights.gguf.reader import GGUFTensor
from octavo.weights.gguf.views import View, Views


def mixer_names(mixer: str) -> Mapping[str, str]:
    """Of a layer's tensors, the mixer being called so."""
    parts = {
        "ssm_in": "in_proj",
        "ssm_conv1d": "conv1d",
        "ssm_dt": "dt_bias",
        "ssm_a": "A_log",
        "ssm_d": "D",
        "ssm_norm": "norm",
        "ssm_out": "out_proj",
    }
    return MappingProxyType({name: f"{mixer}.{part}" for name, part in parts.items()})


def add_mixer_tensor(
    views: Views,
    tensor: GGUFTensor,
    name: str | None,
    config: Config,  # noqa: ARG001
) -> bool:
    """Files hold convolutions as [C, W], norms by groups, and decays, [H, 1], instead of their logarithms."""
    if name is None or ".ssm_" not in tensor.name:
        return False
    if name.endswith(".conv1d.weight") and len(tensor.shape) == 2:
        shape = (tensor.shape[0], 1, tensor.shape[1])
        views[name] = View.as_shape(tensor, shape, lambda whole: whole[:, 0])
    elif name.endswith((".A_log", ".D")):
        undo = to_logarithm if name.endswith(".A_log") else None
        views[name] = View.as_shape(tensor, tensor.shape[:1], lambda whole: whole.view(tensor.shape), undo)
    elif name.endswith(".norm.weight") and len(tensor.shape) == 2:
        inner = tensor.shape[0] * tensor.shape[1]
        views[name] = View.as_shape(tensor, (inner,), lambda whole: whole.view(tensor.shape))
    else:
        return False
    return True


def to_logarithm(decays: Floats) -> None:
    """From -exp(x) to x."""
    if decays.size and not decays.max() < 0:
        raise ModelFileError("A decay of the GGUF model's recurrence (ssm_a) is not below 0, as all must be.")
    np.log(-decays, out=decays)


@dataclass(frozen=True, kw_only=True)
class Mixer:
    """The numbers of a file's mixers."""

    heads: int
    groups: int
    state: int
    taps: int
    inner: int
    has_bias: bool
    has_conv_bias: bool

    @classmethod
    def read(cls, keys: Keys) -> Mixer:
        heads, inner = keys.count("ssm.time_step_rank"), keys.count("ssm.inner_size")
        if inner % heads:
            raise ModelFileError(
                f"{keys.prefix}.ssm.inner_size {inner} is not a multiple of the {heads} heads in "
                f"{keys.prefix}.ssm.time_step_rank."
            )
        return cls(
            heads=heads,
            groups=keys.count("ssm.group_count", 1),
            state=keys.count("ssm.state_size"),
            taps=keys.count("ssm.conv_kernel"),
            inner=inner,
            has_bias=keys.has_tensor("ssm_in.bias"),
            has_conv_bias=keys.has_tensor("ssm_conv1d.bias"),
        )

    @property
    def head_dim(self) -> int:
        return self.inner // self.heads

    def expand(self, hidden: int) -> int:
        """For families that know their inner width as a multiple of the model's."""
        if self.inner % hidden:
            raise ModelFileError(
                f"The inner width of the GGUF model's mixers, {self.inner}, is not a multiple of its width "
                f"{hidden}; that is not supported."
            )
        return self.inner // hidden

    def config(self) -> Config:
        """As hybrids spell it."""
        return {
            "mamba_n_heads": self.heads,
            "mamba_d_head": self.head_dim,
            "mamba_n_groups": self.groups,
            "mamba_d_state": self.state,
            "mamba_d_conv": self.taps,
            "mamba_proj_bias": self.has_bias,
            "mamba_conv_bias": self.has_conv_bias,
        }


def _mamba2(config: Config, keys: Keys) -> None:
    """The file's context_length is a large number of no meaning: the model knows no positions."""
    mixer = Mixer.read(keys)
    del config["max_position_embeddings"], config["intermediate_size"]
    config |= {
        "num_heads": mixer.heads,
        "head_dim": mixer.head_dim,
        "n_groups": mixer.groups,
        "state_size": mixer.state,
        "conv_kernel": mixer.taps,
        "expand": mixer.expand(config["hidden_size"]),
        "use_bias": mixer.has_bias,
        "use_conv_bias": mixer.has_conv_bias,
    }


def _falcon_h1(config: Config, keys: Keys) -> None:
    """All factors of the model are in the file's weights already."""
    if config["tie_word_embeddings"]:
        raise ModelFileError(
            "The GGUF file holds a Falcon-H1 without output.weight. Its embedding is multiplied by a factor "
            "that its head is not, so one cannot stand for the other. Convert it with its head."
        )
    mixer = Mixer.read(keys)
    config |= mixer.config() | {
        "mamba_d_ssm": mixer.inner,
        "mamba_rms_norm": keys.has_tensor("ssm_norm.weight"),
        "mamba_norm_before_gate": False,
        "projectors_bias": keys.has_tensor("ssm_out.bias"),
    }


def _add_falcon_h1_tensor(views: Views, tensor: GGUFTensor, name: str | None, config: Config) -> bool:
    """Converters write one norm without an ending."""
    if tensor.name.endswith(".ffn_norm"):
        views[f"model.layers.{tensor.name.split('.')[1]}.pre_ff_layernorm.weight"] = View.of(tensor)
        return True
    return add_mixer_tensor(views, tensor, name, config)


MAMBAS: dict[str, Architecture] = {
    "mamba2": Architecture(
        class_name="Mamba2ForCausalLM",
        model_type="mamba2",
        layer_names={"attn_norm": "norm", **mixer_names("mixer")},
        layers="backbone.layers",
        outside_names={
            "token_embd.weight": "backbone.embeddings.weight",
            "output_norm.weight": "backbone.norm_f.weight",
            "output.weight": "lm_head.weight",
        },
        epsilon="layer_norm_epsilon",
        attends=False,
        add_own_tensor=add_mixer_tensor,
        extend=_mamba2,
    ),
    "falcon-h1": Architecture(
        class_name="FalconH1ForCausalLM",
        model_type="falcon_h1",
        layer_names={
            **{name: ours.replace("mlp.", "feed_forward.") for name, ours in LLAMA_LAYER.items()},
            **mixer_names("mamba"),
            "ffn_norm": "pre_ff_layernorm",
        },
        outside_names={
            "token_embd.weight": "model.embed_tokens.weight",
            "output_norm.weight": "model.final_layernorm.weight",
            "output.weight": "lm_head.weight",
        },
        add_own_tensor=_add_falcon_h1_tensor,
        extend=_falcon_h1,
    ),
}
"""general.architecture -> how it is stored."""
