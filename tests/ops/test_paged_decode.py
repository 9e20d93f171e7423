"""The decode attention kernels, interpreted, against plain attention in float32."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch

from octavo.base.errors import EngineError
from octavo.ops.paged_plain import AttentionTerms, paged_attention

pytest.importorskip("triton")
from octavo.ops.triton.paged_decode import paged_decode
from octavo.ops.triton.paged_decode_shared import paged_decode_shared
from octavo.ops.triton.paged_decode_workspace import (
    DecodeWorkspace,
    Tuning,
    decode_splits,
    decode_tuning,
)

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="kernels are native here: tests/gpu tests those"
)
SMALL = Tuning(tile=16, num_warps=4, num_stages=3)
NUM_SMS = 2


@dataclass
class Case:
    """A step whose pages hold NaN wherever no sequence has written."""

    lengths: list[int]
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 16
    block_size: int = 4
    num_shared_blocks: int = 0
    dtype: torch.dtype = torch.float32
    terms: AttentionTerms = field(default_factory=lambda: AttentionTerms(scale=0.3))
    num_padded: int = 1

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(len(self.lengths) + sum(self.lengths))
        num_seqs, n = len(self.lengths), self.block_size
        most = -(-max(self.lengths) // n)
        num_rows = num_seqs + 3
        # Pages of keys and then values, as the engine lays them out; block 0 belongs to nobody.
        num_blocks = 1 + num_seqs * most
        pages = torch.full(
            (num_blocks, 2, self.num_kv_heads, n, self.head_dim), float("nan"), dtype=self.dtype
        )
        self.keys_BKND, self.values_BKND = pages[:, 0], pages[:, 1]
        order = (1 + torch.randperm(num_blocks - 1, generator=generator)).int().tolist()
        # Rows of a table wider than its view, out of order.
        self.table_RM = torch.zeros(num_rows, most + 5, dtype=torch.int32)[:, :most]
        self.rows_S = torch.randperm(num_rows, generator=generator)[: num_seqs + self.num_padded].int()
        shared = [order.pop() for _ in range(self.num_shared_blocks)]
        for row, length in zip(self.rows_S.tolist(), self.lengths, strict=False):
            used = -(-length // n)
            blocks = shared[:used] + [order.pop() for _ in range(used - len(shared))]
            self.table_RM[row, :used] = torch.tensor(blocks, dtype=torch.int32)
            for j, block in enumerate(blocks):
                in_use = min(n, length - j * n)
                if not self.keys_BKND[block, 0, 0, 0].isnan().all():
                    continue  # shared, and written before
                shape = (2, self.num_kv_heads, in_use, self.head_dim)
                pages[block, :, :, :in_use] = torch.randn(shape, generator=generator).to(self.dtype)
        self.lengths_S = torch.tensor(self.lengths + [1] * self.num_padded, dtype=torch.int32)
        self.counts = torch.tensor([num_seqs, num_seqs, num_seqs, self.num_shared_blocks], dtype=torch.int32)
        # Queries lie inside wider rows, as in a fused projection.
        num_tokens = num_seqs + self.num_padded
        wide = torch.randn(num_tokens, self.num_heads + 3, self.head_dim, generator=generator).to(self.dtype)
        self.q_THD = wide[:, : self.num_heads]
        self.out_THD = torch.full_like(self.q_THD, float("nan"), memory_format=torch.contiguous_format)

    @property
    def num_seqs(self) -> int:
        return len(self.lengths)

    def forget_before_window(self) -> None:
        """NaN in what a window has left behind: the engine has given those blocks to others."""
        assert self.terms.window is not None
        for row, length in zip(self.rows_S.tolist(), self.lengths, strict=False):
            for token in range(length - self.terms.window):
                block = self.table_RM[row, token // self.block_size]
                self.keys_BKND[block, :, token % self.block_size] = float("nan")
                self.values_BKND[block, :, token % self.block_size] = float("nan")

    def workspace(self, *, num_splits: int | None = None, with_shared: bool = False) -> DecodeWorkspace:
        workspace = DecodeWorkspace.allocate(
            max_seqs=self.num_seqs + self.num_padded,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            num_sms=NUM_SMS,
            device=torch.device("cpu"),
            num_splits=num_splits,
            with_shared=with_shared,
        )
        workspace.accs.fill_(float("nan"))
        workspace.stats.fill_(float("nan"))
        return workspace

    def tensors(self) -> tuple[torch.Tensor, ...]:
        return (
            self.q_THD,
            self.keys_BKND,
            self.values_BKND,
            self.table_RM,
            self.rows_S,
            self.lengths_S,
            self.counts,
            self.out_THD,
        )

    def run(self, *, num_splits: int | None = None, split_tokens: int = 16) -> DecodeWorkspace:
        workspace = self.workspace(num_splits=num_splits)
        paged_decode(
            *self.tensors(),
            self.terms,
            num_seqs=self.num_seqs + self.num_padded,
            workspace=workspace,
            num_splits=num_splits,
            split_tokens=split_tokens,
            tuning=SMALL,
        )
        return workspace

    def run_shared(self, *, num_splits: int, num_shared_splits: int | None = None) -> DecodeWorkspace:
        workspace = self.workspace(num_splits=num_splits, with_shared=True)
        paged_decode_shared(
            *self.tensors(),
            self.terms,
            num_seqs=self.num_seqs + self.num_padded,
            workspace=workspace,
            num_splits=num_splits,
            num_shared_splits=num_shared_splits,
            tuning=SMALL,
            own_tuning=SMALL,
        )
        return workspace

    def check(self, workspace: DecodeWorkspace, tolerance: float = 1e-5) -> None:
        n = self.num_seqs
        tables = self.table_RM[self.rows_S[:n].long()]
        expected = paged_attention(
            self.q_THD[:n].float(),
            self.keys_BKND,
            self.values_BKND,
            tables,
            list(range(n + 1)),
            self.lengths,
            self.terms,
        )
        torch.testing.assert_close(self.out_THD[:n].float(), expected, atol=tolerance, rtol=tolerance)
        assert self.out_THD[n:].isnan().all(), "a padded entry was written"
        assert not workspace.counters.any(), "a counter was left behind"


@pytest.mark.parametrize("num_splits", [1, 3])
@pytest.mark.parametrize(
    "shape",
    [
        {"num_heads": 2, "num_kv_heads": 2},  # each query head its own keys
        {"num_heads": 8, "num_kv_heads": 2, "head_dim": 20},  # a width that is no power of two
        {"num_heads": 3, "num_kv_heads": 1, "block_size": 1},
        {"num_heads": 17, "num_kv_heads": 1, "block_size": 32},  # more query heads than a tile's rows
        {"dtype": torch.float16},
    ],
    ids=str,
)
def test_agrees_with_plain(shape: dict, num_splits: int) -> None:
    """Not in bfloat16, whose matrices Triton's interpreter multiplies bit pattern by bit pattern."""
    case = Case(lengths=[1, 33, 16], **shape)
    case.check(case.run(num_splits=num_splits), 2e-3 if case.dtype == torch.float16 else 1e-5)


