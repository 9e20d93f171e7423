"""The few-token linear kernel, interpreted, against the plain form."""

from __future__ import annotations

import pytest
import torch

from octavo.base.errors import EngineError
from octavo.ops.matvec import MAX_TOKENS, matvec

kernels = pytest.importorskip("octavo.ops.triton.matvec")
tuning = pytest.importorskip("octavo.ops.triton.tuning")
pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="kernels are compiled here: tests/gpu covers them"
)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


@pytest.mark.parametrize("example", list(matvec.examples()))
def test_equals_the_plain_form(example: tuple) -> None:
    torch.testing.assert_close(
        kernels.matvec(*example), matvec.plain(*example), atol=matvec.tolerance, rtol=matvec.tolerance
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_are_summed_in_float32(dtype: torch.dtype) -> None:
    x, weight, bias, residual = (
        draw(2, 600).to(dtype),
        draw(6, 600).to(dtype),
        draw(6).to(dtype),
        draw(2, 6).to(dtype),
    )
    found = kernels.matvec(x, weight, bias, None, 0.0, residual)
    exact = matvec.plain(x.float(), weight.float(), bias.float(), None, 0.0, residual.float())
    assert torch.equal(found, exact.to(dtype)) or (found - exact).norm() < 2**-8 * exact.norm()
    assert found.dtype == dtype


@pytest.mark.parametrize("tile", [(2, 16, 1), (8, 64, 4), (16, 128, 2), (4, 512, 4)])
@pytest.mark.parametrize("gated", [False, True])
def test_every_cut_covers_every_row_and_column_once(tile: tuple[int, int, int], gated: bool) -> None:
    """Whole numbers, so that any order gives the same sum and a doubled or forgotten product shows."""
    x = torch.arange(3 * 136).reshape(3, 136).remainder(7).float() - 3
    weight = torch.arange(22 * 136).reshape(22, 136).remainder(5).float() - 2
    residual = draw(3, 11 if gated else 22)
    found = kernels.launch(x, weight, None, None, 0.0, residual, gated, tile=kernels.MatvecTile(*tile))
    expected = matvec.plain(x, weight, None, None, 0.0, residual, gated)
    if gated:
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-6)
    else:
        assert torch.equal(found, expected)


def test_rows_past_the_end_of_the_weight_are_never_read_or_written() -> None:
    memory = torch.full((7, 32), float("nan"))
    memory[:5] = draw(5, 32)
    x = draw(1, 32)
    found = kernels.launch(x, memory[:5], tile=kernels.MatvecTile(4, 32, 1))
    torch.testing.assert_close(found, x @ memory[:5].T)


def test_no_tokens() -> None:
    assert kernels.matvec(draw(0, 32), draw(4, 32)).shape == (0, 4)


def test_too_many_tokens_and_strided_weights_are_refused() -> None:
    assert kernels.PADDED_TOKENS[-1] == MAX_TOKENS
    with pytest.raises(EngineError, match="at most 4 tokens"):
        kernels.matvec(draw(5, 32), draw(4, 32))
    with pytest.raises(EngineError, match="row by row"):
        kernels.matvec(draw(1, 32), draw(32, 4).T)


@pytest.mark.parametrize(("rows", "inputs"), [(1024, 2048), (6144, 4096), (128256, 4096), (8, 24)])
@pytest.mark.parametrize("tokens", [1, 2, 4])
@pytest.mark.parametrize("element_size", [2, 4])
def test_the_rule_of_thumb_gives_each_thread_work(
    rows: int, inputs: int, tokens: int, element_size: int
) -> None:
    tile = kernels.usual_tile(torch.device("cpu"), rows, inputs, tokens, element_size)
    assert tile.block_o & (tile.block_o - 1) == 0 and tile.block_i & (tile.block_i - 1) == 0
    assert tile.block_o >= 2, "gate and up rows share a tile"
    loads = tile.block_o * tile.block_i * element_size / (16 * 32 * tile.warps)
    assert loads >= 1 or inputs < 1024, "every thread has something to load"
    assert loads <= 16, "what is loaded has to fit into registers"


def test_measured_tiles_come_before_the_rule_of_thumb(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {"block_o": 16, "block_i": 32, "warps": 2, "prefetch_kib": 64}
    table = {"sm_90": {"matvec_4": {"6,32": measured}}, "GPU X": {"matvec_4": {"6,64": measured}}}
    monkeypatch.setattr(tuning, "_table", lambda: table)
    monkeypatch.setattr(tuning, "gpu_names", lambda device: ("GPU X", "sm_90"))
    device = torch.device("cpu", 7)  # not asked for before: choices are remembered
    for inputs in (32, 64):
        assert kernels.chosen_tile(device, 6, inputs, 3, 2) == kernels.MatvecTile(**measured)
    for other in ((6, 128, 3, 2), (6, 32, 1, 2), (6, 32, 3, 4)):
        assert kernels.chosen_tile(device, *other) == kernels.usual_tile(device, *other)


def test_the_table_of_measured_tiles_can_be_used() -> None:
    for by_kernel in tuning._table().values():
        for kernel, by_shape in by_kernel.items():
            for shape, choices in by_shape.items():
                outputs, inputs = map(int, shape.split(","))
                assert outputs > 0 and inputs > 0
                if kernel.startswith("matvec_"):
                    assert int(kernel.removeprefix("matvec_")) in kernels.PADDED_TOKENS
                    kernels.MatvecTile(**choices)
