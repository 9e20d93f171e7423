"""Gemma 3, text only: most layers see a window and have a rope of their own; queries and keys are normed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from octavo.base.errors import ModelFileError
from octavo.layers.placement import Placement
from octavo.layers.rope import RopeFacts, rotation_table
from octavo.models.decoder_config import DecoderConfig
from octavo.models.gemma import Gemma2ForCausalLM, attention_scale, pattern_windows
from octavo.models.layer_types import FULL, SLIDING
from octavo.ops.paged_plain import AttentionTerms

THETA = {FULL: 1_000_000.0, SLIDING: 10_000.0}
"""The rope's base, where configs give none."""
PERIOD = 6


class Gemma3ForCausalLM(Gemma2ForCausalLM):
    """Scores are never capped, whatever the config says; logits are where it says so."""

    has_head_norms = True

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> DecoderConfig:
        return super().read_config({**config, "rope_parameters": rope_values(config, FULL)})

    def attention_terms(self, config: Mapping[str, Any], facts: DecoderConfig) -> AttentionTerms:  # noqa: ARG002
        return AttentionTerms(scale=attention_scale(config))

    def layer_windows(self, config: Mapping[str, Any], facts: DecoderConfig) -> list[int | None]:
        return pattern_windows(config, facts, config.get("sliding_window_pattern") or PERIOD)

    def layer_rotations(
        self, config: Mapping[str, Any], facts: DecoderConfig, placement: Placement
    ) -> list[torch.Tensor | None]:
        sliding = {**config, "rope_parameters": rope_values(config, SLIDING)}
        full_PD = rotation_table(facts.rope, placement)
        sliding_PD = rotation_table(RopeFacts.from_config(sliding, facts.head_dim), placement)
        return [full_PD if window is None else sliding_PD for window in self.windows]


def rope_values(config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """rope_parameters of one type of layers. Configs of transformers 4 spread them over four entries."""
    by_kind = config.get("rope_parameters")
    if by_kind:
        values = by_kind.get(kind) or {}
        if FULL not in by_kind and SLIDING not in by_kind:
            raise ModelFileError(
                f"The config's rope_parameters have neither {FULL} nor {SLIDING}; Gemma 3 needs them by type."
            )
        return {"rope_theta": THETA[kind], **values}
    if kind == SLIDING:
        return {"rope_theta": config.get("rope_local_base_freq") or THETA[kind]}
    return {"rope_theta": config.get("rope_theta") or THETA[kind], **(config.get("rope_scaling") or {})}