@pytest.mark.parametrize("num_splits", [1, 3])
@pytest.mark.parametrize("window", [1, 20, 100])
def test_sees_only_the_window(window: int, num_splits: int) -> None:
    case = Case(lengths=[7, 40], num_kv_heads=1, terms=AttentionTerms(scale=0.3, window=window))
    case.forget_before_window()
    case.check(case.run(num_splits=num_splits))


@pytest.mark.parametrize("num_splits", [1, 3])
@pytest.mark.parametrize("soft_cap", [None, 2.0])
def test_soft_cap_and_sinks(soft_cap: float | None, num_splits: int) -> None:
    sinks_H = torch.tensor([-30.0, 0.5, 3.0, 60.0])
    case = Case(lengths=[2, 41], terms=AttentionTerms(scale=2.0, soft_cap=soft_cap, sinks_H=sinks_H))
    case.check(case.run(num_splits=num_splits))


def test_the_device_says_how_many_sequences_there_are() -> None:
    case = Case(lengths=[20, 3, 18], num_padded=0)
    case.counts[0] = 2
    workspace = case.run(num_splits=2)
    assert case.out_THD[2].isnan().all()
    case.lengths, case.out_THD = case.lengths[:2], case.out_THD[:2]
    case.check(workspace)


def test_no_sequences() -> None:
    case = Case(lengths=[3])
    paged_decode(*case.tensors(), case.terms, num_seqs=0, workspace=case.workspace())
    assert case.out_THD.isnan().all()


