"""The mixture in a layer's place of an MLP: what it adds to the stream, and where tensors land."""

from __future__ import annotations

from typing import Any

import torch

from octavo.layers.expert_tensors import OneByOne, StackedColumns, StackedHalves
from octavo.layers.experts import Experts, ExpertShape
from octavo.layers.factor import Factor
from octavo.layers.mlp import GatedMLP, MLPNames
from octavo.layers.moe import MixtureOfExperts
from octavo.layers.norm import RMSNorm
from octavo.layers.placement import Placement
from octavo.layers.residual import Residual
from octavo.layers.router import Router
from octavo.layers.slot import WeightSlot
from octavo.models.load import place_on_cpu, reorder
from octavo.ops.experts import experts
from octavo.ops.routing import Routing, route

PLACEMENT = Placement(dtype=torch.float32, device=torch.device("cpu"), max_positions=8)
SHAPE = ExpertShape(num_experts=5, width=12, inner=6)
ROUTING = Routing(num_chosen=2)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def fill(module: torch.nn.Module) -> None:
    for number, parameter in enumerate(module.parameters()):
        parameter.data = draw(*parameter.shape, seed=number)


def mixture(**options: Any) -> MixtureOfExperts:
    router = Router(12, 5, ROUTING, placement=PLACEMENT)
    made = MixtureOfExperts(router, SHAPE, placement=PLACEMENT, **options)
    fill(made)
    return made


def branch(made: MixtureOfExperts, x_TE: torch.Tensor) -> torch.Tensor:
    chosen = route.plain(x_TE, made.router.weight_XE, None, None, ROUTING)
    return experts.plain(x_TE, *chosen, made.experts.gate_up_XGE, made.experts.down_XEF)


def test_adds_to_the_stream_behind_a_norm_and_before_a_factor() -> None:
    made, norm = mixture(), RMSNorm(12, epsilon=1e-6, placement=PLACEMENT)
    fill(norm)
    stream = Residual(draw(7, 12), draw(7, 12, seed=1))
    expected = stream.total() + 0.5 * branch(made, norm.forward(stream.total()))
    torch.testing.assert_close(made.forward(stream, norm, Factor(0.5)).total(), expected)
    expected = stream.total() + branch(made, stream.total())
    torch.testing.assert_close(made.forward(stream, None).total(), expected)


def test_shared_experts_count_for_all_tokens_with_their_gate() -> None:
    shared = GatedMLP(12, 10, bias=False, names=MLPNames(own="shared_expert"), placement=PLACEMENT)
    made, x_TE = mixture(shared=shared, has_shared_gate=True), draw(7, 12)
    assert made.shared_gate is not None
    gate_T1 = torch.sigmoid(made.shared_gate.forward(x_TE))
    expected = x_TE + branch(made, x_TE) + gate_T1 * shared.branch(x_TE)
    torch.testing.assert_close(made.forward(Residual(x_TE), None).total(), expected)
    scaled = made.forward(Residual(x_TE), None, Factor(0.5)).total()
    torch.testing.assert_close(scaled, x_TE + 0.5 * (expected - x_TE))
    ungated = mixture(shared=shared)
    expected = x_TE + branch(ungated, x_TE) + shared.branch(x_TE)
    torch.testing.assert_close(ungated.forward(Residual(x_TE), None).total(), expected)
    names = {slot.name for slot in made.slots("layers.1")}
    assert {"layers.1.mlp.shared_expert.up_proj.weight", "layers.1.mlp.shared_expert_gate.weight"} < names


class Given:
    """A checkpoint that holds what its slots ask for."""

    format, stored_dtype = "safetensors", "float32"

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self.tensors = tensors

    def load(self, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        return self.tensors[name]


def placed(slots: list[WeightSlot], tensors: dict[str, torch.Tensor]) -> None:
    assert {slot.name: tuple(slot.target.shape) for slot in slots} == {
        name: tuple(tensor.shape) for name, tensor in tensors.items()
    }
    place_on_cpu(slots, Given(tensors))  # type: ignore[arg-type]
    for slot in slots:
        reorder(slot)


def test_every_kind_of_checkpoint_lands_in_the_same_matrices() -> None:
    gate_XFE, up_XFE, down_XEF = draw(5, 6, 12), draw(5, 6, 12, seed=1), draw(5, 12, 6, seed=2)
    gate_bias_XF, up_bias_XF, down_bias_XE = draw(5, 6), draw(5, 6, seed=1), draw(5, 12)
    alternating_XGE = torch.stack((gate_XFE, up_XFE), 2).flatten(1, 2)
    alternating_bias_XG = torch.stack((gate_bias_XF, up_bias_XF), 2).flatten(1, 2)
    one_by_one: dict[str, torch.Tensor] = {}
    for expert in range(5):
        one_by_one |= {
            f"moe.experts.{expert}.w1.weight": gate_XFE[expert],
            f"moe.experts.{expert}.w3.weight": up_XFE[expert],
            f"moe.experts.{expert}.w2.weight": down_XEF[expert],
        }
    halves = {"moe.in": torch.cat((gate_XFE, up_XFE), 1), "moe.out": down_XEF}
    columns = {
        "moe.experts.gate_up_proj": alternating_XGE.transpose(1, 2),
        "moe.experts.gate_up_proj_bias": alternating_bias_XG,
        "moe.experts.down_proj": down_XEF.transpose(1, 2),
        "moe.experts.down_proj_bias": down_bias_XE,
    }
    with_bias = ExpertShape(num_experts=5, width=12, inner=6, has_bias=True)
    for kind, shape, tensors in (
        (OneByOne(gate="w1", up="w3", down="w2"), SHAPE, one_by_one),
        (StackedHalves(gate_up="in", down="out"), SHAPE, halves),
        (StackedColumns(), with_bias, columns),
    ):
        made = Experts(shape, PLACEMENT)
        placed(kind.slots("moe", made), tensors)
        assert torch.equal(made.gate_up_XGE, alternating_XGE)
        assert torch.equal(made.down_XEF, down_XEF)
        if made.gate_up_bias_XG is not None and made.down_bias_XE is not None:
            assert torch.equal(made.gate_up_bias_XG, alternating_bias_XG)
            assert torch.equal(made.down_bias_XE, down_bias_XE)
