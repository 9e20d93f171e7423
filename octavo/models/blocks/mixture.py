"""The mixture of experts most families have: softmax over all experts, the best K, perhaps a shared MLP."""

from __future__ import annotations

from octavo.layers.mlp import GatedMLP
from octavo.layers.moe import MixtureNames, MixtureOfExperts
from octavo.layers.placement import Placement
from octavo.layers.router import Router
from octavo.models.moe_config import MoEConfig
from octavo.ops.routing import Routing


def make_mixture(
    moe: MoEConfig,
    width: int,
    *,
    is_normed: bool,
    names: MixtureNames | None = None,
    gated_shared: GatedMLP | None = None,
    placement: Placement,
) -> MixtureOfExperts:
    """is_normed: a token's weights add up to one. gated_shared: an MLP of all tokens, with a gate."""
    routing = Routing(num_chosen=moe.num_chosen, is_normed=is_normed)
    return MixtureOfExperts(
        Router(width, moe.num_experts, routing, placement=placement),
        moe.shape(width),
        shared=gated_shared,
        has_shared_gate=gated_shared is not None,
        names=names,
        placement=placement,
    )
