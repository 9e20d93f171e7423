"""Builds the model that a checkpoint describes, without its weights."""

from __future__ import annotations

from octavo.config.model import ModelConfig
from octavo.layers.placement import Placement
from octavo.models.contract import Backbone
from octavo.models.pooled.build import build_pooled
from octavo.models.table import find_model_class
from octavo.weights.checkpoint import Checkpoint
from octavo.weights.pooling_files import pooling_of


def build_model(checkpoint: Checkpoint, wishes: ModelConfig, placement: Placement) -> Backbone:
    """`wishes` are resolved. Raises ModelFileError for what is not known or cannot be."""
    if wishes.runner == "pooling":
        return build_pooled(checkpoint, pooling_of(checkpoint, wishes), placement, wishes.model_impl)
    return find_model_class(checkpoint.config, wishes.model_impl)(checkpoint.config, placement)
