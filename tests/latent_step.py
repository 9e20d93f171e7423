"""A step of a latent layer, made up for tests, and its attention with every head's keys and values."""

from __future__ import annotations

import random
from typing import Any

import torch

from octavo.attention.contract import PageLayout
from octavo.attention.latents import LatentLayer, LatentShape
from octavo.attention.step_view import HostView, StepView
from octavo.ops.head_product import head_product
from octavo.ops.paged_plain import AttentionTerms

MAX_SEQS = 8


def layout_of(
    shape: LatentShape, block_size: int = 4, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> PageLayout:
    return PageLayout(
        block_size=block_size,
        rows_per_page=block_size,
        num_kv_heads=1,
        head_dim=shape.row,
        value_dim=shape.latent,
        window=None,
        dtype=dtype,
        device=torch.device(device),
    )


class LatentStep:
    """sequences: (tokens before, tokens now), single tokens first. Pages are NaN where nothing is written."""

    def __init__(
        self,
        sequences: list[tuple[int, int]],
        shape: LatentShape,
        *,
        num_heads: int = 3,
        block_size: int = 4,
        num_long: int = 0,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> None:
        """num_long: so many of the last sequences are long prompts to the backend."""
        generator = torch.Generator(device).manual_seed(len(sequences))

        def draw(*sizes: int, as_type: torch.dtype = dtype) -> torch.Tensor:
            return torch.randn(*sizes, generator=generator, device=device).to(as_type)

        self.shape, self.num_heads = shape, num_heads
        self.layout = layout_of(shape, block_size, dtype, device)
        self.layer = LatentLayer(
            index=0,
            num_heads=num_heads,
            num_kv_heads=1,
            head_dim=shape.query,
            terms=AttentionTerms(scale=0.3 if shape.latent < 100 else shape.query**-0.5),
            rotation_PD=draw(max(map(sum, sequences)), shape.rotated, as_type=torch.float32),
            q_norm_D=None,
            k_norm_D=draw(shape.latent),
            norm_epsilon=1e-6,
            shape=shape,
            up_HUC=draw(num_heads, shape.nope + shape.value, shape.latent) / shape.latent**0.5,
            multiply=head_product.plain,
        )
        lengths = [sum(sequence) for sequence in sequences]
        self.starts = [0]
        for _, now in sequences:
            self.starts.append(self.starts[-1] + now)
        needed = [-(-length // block_size) for length in lengths]
        free = list(range(1, 1 + sum(needed)))
        random.Random(len(free)).shuffle(free)
        table_RM = torch.full((MAX_SEQS, max(needed)), 1 << 30, dtype=torch.int32)
        self.past: list[torch.Tensor] = []
        flat = torch.full(((1 + sum(needed)) * block_size, shape.row), torch.nan, dtype=dtype, device=device)
        slots: list[int] = []
        for i, ((before, now), count) in enumerate(zip(sequences, needed, strict=True)):
            blocks = [free.pop() for _ in range(count)]
            table_RM[i, :count] = torch.tensor(blocks)
            places = [blocks[p // block_size] * block_size + p % block_size for p in range(before + now)]
            self.past.append(draw(before, shape.row))
            flat[places[:before]] = self.past[-1]
            slots += places[before:]
        self.pages = self.layout.pages(flat)
        self.qkv_TO = draw(self.starts[-1], num_heads * shape.query + shape.row)
        num_singles = sum(now == 1 for _, now in sequences)
        num_paged = len(sequences) - num_long

        def ints(values: list[int]) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.int32, device=device)

        self.view = StepView(
            host=HostView(query_starts=self.starts, lengths=lengths, num_paged=num_paged),
            num_tokens=self.starts[-1],
            num_seqs=len(sequences),
            num_singles=num_singles,
            has_chunks=num_singles < len(sequences),
            shares_prefix=False,
            counts=ints([num_singles, num_paged, self.starts[-1], 0, len(sequences)]),
            rows_S=ints(list(range(len(sequences)))),
            starts_S1=ints(self.starts),
            lengths_S=ints(lengths),
            positions_T=ints([p for before, now in sequences for p in range(before, before + now)]),
            slots_T=ints(slots),
            table_RM=table_RM.to(device),
        )

    def expected(self) -> torch.Tensor:
        """[T, H * V] in float32"""
        layer, shape = self.layer, self.shape
        assert layer.rotation_PD is not None and layer.k_norm_D is not None
        cos_TR, sin_TR = layer.rotation_PD[self.view.positions_T.long()].chunk(2, -1)

        def turn(x: torch.Tensor) -> torch.Tensor:
            first, second = x.chunk(2, -1)
            return torch.cat((first * cos_TR - second * sin_TR, second * cos_TR + first * sin_TR), -1)

        q_TO, rows_TW = self.qkv_TO.float().split((self.num_heads * shape.query, shape.row), -1)
        latents_TC = torch.nn.functional.rms_norm(
            rows_TW[:, : shape.latent], (shape.latent,), layer.k_norm_D.float(), 1e-6
        )
        rows_TW = torch.cat((latents_TC, turn(rows_TW[:, shape.latent :])), -1)
        q_HTD = q_TO.view(-1, self.num_heads, shape.query).transpose(0, 1)
        q_HTD = torch.cat((q_HTD[..., : shape.nope], turn(q_HTD[..., shape.nope :])), -1)
        outs = []
        for past_LW, start, end in zip(self.past, self.starts, self.starts[1:], strict=False):
            rows_LW = torch.cat((past_LW.float(), rows_TW[start:end]))
            up_HLU = torch.einsum("lc,huc->hlu", rows_LW[:, : shape.latent], layer.up_HUC.float())
            nope_HLN, v_HLV = up_HLU.split((shape.nope, shape.value), -1)
            rotated_HLR = rows_LW[:, shape.latent :].expand(self.num_heads, -1, -1)
            k_HLD = torch.cat((nope_HLN, rotated_HLR), -1)
            scores_HTL = q_HTD[:, start:end] @ k_HLD.transpose(1, 2) * layer.terms.scale
            hidden_TL = torch.ones_like(scores_HTL[0]).triu(1 + len(past_LW)).bool()
            weights_HTL = scores_HTL.masked_fill(hidden_TL, -torch.inf).softmax(-1)
            outs.append((weights_HTL @ v_HLV).transpose(0, 1).flatten(1))
        return torch.cat(outs)

    def check(self, backend: Any, tolerance: float = 1e-5) -> None:
        self.check_plan(backend.plan(self.view), tolerance)

    def check_plan(self, plan: Any, tolerance: float = 1e-5) -> None:
        expected_TO = self.expected()
        found_TO = plan.run(self.layer, self.qkv_TO.clone(), self.pages)
        assert found_TO.shape[1] == self.layer.out_width
        error = (found_TO.float() - expected_TO).norm() / expected_TO.norm()
        assert error < tolerance, f"off by {error:.1e}"
