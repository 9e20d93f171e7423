"""prepare_heads beyond its examples: what it means, what it must leave alone, what it may remember."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from octavo.ops.heads import CpuHeads, prepare_heads
from octavo.ops.triton.heads import HeadTile
from octavo.ops.triton.heads import prepare_heads as prepare_heads_triton

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="interpreted; tests/gpu has the native tests"
)

FORMS = [
    pytest.param(prepare_heads.plain, id="plain"),
    pytest.param(CpuHeads(), id="cpu"),
    pytest.param(prepare_heads_triton, id="triton"),
]
HEADS, KV_HEADS, WIDTH, BLOCK_SIZE, BLOCKS = 4, 2, 8, 4, 5


@dataclasses.dataclass
class Case:
    """Arguments of a call; pages lie token by token, as the CPU backend wants them."""

    qkv_TO: torch.Tensor
    positions_T: torch.Tensor
    slots_T: torch.Tensor
    rotation_PR: torch.Tensor | None
    q_norm_D: torch.Tensor | None
    k_norm_D: torch.Tensor | None
    page_array: torch.Tensor

    def run(self, form: Callable[..., None], **extra: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Projections and page array after a call; the case stays as it is."""
        qkv_TO, page_array = self.qkv_TO.clone(), self.page_array.clone()
        keys, values = page_array.transpose(2, 3).unbind(1)
        form(
            qkv_TO,
            self.positions_T,
            self.slots_T,
            self.rotation_PR,
            self.q_norm_D,
            self.k_norm_D,
            1e-6,
            keys,
            values,
            HEADS,
            **extra,
        )
        return qkv_TO, page_array


def make_case(tokens: int, *, seed: int = 0, rotated: int = WIDTH, has_norms: bool = False) -> Case:
    generator = torch.Generator().manual_seed(seed)
    angles = torch.rand(32, rotated // 2, generator=generator) * 100
    return Case(
        qkv_TO=torch.randn(tokens, (HEADS + 2 * KV_HEADS) * WIDTH, generator=generator),
        positions_T=torch.randint(0, 32, (tokens,), generator=generator).int(),
        slots_T=torch.randperm(BLOCKS * BLOCK_SIZE, generator=generator)[:tokens].int(),
        rotation_PR=torch.cat((angles.cos(), angles.sin()), -1),
        q_norm_D=torch.rand(WIDTH, generator=generator) if has_norms else None,
        k_norm_D=torch.rand(WIDTH, generator=generator) if has_norms else None,
        page_array=torch.randn(BLOCKS, 2, BLOCK_SIZE, KV_HEADS, WIDTH, generator=generator),
    )


@pytest.mark.parametrize("form", FORMS)
def test_rotation_turns_pairs_of_halves_as_complex_numbers(form: Callable[..., None]) -> None:
    case = make_case(3)
    assert case.rotation_PR is not None
    qkv_TO, _ = case.run(form)
    before, after = (x.view(3, -1, WIDTH)[:, : HEADS + KV_HEADS].double() for x in (case.qkv_TO, qkv_TO))
    cos, sin = case.rotation_PR[case.positions_T.long(), None].double().chunk(2, -1)
    half = WIDTH // 2
    expected = torch.complex(before[..., :half], before[..., half:]) * torch.complex(cos, sin)
    found = torch.complex(after[..., :half], after[..., half:])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_pages_hold_the_keys_and_values_of_their_slots_and_nothing_else_changes(
    form: Callable[..., None],
) -> None:
    case = make_case(6, has_norms=True)
    case.slots_T[1] = case.slots_T[4] = -1
    qkv_TO, page_array = case.run(form)
    heads = qkv_TO.view(6, -1, WIDTH)
    expected = case.page_array.clone()
    for token, slot in enumerate(case.slots_T.tolist()):
        if slot >= 0:
            expected[slot // BLOCK_SIZE, 0, slot % BLOCK_SIZE] = heads[token, HEADS : HEADS + KV_HEADS]
            expected[slot // BLOCK_SIZE, 1, slot % BLOCK_SIZE] = heads[token, HEADS + KV_HEADS :]
    assert torch.equal(page_array, expected)
    assert torch.equal(heads[:, HEADS + KV_HEADS :], case.qkv_TO.view(6, -1, WIDTH)[:, HEADS + KV_HEADS :])


@pytest.mark.parametrize("form", FORMS)
def test_values_past_the_rotation_pass_through(form: Callable[..., None]) -> None:
    case = make_case(2, rotated=4)
    qkv_TO, _ = case.run(form)
    after, before = qkv_TO.view(2, -1, WIDTH), case.qkv_TO.view(2, -1, WIDTH)
    assert torch.equal(after[..., 4:], before[..., 4:])
    assert not torch.equal(after[..., :4], before[..., :4])


@pytest.mark.parametrize("form", FORMS)
def test_a_token_does_not_depend_on_the_others(form: Callable[..., None]) -> None:
    case = make_case(9, has_norms=True)
    together, _ = case.run(form)
    for token in (0, 5, 8):
        alone = dataclasses.replace(
            case,
            **{name: getattr(case, name)[token : token + 1] for name in ("qkv_TO", "positions_T", "slots_T")},
        )
        assert torch.equal(alone.run(form)[0][0], together[token])


def test_what_the_cpu_form_remembers_is_right_for_what_it_is_given() -> None:
    """Same tensors with other numbers, other tables with the same numbers, other layouts, other types."""
    form = CpuHeads()
    case, other = make_case(4), make_case(4, seed=1)
    cases = [
        case,
        case,
        dataclasses.replace(case, rotation_PR=other.rotation_PR),
        dataclasses.replace(case, positions_T=other.positions_T),
        dataclasses.replace(case, slots_T=other.slots_T),
        dataclasses.replace(case, positions_T=case.positions_T.long(), slots_T=case.slots_T.long()),
        make_case(3),
    ]
    for given in cases:
        assert_same(given.run(form), given.run(prepare_heads.plain))
    case.positions_T += 1
    case.positions_T %= 32
    case.slots_T[0] = -1
    assert_same(case.run(form), case.run(prepare_heads.plain))


@pytest.mark.parametrize("tile", [HeadTile(1, 8), HeadTile(4, 1), HeadTile(8, 16)])
def test_tiles_do_not_change_the_result(tile: HeadTile) -> None:
    case = make_case(2, has_norms=True)
    assert_same(case.run(prepare_heads_triton, tile=tile), case.run(prepare_heads.plain))


def assert_same(found: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> None:
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
