"""Latent attention on the GPU, at DeepSeek's widths: kernels and backend against plain attention, float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("triton")
from octavo.attention.backends.triton_latent import TritonLatentAttention
from octavo.attention.contract import StepLimits
from octavo.attention.latents import LatentShape
from octavo.ops.head_product import head_product
from octavo.ops.latents import prepare_latents
from octavo.ops.triton.latent_states import LatentTile
from tests.latent_case import LatentCase
from tests.latent_step import MAX_SEQS, LatentStep

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
LITE, V3 = 16, 128
"""Heads of DeepSeek-V2-Lite, and of V2 and V3."""
TOLERANCE = {torch.bfloat16: 6e-3, torch.float16: 1e-3, torch.float32: 1e-5}


def real(sequences: list[tuple[int, int]], num_heads: int = LITE, **shape: Any) -> LatentCase:
    defaults = {"latent": 512, "rotated": 64, "block_size": 16, "dtype": torch.bfloat16, "device": "cuda"}
    return LatentCase(sequences, num_heads=num_heads, **(defaults | shape))


def singles(num_seqs: int, most: int) -> list[tuple[int, int]]:
    drawn = torch.randint(0, most, (num_seqs,), generator=torch.Generator().manual_seed(most)).tolist()
    return [(past, 1) for past in sorted([*drawn, most, 0])]


MIXED = [(0, 1), (700, 1), (0, 200), (1500, 128), (31, 2), (0, 33)]


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("num_heads", [LITE, V3])
@pytest.mark.parametrize("sequences", [[(0, 1)], [(4095, 1)], singles(30, 3000), singles(254, 500)], ids=len)
def test_decode(sequences: list[tuple[int, int]], num_heads: int, dtype: torch.dtype) -> None:
    case = real(sequences, num_heads, dtype=dtype)
    case.decode(split_tokens=64)
    case.check(slice(None), TOLERANCE[dtype])


@pytest.mark.parametrize("num_splits", [1, 5])
@pytest.mark.parametrize("num_heads", [1, 20, 40, 64, 96])
def test_decode_with_other_numbers_of_heads(num_heads: int, num_splits: int) -> None:
    case = real(singles(9, 700), num_heads)
    case.decode(num_splits=num_splits)
    case.check(slice(None), TOLERANCE[case.dtype])


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("num_heads", [1, LITE, 40, V3])
def test_chunks(num_heads: int, dtype: torch.dtype) -> None:
    case = real(MIXED, num_heads, dtype=dtype)
    case.chunks()
    case.check(slice(2, None), TOLERANCE[dtype])


@pytest.mark.parametrize(
    "shape", [{"latent": 256, "rotated": 32}, {"latent": 96, "rotated": 48, "block_size": 1}]
)
def test_other_widths(shape: dict[str, int]) -> None:
    case = real(MIXED, **shape)
    case.chunks()
    case.check(slice(2, None), TOLERANCE[case.dtype])
    case = real(singles(5, 900), **shape)
    case.decode(num_splits=3)
    case.check(slice(None), TOLERANCE[case.dtype])


@pytest.mark.parametrize(
    "tile",
    [
        LatentTile(rows=64, keys=64, num_warps=8, num_stages=2),
        LatentTile(rows=64, keys=32, num_warps=8, num_stages=3),
        LatentTile(rows=64, keys=16, num_warps=4, num_stages=2),
    ],
    ids=str,
)
def test_tiles_of_smaller_gpus(tile: LatentTile) -> None:
    case = real(MIXED, tile=tile)
    case.chunks()
    case.check(slice(2, None), TOLERANCE[case.dtype])


@pytest.mark.parametrize("num_heads", [LITE, V3])
def test_one_kernel_gives_the_same_bits_in_any_company(num_heads: int) -> None:
    crowd = real(MIXED, num_heads)
    crowd.chunks(singles_too=True)
    crowd.check(slice(None), TOLERANCE[crowd.dtype])
    for i, (before, now) in enumerate(MIXED):
        for done in range(0, now, 47):
            part = slice(crowd.starts[i] + done, crowd.starts[i] + min(done + 47, now))
            alone = real([(before + done, part.stop - part.start)], num_heads)
            alone.pages_BNW, alone.table_RM = crowd.pages_BNW, crowd.table_RM
            alone.rows_S = crowd.rows_S[i : i + 1]
            alone.q_THC, alone.q_THR = crowd.q_THC[part], crowd.q_THR[part]
            alone.chunks(singles_too=True)
            assert torch.equal(alone.out_THC, crowd.out_THC[part])


@pytest.mark.parametrize("num_splits", [1, 8])
def test_a_graph_serves_later_steps(num_splits: int) -> None:
    """The same graph with other lengths: all counts are read on the device."""
    case = real([(300, 1), (400, 1), (810, 1)])
    workspace = case.workspace(num_splits)
    lengths_S, counts = case.ints(*case.lengths, 1), case.counts
    run = lambda: case.decode(  # noqa: E731
        num_splits=num_splits, workspace=workspace, lengths_S=lengths_S, counts=counts
    )
    run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    for lengths in ([301, 401, 811], [7, 390, 64], [250, 1, 777]):
        case.lengths = lengths
        lengths_S[:3] = case.ints(*lengths)
        case.out_THC.fill_(float("nan"))
        graph.replay()
        case.check(slice(None), TOLERANCE[case.dtype])


@pytest.mark.parametrize("num_tokens", [1, 3, 256, 1500])
@pytest.mark.parametrize("num_heads", [LITE, V3])
def test_products_by_head(num_heads: int, num_tokens: int) -> None:
    """The library's into strided room, and ours, whose rows do not feel each other."""
    q_THD = torch.randn(num_tokens, num_heads, 192, device="cuda", dtype=torch.bfloat16)
    up_HUC = torch.randn(num_heads, 256, 512, device="cuda", dtype=torch.bfloat16) / 16
    invariant = head_product.on(torch.device("cuda"))
    for x_THI, weight_HOI in (
        (q_THD[..., :128], up_HUC[:, :128].transpose(1, 2)),
        (torch.randn(num_tokens, num_heads, 512, device="cuda").bfloat16(), up_HUC[:, 128:]),
    ):
        expected_THO = torch.einsum("thi,hoi->tho", x_THI.float(), weight_HOI.float())
        for multiply in (head_product.plain, invariant):
            found_THO = multiply(x_THI, weight_HOI)
            error = (found_THO.float() - expected_THO).norm() / expected_THO.norm()
            assert error < 5e-3, f"off by {error:.1e}"
        alone_1HO = invariant(x_THI[-1:], weight_HOI)
        assert torch.equal(alone_1HO, invariant(x_THI, weight_HOI)[-1:])


