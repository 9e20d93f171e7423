"""Steps over latent rows, made up for tests: NaN in the pages wherever no sequence has written."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from octavo.ops.paged_plain import AttentionTerms, paged_attention
from octavo.ops.triton.latent_chunks import latent_chunks
from octavo.ops.triton.latent_decode import latent_decode
from octavo.ops.triton.latent_states import LatentTile, head_blocks
from octavo.ops.triton.paged_decode_workspace import DecodeWorkspace

SCALE = 0.1


@dataclass
class LatentCase:
    """sequences: (tokens before, tokens now) of each, those with one token now first."""

    sequences: list[tuple[int, int]]
    num_heads: int = 4
    latent: int = 20
    rotated: int = 6
    block_size: int = 4
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    num_sms: int | None = None
    tile: LatentTile | None = None
    pages_BNW: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator(self.device).manual_seed(len(self.sequences))

        def draw(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, device=self.device).to(self.dtype)

        self.lengths = [sum(sequence) for sequence in self.sequences]
        self.starts = [0]
        for _, now in self.sequences:
            self.starts.append(self.starts[-1] + now)
        self.num_singles = sum(now == 1 for _, now in self.sequences)
        blocks = [-(-length // self.block_size) for length in self.lengths]
        ids = 1 + torch.randperm(sum(blocks), generator=generator, device=self.device).int()
        self.pages_BNW = draw(1 + len(ids), self.block_size, self.latent + self.rotated)
        self.pages_BNW[0] = float("nan")  # belongs to nobody
        num_rows = len(self.sequences) + 3
        self.table_RM = torch.zeros(num_rows, max(blocks) + 5, dtype=torch.int32, device=self.device)[:, :-5]
        self.rows_S = torch.randperm(num_rows, generator=generator, device=self.device)[:-2].int()
        for row, length, own in zip(self.rows_S, self.lengths, ids.split(blocks), strict=False):
            self.table_RM[row, : len(own)] = own
            if length % self.block_size:
                self.pages_BNW[own[-1], length % self.block_size :] = float("nan")
        num_tokens = self.starts[-1]
        self.q_THC = draw(num_tokens, self.num_heads, self.latent)
        # The rotated columns lie in wider rows.
        self.q_THR = draw(num_tokens, self.num_heads, 5 + self.rotated)[..., 5:]
        self.out_THC = torch.full_like(self.q_THC, float("nan"))

    def ints(self, *values: int) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int32, device=self.device)

    @property
    def counts(self) -> torch.Tensor:
        return self.ints(self.num_singles, len(self.sequences), self.starts[-1], 0, len(self.sequences))

    def workspace(self, num_splits: int | None = None) -> DecodeWorkspace:
        workspace = DecodeWorkspace.allocate(
            max_seqs=max(self.num_singles + 1, 1),
            num_heads=self.num_heads,
            num_kv_heads=head_blocks(self.num_heads),
            head_dim=self.latent,
            device=torch.device(self.device),
            num_sms=self.num_sms,
            num_splits=num_splits,
        )
        workspace.accs.fill_(float("nan"))
        workspace.stats.fill_(float("nan"))
        return workspace

    def decode(
        self,
        *,
        num_splits: int | None = None,
        split_tokens: int = 16,
        workspace: DecodeWorkspace | None = None,
        lengths_S: torch.Tensor | None = None,
        counts: torch.Tensor | None = None,
    ) -> None:
        """One sequence more than there are is announced. Lengths and counts: for a graph to read."""
        latent_decode(
            self.q_THC,
            self.q_THR,
            self.pages_BNW,
            self.table_RM,
            self.rows_S,
            self.ints(*self.lengths, 1) if lengths_S is None else lengths_S,
            self.counts if counts is None else counts,
            self.out_THC,
            SCALE,
            num_seqs=self.num_singles + 1,
            workspace=workspace or self.workspace(num_splits),
            num_splits=num_splits,
            split_tokens=split_tokens,
            tile=self.tile,
        )

    def chunks(self, *, singles_too: bool = False) -> None:
        """Upper bounds are generous, and behind the step's own entries stands what must not be touched."""
        latent_chunks(
            self.q_THC,
            self.q_THR,
            self.pages_BNW,
            self.table_RM,
            self.rows_S,
            self.ints(*self.starts, 1 << 30, 0),
            self.ints(*self.lengths, 1 << 30, 1 << 30),
            self.counts,
            self.out_THC,
            SCALE,
            max_tokens=self.starts[-1] + 5,
            max_seqs=len(self.sequences) + 1,
            singles_too=singles_too,
            tile=self.tile,
        )

    def expected_THC(self) -> torch.Tensor:
        """float32"""
        pages_BKNW = self.pages_BNW[:, None]
        return paged_attention(
            torch.cat((self.q_THC, self.q_THR), -1).float(),
            pages_BKNW,
            pages_BKNW[..., : self.latent],
            self.table_RM[self.rows_S.long()],
            self.starts,
            self.lengths,
            AttentionTerms(scale=SCALE),
        )

    def check(self, tokens: slice, tolerance: float = 1e-5) -> None:
        """These are right and no others were written."""
        found, expected = self.out_THC[tokens].float(), self.expected_THC()[tokens]
        error = (found - expected).norm() / expected.norm()
        assert error < tolerance, f"off by {error:.2e}"
        others = torch.ones(self.starts[-1], dtype=torch.bool, device=self.device)
        others[tokens] = False
        assert self.out_THC[others].isnan().all(), "a token of another kernel was written"