@pytest.mark.parametrize("num_splits", [None, 2, 9])
def test_any_number_of_splits(num_splits: int | None) -> None:
    case = Case(lengths=[100, 17], num_kv_heads=1)
    case.check(case.run(num_splits=num_splits))


def test_a_workspace_is_used_again() -> None:
    first, second = (Case(lengths=lengths, num_kv_heads=1) for lengths in ([60, 33, 9], [20, 47, 48]))
    workspace = first.workspace(num_splits=3)
    for case in (first, second):
        paged_decode(
            *case.tensors(),
            case.terms,
            num_seqs=case.num_seqs,
            workspace=workspace,
            num_splits=3,
            split_tokens=16,
            tuning=SMALL,
        )
        case.check(workspace)


def test_with_fixed_splits_a_result_depends_on_its_own_length_alone() -> None:
    crowd = Case(lengths=[90, 40, 3], num_kv_heads=1)
    crowd.run(num_splits=4, split_tokens=32)
    for i, length in enumerate(crowd.lengths):
        alone = Case(lengths=[length], num_kv_heads=1, num_padded=0)
        alone.keys_BKND, alone.values_BKND, alone.table_RM = (
            crowd.keys_BKND,
            crowd.values_BKND,
            crowd.table_RM,
        )
        alone.rows_S, alone.q_THD = crowd.rows_S[i : i + 1], crowd.q_THD[i : i + 1]
        alone.run(num_splits=4, split_tokens=32)
        assert torch.equal(alone.out_THD[0], crowd.out_THD[i])


@pytest.mark.parametrize("num_splits", [1, 2])
@pytest.mark.parametrize("num_shared_splits", [None, 1])
@pytest.mark.parametrize("num_shared_blocks", [0, 3, 10])
def test_shared_blocks(num_shared_blocks: int, num_shared_splits: int | None, num_splits: int) -> None:
    case = Case(lengths=[40, 60, 41], num_kv_heads=1, num_shared_blocks=num_shared_blocks)
    case.check(case.run_shared(num_splits=num_splits, num_shared_splits=num_shared_splits))


def test_shared_blocks_with_many_sequences_and_all_terms() -> None:
    terms = AttentionTerms(scale=1.0, soft_cap=3.0, sinks_H=torch.arange(9.0))
    lengths = [16 + i for i in range(9)]  # more than a tile of 64 rows holds
    case = Case(
        lengths=lengths,
        num_heads=9,
        num_kv_heads=1,
        block_size=8,
        num_shared_blocks=2,
        terms=terms,
        head_dim=12,
    )
    case.check(case.run_shared(num_splits=2))


def test_shared_blocks_and_a_window_do_not_go_together() -> None:
    case = Case(lengths=[9], terms=AttentionTerms(scale=1.0, window=4))
    with pytest.raises(EngineError, match="window"):
        case.run_shared(num_splits=1)


def test_a_workspace_that_is_too_small_is_refused() -> None:
    case = Case(lengths=[40, 40])
    with pytest.raises(EngineError, match="Allocate it for the largest batch"):
        paged_decode(
            *case.tensors(), case.terms, num_seqs=2, workspace=case.workspace(num_splits=2), num_splits=5
        )


def test_pages_of_different_strides_are_refused() -> None:
    case = Case(lengths=[4])
    case.values_BKND = case.values_BKND.contiguous()
    with pytest.raises(EngineError, match="strides"):
        case.run(num_splits=1)


@pytest.mark.parametrize("num_seqs", [1, 2, 16, 33, 66, 67, 1024])
def test_splits_fill_the_processors_and_no_more(num_seqs: int) -> None:
    splits = decode_splits(num_seqs, 8, 132)
    assert splits >= 1
    assert splits in (1, 64) or num_seqs * 8 * (splits - 1) < 4 * 132 <= num_seqs * 8 * splits


@pytest.mark.parametrize("head_bytes", [32, 128, 256, 512, 1024])
def test_tiles_fit_shared_memory(head_bytes: int) -> None:
    tuning = decode_tuning(head_bytes)
    assert tuning.tile >= 16
    assert 2 * tuning.tile * head_bytes * (tuning.num_stages - 1) <= 64 * 1024