@pytest.mark.parametrize("num_tokens", [1, 5, 3000])
@pytest.mark.parametrize("num_heads", [LITE, V3])
def test_preparation(num_heads: int, num_tokens: int) -> None:
    """Norm, rotation and page write at once, against the plain form."""

    def example() -> list[Any]:
        generator = torch.Generator("cuda").manual_seed(num_tokens)

        def draw(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, device="cuda").bfloat16()

        qkv_TO = draw(num_tokens, num_heads * 192 + 576)
        slots_T = torch.randperm(num_tokens + 16, generator=generator, device="cuda")[:num_tokens].int()
        slots_T[1::3] = -1
        return [
            qkv_TO[:, : num_heads * 192].view(num_tokens, num_heads, 192)[..., 128:],
            qkv_TO[:, num_heads * 192 :],
            torch.randint(0, 4000, (num_tokens,), generator=generator, device="cuda").int(),
            slots_T,
            draw(4000, 64).float(),
            draw(512),
            1e-6,
            draw(num_tokens // 16 + 2, 16, 576),
        ]

    given, expected = example(), example()
    prepare_latents.on(torch.device("cuda"))(*given)
    prepare_latents.plain(*expected)
    for i in prepare_latents.writes:
        torch.testing.assert_close(given[i], expected[i], atol=0.05, rtol=0.02)


@pytest.mark.parametrize("num_long", [0, 1])
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("num_heads", [LITE, V3])
def test_a_whole_step(num_heads: int, deterministic: bool, num_long: int) -> None:
    """Single tokens and chunks absorbed, a long chunk and a long prompt expanded, through the backend."""
    step = LatentStep(
        [(0, 1), (900, 1), (300, 70), (1500, 1030), (0, 1100)],
        LatentShape(latent=512, rotated=64, nope=128, value=128),
        num_heads=num_heads,
        block_size=16,
        num_long=0 if deterministic else num_long,
        dtype=torch.bfloat16,
        device="cuda",
    )
    limits = StepLimits(
        max_seqs=MAX_SEQS,
        max_tokens=4096,
        num_heads=num_heads,
        deterministic=deterministic,
        chunk_attention="triton",
    )
    step.check(TritonLatentAttention(step.layout, limits), 1.5e-2)
