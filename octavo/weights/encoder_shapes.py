"""Which tensors an encoder must have, from its config: for checking files and for dummy weights.

A family is a line of the table: how its tensors are called. E width, F inner width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from octavo.base.errors import ModelFileError
from octavo.weights import rotated_shapes
from octavo.weights.config_json import MAX_CONTEXT

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
    usual_segments: int = 2
    """Where the config does not say it."""
    dense: str
    """[E, E] of the head."""
    out: str = "classifier"
    extra: Callable[[Mapping[str, Any]], dict[str, Shape]] | None = None
    """What stands beside the layers."""


def may_narrow(config: Mapping[str, Any]) -> bool:
    """Whether embedding_size counts; others may have the entry, and transformers does not look at it."""
    return config.get("model_type") == "electra"


def has_positions(config: Mapping[str, Any]) -> bool:
    """Whether each position has an embedding, added to the token's; position_biased_input is DeBERTa's."""
    return config.get("model_type") != "deberta-v2" or config.get("position_biased_input") is not False


@dataclass(frozen=True, kw_only=True)
class Distances:
    """How DeBERTa counts distances between tokens: its table has 2 * span rows."""

    num_buckets: int
    """That distances share; 0: each has a row of its own."""
    furthest: int
    """Distances from here on are one."""
    span: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Distances:
        """Raises ModelFileError for what is no number, and for buckets that do not fit."""
        furthest = _whole(config, "max_relative_positions", -1)
        if furthest < 1:
            furthest = _whole(config, "max_position_embeddings", 512)
        buckets = max(0, _whole(config, "position_buckets", -1))
        if buckets and (buckets < 4 or furthest - 1 <= buckets // 2):
            raise ModelFileError(
                f"position_buckets is {buckets}, and distances count up to {furthest}; there must be at "
                "least 4 buckets, and half of them must be less than the distances."
            )
        return cls(num_buckets=buckets, furthest=furthest, span=buckets or furthest)


def _whole(config: Mapping[str, Any], name: str, default: int) -> int:
    value = config.get(name)
    value = default if value is None else value
    if type(value) is not int or not -1 <= value <= MAX_CONTEXT:
        raise ModelFileError(f"The model's {name} is {str(value)[:40]}; -1 to {MAX_CONTEXT} is possible.")
    return value


def _deberta(config: Mapping[str, Any]) -> dict[str, Shape]:
    width = config["hidden_size"]
    shapes: dict[str, Shape] = {
        "encoder.rel_embeddings.weight": (2 * Distances.from_config(config).span, width)
    }
    has_norm = "layer_norm" in str(config.get("norm_rel_ebd")).lower()
    return {**shapes, **(_biased("encoder.LayerNorm", (width,)) if has_norm else {})}


def _mpnet(config: Mapping[str, Any]) -> dict[str, Shape]:
    buckets, heads = config.get("relative_attention_num_buckets", 32), config["num_attention_heads"]
    return {"encoder.relative_attention_bias.weight": (buckets, heads)}


def _biased(name: str, shape: Shape, *, has_bias: bool = True) -> dict[str, Shape]:
    weight = {f"{name}.weight": shape}
    return {**weight, f"{name}.bias": shape[:1]} if has_bias else weight


_BERT = EncoderNames(prefix="bert.", dense="bert.pooler.dense")
_ROBERTA = EncoderNames(prefix="roberta.", dense="classifier.dense", out="classifier.out_proj")
FAMILIES = {
    "bert": _BERT,
    "camembert": _ROBERTA,
    "deberta-v2": EncoderNames(
        prefix="deberta.",
        square=(
            "attention.self.query_proj",
            "attention.self.key_proj",
            "attention.self.value_proj",
            "attention.output.dense",
        ),
        usual_segments=0,
        dense="pooler.dense",
        extra=_deberta,
    ),
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
    "electra": EncoderNames(prefix="electra.", dense="classifier.dense", out="classifier.out_proj"),
    "mpnet": EncoderNames(
        prefix="mpnet.",
        square=("attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o"),
        norms=("attention.LayerNorm", "output.LayerNorm"),
        has_segments=False,
        dense="classifier.dense",
        out="classifier.out_proj",
        extra=_mpnet,
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}
"""model_type -> family. ModernBERT (`_modern`), NomicBERT and GTE (rotated_shapes) are of another make."""


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
    if config["model_type"] in rotated_shapes.FAMILIES:
        return rotated_shapes.rotated_shapes(config, width, inner, layers, num_labels if has_head else 0)
    if config["model_type"] == "modernbert":
        return _modern(config, width, inner, layers, num_labels if has_head else 0)
    return _bert(FAMILIES[config["model_type"]], config, width, inner, layers, num_labels if has_head else 0)


def _bert(
    family: EncoderNames, config: dict[str, Any], width: int, inner: int, layers: int, num_labels: int
) -> dict[str, Shape]:
    tables = {"word_embeddings": config["vocab_size"]}
    if has_positions(config):
        tables["position_embeddings"] = config["max_position_embeddings"]
    num_segments = config.get("type_vocab_size", family.usual_segments) if family.has_segments else 0
    if num_segments:
        tables["token_type_embeddings"] = num_segments
    narrow = (config.get("embedding_size") if may_narrow(config) else None) or width
    shapes: dict[str, Shape] = {f"embeddings.{name}.weight": (rows, narrow) for name, rows in tables.items()}
    shapes |= _biased("embeddings.LayerNorm", (narrow,))
    if narrow != width:
        shapes |= _biased("embeddings_project", (width, narrow))
    shapes |= family.extra(config) if family.extra is not None else {}
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
