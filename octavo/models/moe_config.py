"""MoEConfig: the numbers of a mixture of experts, read from a Hugging Face config and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from octavo.base.errors import ModelFileError
from octavo.layers.experts import ExpertShape
from octavo.models.decoder_config import MAX_WIDTH, read_count
from octavo.ops.experts import SILU, SwiGLU

NUM_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
"""What families call it."""
MAX_EXPERTS = 4096


@dataclass(frozen=True, kw_only=True)
class MoEConfig:
    num_experts: int
    num_chosen: int
    """Experts of a token."""
    inner: int
    """Inner width of one expert."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, inner: str = "moe_intermediate_size") -> MoEConfig:
        """inner: the entry that gives an expert's inner width. Raises ModelFileError naming the entry."""
        name = next((name for name in NUM_EXPERTS if config.get(name) is not None), NUM_EXPERTS[1])
        num_experts = read_count(config, name, MAX_EXPERTS)
        num_chosen = read_count(config, "num_experts_per_tok", MAX_EXPERTS)
        if num_chosen > num_experts:
            raise ModelFileError(f"num_experts_per_tok is {num_chosen}, but {name} only {num_experts}.")
        return cls(num_experts=num_experts, num_chosen=num_chosen, inner=read_count(config, inner, MAX_WIDTH))

    def shape(self, width: int, *, has_bias: bool = False, gate: SwiGLU = SILU) -> ExpertShape:
        return ExpertShape(
            num_experts=self.num_experts, width=width, inner=self.inner, has_bias=has_bias, gate=gate
        )
