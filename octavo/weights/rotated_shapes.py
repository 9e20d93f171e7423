"""The tensors of NomicBERT and GTE: BERTs whose positions turn queries and keys, with gates in their MLPs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class RotatedNames:
    prefix: str
    """Before the backbone's names, where a head is beside it."""
    embedding_norm: str
    layer: str
    qkv: str
    """Queries, keys and values are one matrix."""
    out: str
    up: tuple[str, ...]
    """Of the MLP, the gate's behind the other; one name where both are one matrix, in this order too."""
    down: str
    norms: tuple[str, str]
    """Behind attention, and behind the MLP."""
    has_bias: bool
    """Of all products but the one into the MLP."""
    usual_segments: int
    """Where the config does not say it."""


_GTE = RotatedNames(
    prefix="gte.",
    embedding_norm="embeddings.LayerNorm",
    layer="encoder.layer",
    qkv="attention.qkv_proj",
    out="attention.o_proj",
    up=("up_gate_proj",),
    down="down_proj",
    norms=("attn_ln", "mlp_ln"),
    has_bias=True,
    usual_segments=1,
)
FAMILIES = {
    "gte": _GTE,
    "new": replace(_GTE, prefix="new."),
    "nomic_bert": RotatedNames(
        prefix="nomic_bert.",
        embedding_norm="emb_ln",
        layer="encoder.layers",
        qkv="attn.Wqkv",
        out="attn.out_proj",
        up=("fc11", "fc12"),
        down="fc2",
        norms=("norm1", "norm2"),
        has_bias=False,
        usual_segments=2,
    ),
}
"""model_type -> family."""


def rotated_shapes(
    config: dict[str, Any], width: int, inner: int, layers: int, num_labels: int
) -> dict[str, Shape]:
    """Of all tensors; num_labels 0: there is no head."""
    names = FAMILIES[config["model_type"]]
    shapes: dict[str, Shape] = {"embeddings.word_embeddings.weight": (config["vocab_size"], width)}
    num_segments = config.get("type_vocab_size", names.usual_segments)
    if num_segments:
        shapes["embeddings.token_type_embeddings.weight"] = (num_segments, width)
    shapes |= _of(names.embedding_norm, (width,))
    for index in range(layers):
        layer = f"{names.layer}.{index}"
        shapes |= _of(f"{layer}.{names.qkv}", (3 * width, width), has_bias=names.has_bias)
        shapes |= _of(f"{layer}.{names.out}", (width, width), has_bias=names.has_bias)
        for name in names.up:
            shapes |= _of(f"{layer}.mlp.{name}", (2 * inner // len(names.up), width), has_bias=False)
        shapes |= _of(f"{layer}.mlp.{names.down}", (width, inner), has_bias=names.has_bias)
        for name in names.norms:
            shapes |= _of(f"{layer}.{name}", (width,))
    if not num_labels:
        return shapes
    return {
        **{names.prefix + name: shape for name, shape in shapes.items()},
        **_of(f"{names.prefix}pooler.dense", (width, width)),
        **_of("classifier", (num_labels, width)),
    }


def _of(name: str, shape: Shape, *, has_bias: bool = True) -> dict[str, Shape]:
    weight = {f"{name}.weight": shape}
    return {**weight, f"{name}.bias": shape[:1]} if has_bias else weight
