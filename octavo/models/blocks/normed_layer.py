"""A decoder layer with one or two norms, before its branches, behind them, or with the branches side by side.

T tokens, E width.
"""

from __future__ import annotations

from enum import StrEnum

from torch import nn

from octavo.attention.contract import Attend
from octavo.layers.attention import SelfAttention
from octavo.layers.mlp import GatedMLP
from octavo.layers.norm import Norm
from octavo.layers.plain_mlp import PlainMLP
from octavo.layers.residual import Residual


class Flow(StrEnum):
    """How the stream runs through a layer."""

    NORM_BEFORE = "norm before"
    """x + attention(norm(x)), then the same with the MLP."""
    NORM_BEHIND = "norm behind"
    """norm(x + attention(x)), then the same with the MLP."""
    PARALLEL = "parallel"
    """x + attention(norm(x)) + mlp(norm(x)); the norms may be one."""


class NormedLayer(nn.Module):
    """mlp_norm None, for parallel layers: the MLP reads what attention reads."""

    def __init__(
        self,
        attention: SelfAttention,
        mlp: GatedMLP | PlainMLP,
        attention_norm: Norm,
        mlp_norm: Norm | None,
        flow: Flow,
    ) -> None:
        super().__init__()
        assert mlp_norm is not None or flow is Flow.PARALLEL
        self.attention_norm = attention_norm
        self.attention = attention
        self.mlp_norm = mlp_norm
        self.mlp = mlp
        self._run = {
            Flow.NORM_BEFORE: self._norm_before,
            Flow.NORM_BEHIND: self._norm_behind,
            Flow.PARALLEL: self._parallel,
        }[flow]

    def forward(self, stream: Residual, attend: Attend) -> Residual:
        return self._run(stream, attend)

    def _norm_before(self, stream: Residual, attend: Attend) -> Residual:
        stream = self.attention.forward(stream, self.attention_norm, attend)
        return self.mlp.forward(stream, self.mlp_norm)

    def _norm_behind(self, stream: Residual, attend: Attend) -> Residual:
        assert self.mlp_norm is not None, "only parallel layers may share a norm"
        x_TE = stream.total()
        x_TE = self.attention_norm.add(*self.attention.onto(Residual(x_TE), x_TE, attend))[1]
        return Residual(self.mlp_norm.add(*self.mlp.onto(Residual(x_TE), x_TE))[1])

    def _parallel(self, stream: Residual, attend: Attend) -> Residual:
        x_TE, normed_TE = self.attention_norm.add(*stream)
        mlp_TE = normed_TE if self.mlp_norm is None else self.mlp_norm.forward(x_TE)
        stream = self.attention.onto(Residual(x_TE), normed_TE, attend)
        return self.mlp.onto(Residual(stream.total()), mlp_TE)
