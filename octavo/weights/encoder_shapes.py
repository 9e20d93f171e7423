"""Which tensors an encoder must have, from its config: for checking files and for dummy weights.

A family is a line of the table: how its tensors are called. E width, F inner width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]

CLASSIFIES = "ForSequenceClassification"


@dataclass(frozen=True, kw_only=True)
class EncoderNames:
    """Of BERT, unless they say otherwise. Names end before `.weight` and `.bias`, which all have."""

    prefix: str
    """Before the backbone's names, where a head is beside it."""
    layer: str = "encoder.layer"
    square: tuple[str, ...] = (
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
    )
    """[E, E] in each layer."""
    up: str = "intermediate.dense"
    down: str = "output.dense"
    norms: tuple[str, str] = ("attention.output.LayerNorm", "output.LayerNorm")
    has_segments: bool = True
    dense: str
    """[E, E] of the head."""
    out: str = "classifier"


_BERT = EncoderNames(prefix="bert.", dense="bert.pooler.dense")
_ROBERTA = EncoderNames(prefix="roberta.", dense="classifier.dense", out="classifier.out_proj")
FAMILIES = {
    "bert": _BERT,
    "camembert": _ROBERTA,
    "distilbert": EncoderNames(
        prefix="distilbert.",
        layer="transformer.layer",
        square=("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"),
        up="ffn.lin1",
        down="ffn.lin2",
        norms=("sa_layer_norm", "output_layer_norm"),
        has_segments=False,
        dense="pre_classifier",
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}
"""model_type -> family. ModernBERT is of another make: see `_modern`."""


def encoder_shapes(config: dict[str, Any], num_labels: int) -> dict[str, Shape] | None:
    """Hugging Face names and shapes of all tensors; None where the config does not say enough.

    num_labels: of the head, if the architecture has one.
    """
    width = config.get("hidden_size") or config.get("dim")
    inner = config.get("intermediate_size") or config.get("hidden_dim")
    layers = config.get("num_hidden_layers") or config.get("n_layers")
    counts = (width, inner, layers, config.get("vocab_size"), config.get("max_position_embeddings"))
    if not all(isinstance(count, int) for count in counts):
        return None
    assert isinstance(width, int) and isinstance(inner, int) and isinstance(layers, int), "checked"
    names = config.get("architectures") or []
    has_head = bool(names) and str(names[0]).endswith(CLASSIFIES)
    if config["model_type"] == "modernbert":
        return _modern(config, width, inner, layers, num_labels if has_head else 0)
    return _bert(FAMILIES[config["model_type"]], config, width, inner, layers, num_labels if has_head else 0)


def _bert(
    family: EncoderNames, config: dict[str, Any], width: int, inner: int, layers: int, num_labels: int
) -> dict[str, Shape]:
    tables = {
        "word_embeddings": config["vocab_size"],
        "position_embeddings": config["max_position_embeddings"],
    }
    if family.has_segments and config.get("type_vocab_size", 2):
        tables["token_type_embeddings"] = config.get("type_vocab_size", 2)
    shapes: dict[str, Shape] = {f"embeddings.{name}.weight": (rows, width) for name, rows in tables.items()}
    shapes |= _biased("embeddings.LayerNorm", (width,))
    for index in range(layers):
        layer = f"{family.layer}.{index}"
        for name in family.square:
            shapes |= _biased(f"{layer}.{name}", (width, width))
        shapes |= _biased(f"{layer}.{family.up}", (inner, width))
        shapes |= _biased(f"{layer}.{family.down}", (width, inner))
        for name in family.norms:
            shapes |= _biased(f"{layer}.{name}", (width,))
    if not num_labels:
        return shapes
    return {
        **{family.prefix + name: shape for name, shape in shapes.items()},
        **_biased(family.dense, (width, width)),
        **_biased(family.out, (num_labels, width)),
    }


def _modern(config: dict[str, Any], width: int, inner: int, layers: int, num_labels: int) -> dict[str, Shape]:
    norm: list[str] = ["embeddings.norm", "final_norm"]
    matrices: dict[str, tuple[Shape, bool]] = {}
    in_attention, in_mlp = bool(config.get("attention_bias")), bool(config.get("mlp_bias"))
    for index in range(layers):
        layer = f"layers.{index}"
        norm += [f"{layer}.mlp_norm"] + ([f"{layer}.attn_norm"] if index else [])
        matrices[f"{layer}.attn.Wqkv"] = ((3 * width, width), in_attention)
        matrices[f"{layer}.attn.Wo"] = ((width, width), in_attention)
        matrices[f"{layer}.mlp.Wi"] = ((2 * inner, width), in_mlp)
        matrices[f"{layer}.mlp.Wo"] = ((width, inner), in_mlp)
    has_norm_bias = bool(config.get("norm_bias"))
    shapes: dict[str, Shape] = {"embeddings.tok_embeddings.weight": (config["vocab_size"], width)}
    for name in norm:
        shapes |= _biased(name, (width,), has_bias=has_norm_bias)
    for name, (shape, has_bias) in matrices.items():
        shapes |= _biased(name, shape, has_bias=has_bias)
    if not num_labels:
        return shapes
    return {
        **{f"model.{name}": shape for name, shape in shapes.items()},
        **_biased("head.dense", (width, width), has_bias=bool(config.get("classifier_bias"))),
        **_biased("head.norm", (width,), has_bias=has_norm_bias),
        **_biased("classifier", (num_labels, width)),
    }


def _biased(name: str, shape: Shape, *, has_bias: bool = True) -> dict[str, Shape]:
    weight = {f"{name}.weight": shape}
    return {**weight, f"{name}.bias": shape[:1]} if has_bias else weight
