"""A decoder layer whose norms stand before its branches, behind them or both; or behind them a factor.

x + after(attention(before(x))), then the same with the MLP.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from octavo.attention.contract import Attend
from octavo.layers.attention import Attention
from octavo.layers.factor import Factor
from octavo.layers.mlp import MLP
from octavo.layers.norm import RMSNorm
from octavo.layers.placement import Placement
from octavo.layers.residual import Residual
from octavo.layers.slot import WeightSlot
from octavo.models.decoder_config import DecoderConfig


@dataclass(frozen=True, kw_only=True)
class BranchNames:
    """What the checkpoint calls the norms of a layer; None: there is none."""

    before_attention: str | None = None
    after_attention: str | None = None
    before_mlp: str | None = None
    after_mlp: str | None = None


class BranchLayer(nn.Module):
    def __init__(
        self,
        attention: Attention,
        mlp: MLP,
        config: DecoderConfig,
        names: BranchNames,
        *,
        factor: float | None = None,
        norm_offset: float = 0.0,
        placement: Placement,
    ) -> None:
        """factor: what each branch is multiplied with, for layers without norms behind them."""
        super().__init__()
        assert factor is None or (names.after_attention is None and names.after_mlp is None)
        self.names = names
        self.factor = None if factor is None else Factor(factor)

        def norm(name: str | None) -> RMSNorm | None:
            width, epsilon = config.hidden_size, config.rms_norm_eps
            if name is None:
                return None
            return RMSNorm(width, epsilon=epsilon, offset=norm_offset, placement=placement)

        self.before_attention = norm(names.before_attention)
        self.attention = attention
        self.after_attention = norm(names.after_attention)
        self.before_mlp = norm(names.before_mlp)
        self.mlp = mlp
        self.after_mlp = norm(names.after_mlp)

    def forward(self, stream: Residual, attend: Attend) -> Residual:
        stream = self.attention.forward(
            stream, self.before_attention, attend, self.after_attention or self.factor
        )
        return self.mlp.forward(stream, self.before_mlp, self.after_mlp or self.factor)

    def slots(self, name: str) -> list[WeightSlot]:
        norms = (
            (self.names.before_attention, self.before_attention),
            (self.names.after_attention, self.after_attention),
            (self.names.before_mlp, self.before_mlp),
            (self.names.after_mlp, self.after_mlp),
        )
        slots = self.attention.slots(f"{name}.self_attn") + self.mlp.slots(name)
        for norm_name, norm in norms:
            if norm is not None:
                slots += norm.slots(f"{name}.{norm_name}")
        return slots
