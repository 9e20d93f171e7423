"""Builds the model that a checkpoint describes for pooling, without its weights."""

from __future__ import annotations

from dataclasses import replace

from octavo.base.errors import ModelFileError
from octavo.config.pooling import PoolingFacts
from octavo.layers.placement import Placement
from octavo.models.pooled.both_ways import check_layers, decoder_part
from octavo.models.pooled.dense import DenseLayers, StoredDense
from octavo.models.pooled.heads import ScoreHead, TokenHead
from octavo.models.pooled.model import Head, PlainHead, PooledModel
from octavo.models.pooled.table import (
    ENCODERS,
    decoder_of,
    encoder_of,
    pools_theirs,
    refusal,
)
from octavo.models.table import MODELS, ModelPath, find_model_class
from octavo.weights.checkpoint import Checkpoint

HEAD_BIAS = "lm_head.bias"
"""What some decoders' heads have beside the embedding that they are tied to."""


def build_pooled(
    checkpoint: Checkpoint, facts: PoolingFacts, placement: Placement, wish: str = "auto"
) -> PooledModel:
    """wish: the option model_impl. Raises ModelFileError for an architecture that is not known."""
    placement = replace(placement, only_reads=True)
    stated = checkpoint.config.get("architectures") or []
    for name in stated if wish != ModelPath.TRANSFORMERS else ():
        if (encoder := encoder_of(name)) is not None:
            return _encoder(encoder, checkpoint, facts, placement)
        if (decoder := decoder_of(name)) is not None:
            return _decoder(decoder, checkpoint, facts, placement)
    if wish != ModelPath.OCTAVO and facts.can_embed and pools_theirs(checkpoint.config):
        return _theirs(checkpoint, facts, placement)
    raise ModelFileError(refusal(checkpoint.config))


def _theirs(checkpoint: Checkpoint, facts: PoolingFacts, placement: Placement) -> PooledModel:
    """By transformers' modules. The head stays, as theirs cannot do without."""
    kind = find_model_class(checkpoint.config, ModelPath.TRANSFORMERS)
    head = _embedding_head(checkpoint, facts, placement)
    assert head is not None, "it embeds"
    names = frozenset(checkpoint.tensor_names())
    return PooledModel(kind(checkpoint.config, placement), head, facts, prefix=None, names=names)


def _encoder(key: str, checkpoint: Checkpoint, facts: PoolingFacts, placement: Placement) -> PooledModel:
    kind, config = ENCODERS.load(key), checkpoint.config
    head = _embedding_head(checkpoint, facts, placement)
    if head is None:
        head = kind.make_head(config, facts.num_outputs, placement)
    names = frozenset(checkpoint.tensor_names())
    return PooledModel(kind(config, placement), head, facts, prefix=kind.prefix, names=names)


def _decoder(key: str, checkpoint: Checkpoint, facts: PoolingFacts, placement: Placement) -> PooledModel:
    names = frozenset(checkpoint.tensor_names())
    if facts.from_tokens is not None:
        whole = MODELS.load(key)(checkpoint.config, placement)
        return PooledModel(whole, TokenHead(whole, facts.from_tokens), facts, prefix=None, names=names)
    # Tied, so that no head is made: the embedding is all that is left of it.
    config = {**checkpoint.config, "tie_word_embeddings": True}
    backbone = MODELS.load(key)(decoder_part(config) if facts.is_encoder else config, placement)
    if facts.is_encoder:
        check_layers(backbone, key)
    head = _embedding_head(checkpoint, facts, placement)
    if head is None:
        head = ScoreHead(backbone.hidden_size, facts.num_outputs, placement)
    return PooledModel(backbone, head, facts, prefix=None, names=names, left_out=frozenset({HEAD_BIAS}))


def _embedding_head(checkpoint: Checkpoint, facts: PoolingFacts, placement: Placement) -> Head | None:
    """None for models that score labels."""
    if not facts.can_embed:
        return None
    if facts.stored_dense:
        return StoredDense(facts.stored_dense, placement)
    return DenseLayers(checkpoint.path, facts.dense, placement) if facts.dense else PlainHead()
