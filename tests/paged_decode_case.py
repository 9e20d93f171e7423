"""A decode step over paged KV, made up for tests: NaN in the pages wherever no sequence has written."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from octavo.ops.paged_plain import AttentionTerms, paged_attention
from octavo.ops.triton.paged_decode import paged_decode
from octavo.ops.triton.paged_decode_shared import paged_decode_shared
from octavo.ops.triton.paged_decode_workspace import DecodeWorkspace, Tuning


@dataclass
class DecodeCase:
    """Sequences of these lengths, maybe with the same first blocks, and padded entries behind them."""

    lengths: list[int]
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 16
    block_size: int = 4
    num_shared_blocks: int = 0
    num_padded: int = 1
    dtype: torch.dtype = torch.float32
    terms: AttentionTerms = field(default_factory=lambda: AttentionTerms(scale=0.3))
    device: str = "cpu"
    num_sms: int | None = None
    tuning: Tuning | None = None

    def __post_init__(self) -> None:
        generator = torch.Generator(self.device).manual_seed(sum(self.lengths))
        num_seqs, n, shared = len(self.lengths), self.block_size, self.num_shared_blocks
        blocks = [-(-length // n) for length in self.lengths]
        # Block 0 belongs to nobody. A block holds its keys, then its values, head by head.
        ids = 1 + torch.randperm(sum(blocks), generator=generator, device=self.device).int()
        shape = (1 + len(ids), 2, self.num_kv_heads, n, self.head_dim)
        self.pages = torch.randn(shape, generator=generator, device=self.device).to(self.dtype)
        self.pages[0] = float("nan")
        # Rows of a table that is wider than its view, in any order.
        num_rows = num_seqs + self.num_padded + 2
        self.table_RM = torch.zeros(num_rows, max(blocks) + 5, dtype=torch.int32, device=self.device)[:, :-5]
        self.rows_S = torch.randperm(num_rows, generator=generator, device=self.device)[:-2].int()
        for row, length, used, own in zip(self.rows_S, self.lengths, blocks, ids.split(blocks), strict=False):
            self.table_RM[row, :used] = torch.cat((ids[:shared], own[shared:]))
            if length % n:
                self.pages[own[-1], :, :, length % n :] = float("nan")
        self.keys_BKND, self.values_BKND = self.pages[:, 0], self.pages[:, 1]
        self.lengths_S = torch.tensor(self.lengths + [1] * self.num_padded, device=self.device).int()
        self.counts = torch.tensor([num_seqs, num_seqs, num_seqs, shared], device=self.device).int()
        # Queries lie in wider rows, as in a fused projection.
        shape = (num_seqs + self.num_padded, self.num_heads + 3, self.head_dim)
        wide_THD = torch.randn(shape, generator=generator, device=self.device).to(self.dtype)
        self.q_THD = wide_THD[:, : self.num_heads]
        self.out_THD = torch.full_like(self.q_THD, float("nan"), memory_format=torch.contiguous_format)

    @property
    def num_seqs(self) -> int:
        return len(self.lengths)

    def forget_before_window(self) -> None:
        """NaN in what a window has left behind: the engine has given those blocks to others."""
        assert self.terms.window is not None
        for row, length in zip(self.rows_S, self.lengths, strict=False):
            token = torch.arange(max(0, length - self.terms.window), device=self.device)
            block = self.table_RM[row].long()[token // self.block_size]
            self.pages[block, :, :, token % self.block_size] = float("nan")

    def workspace(self, *, num_splits: int | None = None, with_shared: bool = False) -> DecodeWorkspace:
        workspace = DecodeWorkspace.allocate(
            max_seqs=self.num_seqs + self.num_padded,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            device=torch.device(self.device),
            num_sms=self.num_sms,
            num_splits=num_splits,
            with_shared=with_shared,
        )
        workspace.accs.fill_(float("nan"))
        workspace.stats.fill_(float("nan"))
        return workspace

    def run(
        self,
        *,
        num_splits: int | None = None,
        split_tokens: int = 16,
        workspace: DecodeWorkspace | None = None,
    ) -> DecodeWorkspace:
        workspace = workspace or self.workspace(num_splits=num_splits)
        paged_decode(
            *self.tensors(),
            self.terms,
            num_seqs=self.num_seqs + self.num_padded,
            workspace=workspace,
            num_splits=num_splits,
            split_tokens=split_tokens,
            tuning=self.tuning,
        )
        return workspace

    def run_shared(
        self,
        *,
        num_splits: int | None = None,
        num_shared_splits: int | None = None,
        workspace: DecodeWorkspace | None = None,
    ) -> DecodeWorkspace:
        workspace = workspace or self.workspace(num_splits=num_splits, with_shared=True)
        paged_decode_shared(
            *self.tensors(),
            self.terms,
            num_seqs=self.num_seqs + self.num_padded,
            workspace=workspace,
            num_splits=num_splits,
            num_shared_splits=num_shared_splits,
            tuning=self.tuning,
            own_tuning=self.tuning,
        )
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

    def expected_THD(self) -> torch.Tensor:
        """float32"""
        tables_SM = self.table_RM[self.rows_S[: self.num_seqs].long()]
        starts = list(range(self.num_seqs + 1))
        q_THD = self.q_THD[: self.num_seqs].float()
        return paged_attention(
            q_THD, self.keys_BKND, self.values_BKND, tables_SM, starts, self.lengths, self.terms
        )

    def check(self, workspace: DecodeWorkspace, tolerance: float = 1e-5) -> None:
        expected_THD = self.expected_THD()
        error = (self.out_THD[: self.num_seqs].float() - expected_THD).norm() / expected_THD.norm()
        assert error < tolerance, f"off by {error:.2e}"
        assert self.out_THD[self.num_seqs :].isnan().all(), "a padded entry was written"
        assert not workspace.counters.any(), "a counter was left behind"
