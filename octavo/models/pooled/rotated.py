"""NomicBERT and GTE: BERT whose positions turn queries and keys, with a gate in its MLPs.

T tokens, E width, F inner width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import nn

from octavo.attention.contract import Attend
from octavo.base.errors import ModelFileError
from octavo.layers.attention import HeadShape, SelfAttention
from octavo.layers.embedding import Embedding
from octavo.layers.mlp import Gate, GatedMLP, MLPNames
from octavo.layers.norm import LayerNorm
from octavo.layers.placement import Placement
from octavo.layers.residual import Residual
from octavo.layers.rope import RopeFacts, rotation_table
from octavo.layers.slot import WeightSlot
from octavo.messages.kv import KVSpec
from octavo.models.contract import ModelInput
from octavo.models.decoder_config import read_number
from octavo.models.pooled.encoder_config import EncoderConfig
from octavo.models.pooled.heads import DenseHead, DenseNames
from octavo.weights.rotated_shapes import FAMILIES, RotatedNames


class RotatedLayer(nn.Module):
    """norm(x + attention(x)), and norm(that + mlp(that))."""

    def __init__(
        self,
        index: int,
        facts: EncoderConfig,
        names: RotatedNames,
        rotation_PD: torch.Tensor,
        placement: Placement,
    ) -> None:
        super().__init__()
        width, epsilon = facts.hidden_size, facts.norm_epsilon
        self.names = names
        self.attention = SelfAttention(
            index,
            width,
            HeadShape(num_heads=facts.num_heads, num_kv_heads=facts.num_heads, head_dim=facts.head_dim),
            has_qkv_bias=names.has_bias,
            has_out_bias=names.has_bias,
            rotation_PD=rotation_PD,
            placement=placement,
        )
        self.attention_norm = LayerNorm(width, epsilon=epsilon, placement=placement)
        self.mlp = GatedMLP(
            width,
            facts.intermediate_size,
            bias=False,
            has_down_bias=names.has_bias,
            gate=Gate(facts.activation),
            names=MLPNames(gate_up=names.up[::-1], down=names.down),
            placement=placement,
        )
        self.mlp_norm = LayerNorm(width, epsilon=epsilon, placement=placement)

    def forward(self, x_TE: torch.Tensor, attend: Attend) -> torch.Tensor:
        x_TE = self.attention_norm.add(*self.attention.forward(Residual(x_TE), None, attend))[1]
        return self.mlp_norm.add(*self.mlp.forward(Residual(x_TE), None))[1]

    def slots(self, name: str) -> list[WeightSlot]:
        names = self.names
        return [
            *self.attention.qkv.slots(f"{name}.{names.qkv}"),
            *self.attention.out.slots(f"{name}.{names.out}"),
            *self.attention_norm.slots(f"{name}.{names.norms[0]}"),
            *(self._gate_first(slot) for slot in self.mlp.slots(name)),
            *self.mlp_norm.slots(f"{name}.{names.norms[1]}"),
        ]

    def _gate_first(self, slot: WeightSlot) -> WeightSlot:
        """Of a matrix that holds both halves of the MLP: the model has the gate first."""
        up = self.names.up
        if len(up) > 1 or not slot.name.endswith(f".{up[0]}.weight"):
            return slot
        rows_R = torch.arange(slot.target.shape[0])
        return replace(slot, order_R=rows_R.roll(len(rows_R) // 2))


class RotatedModel(nn.Module):
    """Layers behind the sum of two embeddings: of the token and of its segment."""

    prefix: ClassVar[str]
    names: ClassVar[RotatedNames]
    usual_theta: ClassVar[float]

    def __init__(self, config: Mapping[str, Any], placement: Placement) -> None:
        super().__init__()
        facts = self.read_config(config)
        width = facts.hidden_size
        self.vocab_size, self.num_heads, self.hidden_size = facts.vocab_size, facts.num_heads, width
        self.tokens = Embedding(facts.vocab_size, width, placement=placement)
        self.segments = (
            Embedding(facts.num_segments, width, placement=placement) if facts.num_segments else None
        )
        self.norm = LayerNorm(width, epsilon=facts.norm_epsilon, placement=placement)
        rope = RopeFacts.from_config(self.rope_config(config, facts.head_dim), facts.head_dim)
        rotation_PD = rotation_table(rope, placement)
        self.blocks = [
            RotatedLayer(index, facts, self.names, rotation_PD, placement)
            for index in range(facts.num_layers)
        ]
        self.layers = nn.ModuleList(self.blocks)

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> EncoderConfig:
        facts = EncoderConfig.from_config(
            {"type_vocab_size": cls.names.usual_segments, **config, "position_embedding_type": None}
        )
        if facts.activation not in (Gate.SILU, Gate.GELU):
            raise ModelFileError(f"hidden_act is {facts.activation!r}; known for a gate are silu and gelu.")
        if config.get("head_dim") not in (None, facts.head_dim):
            raise ModelFileError(
                f"head_dim is {config['head_dim']}, but hidden_size over num_attention_heads is "
                f"{facts.head_dim}; another width of heads is not supported here."
            )
        return facts

    @classmethod
    def rope_config(cls, config: Mapping[str, Any], head_dim: int) -> Mapping[str, Any]:  # noqa: ARG003
        """The config as RopeFacts reads it."""
        return {"rope_theta": cls.usual_theta, **config}

    @classmethod
    def make_head(cls, config: Mapping[str, Any], num_labels: int, placement: Placement) -> DenseHead:
        """What scores labels behind this backbone."""
        return DenseHead(
            cls.read_config(config).hidden_size,
            num_labels,
            names=DenseNames(dense=f"{cls.prefix}pooler.dense", out="classifier"),
            activation=torch.tanh,
            placement=placement,
        )

    def weight_slots(self) -> list[WeightSlot]:
        slots = [
            *self.tokens.slots("embeddings.word_embeddings"),
            *(self.segments.slots("embeddings.token_type_embeddings") if self.segments is not None else []),
            *self.norm.slots(self.names.embedding_norm),
        ]
        for index, block in enumerate(self.blocks):
            slots += block.slots(f"{self.names.layer}.{index}")
        return slots

    def kv_layers(self) -> list[KVSpec]:
        return []

    def embed(self, token_ids_T: torch.Tensor) -> torch.Tensor:
        """Of tokens of the first text."""
        x_TE = self.tokens.forward(token_ids_T)
        return x_TE if self.segments is None else x_TE.add_(self.segments.weight_VE[0])

    @property
    def embed_second(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """As `embed`, for tokens of the second text of a pair; None: the model does not tell."""
        segments = self.segments
        if segments is None or len(segments.weight_VE) < 2:
            return None
        return lambda token_ids_T: self.tokens.forward(token_ids_T).add_(segments.weight_VE[1])

    def forward(self, batch: ModelInput) -> torch.Tensor:
        x_TE = self.embed(batch.token_ids_T) if batch.inputs_TE is None else batch.inputs_TE
        x_TE = self.norm.forward(x_TE)
        for block in self.blocks:
            x_TE = block.forward(x_TE, batch.attend)
        return x_TE


class NomicBertModel(RotatedModel):
    """Of nomic-embed-text and snowflake-arctic-embed-m-long, in the spelling of either config."""

    names = FAMILIES["nomic_bert"]
    prefix = names.prefix
    usual_theta = 1000.0

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> EncoderConfig:
        _check_as_usual(config, _NOMIC_HAS)
        activation = config.get("activation_function")
        older = {
            "layer_norm_eps": config.get("layer_norm_epsilon"),
            "hidden_act": {"swiglu": "silu", "geglu": "gelu"}.get(str(activation), activation) or "silu",
        }
        return super().read_config({**{k: v for k, v in older.items() if v is not None}, **config})

    @classmethod
    def rope_config(cls, config: Mapping[str, Any], head_dim: int) -> Mapping[str, Any]:  # noqa: ARG003
        return {"rope_theta": config.get("rotary_emb_base") or cls.usual_theta, **config}


_NOMIC_HAS = {
    "causal": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "num_experts": 0,
    "parallel_block": False,
    "prenorm": False,
    "qkv_proj_bias": False,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "use_rms_norm": False,
}
"""Entries of the first configs, whose code could be more than all that NomicBERT became."""


class GteModel(RotatedModel):
    """Of gte-multilingual and snowflake-arctic-embed-m-v2.0."""

    names = FAMILIES["gte"]
    prefix = names.prefix
    usual_theta = 160_000.0

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> EncoderConfig:
        _check_as_usual(config, _GTE_HAS)
        return super().read_config(config)

    @classmethod
    def rope_config(cls, config: Mapping[str, Any], head_dim: int) -> Mapping[str, Any]:
        """The first files know a scaling that transformers does not, "ntk": a larger base, and all slower.

        Source: https://kexue.fm/archives/9706, by the model's own code.
        """
        own = super().rope_config(config, head_dim)
        scaling = config.get("rope_scaling") or {}
        if scaling.get("type") != "ntk":
            return own
        if scaling.get("mixed_b") is not None:
            raise ModelFileError("rope_scaling has mixed_b, which is not supported.")
        factor = read_number(scaling, "factor", 1.0)
        slower = {"type": "linear", "factor": factor ** (2 / head_dim)}
        return {**own, "rope_theta": read_number(own, "rope_theta", 1.0) * factor, "rope_scaling": slower}


_GTE_HAS = {
    "layer_norm_type": "layer_norm",
    "logn_attention_clip1": False,
    "logn_attention_scale": False,
    "pack_qkv": True,
    "position_embedding_type": "rope",
}
"""Entries of the first configs, whose code could be more than all that GTE became."""


class NewModel(GteModel):
    """GTE as its first files call it: gte-multilingual, gte-large-en-v1.5, stella."""

    names = FAMILIES["new"]
    prefix = names.prefix


def _check_as_usual(config: Mapping[str, Any], usual: Mapping[str, Any]) -> None:
    """Raise ModelFileError for an entry that says something else."""
    for name, value in usual.items():
        if config.get(name) not in (None, value):
            raise ModelFileError(
                f"{name} is {str(config[name])[:40]}, which is not supported for this architecture; "
                f"{value} is."
            )
