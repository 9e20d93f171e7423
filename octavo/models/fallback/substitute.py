"""Our layers in the places of a skeleton's: linear products, RMS norms, the embedding.

Each keeps the outside of the module it stands for: three-dimensional inputs, and `weight` and `bias` as
checkpoints have them, for code that looks at them. Everything else of the model stays transformers'.

T tokens, V vocabulary, E width, I input width, O output width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from octavo.base.errors import ModelFileError
from octavo.layers.embedding import Embedding, TiedEmbedding
from octavo.layers.linear import Linear
from octavo.layers.norm import RMSNorm
from octavo.layers.placement import Placement


class LinearPart(nn.Module):
    """For nn.Linear."""

    def __init__(self, original: nn.Linear, placement: Placement) -> None:
        super().__init__()
        self.in_features, self.out_features = original.in_features, original.out_features
        self.linear = Linear(
            original.in_features, [original.out_features], bias=original.bias is not None, placement=placement
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., I] -> [..., O]"""
        y_TO = self.linear.forward(x.reshape(-1, self.in_features))
        return y_TO.view(*x.shape[:-1], self.out_features)

    @property
    def weight(self) -> torch.Tensor:
        """[O, I]"""
        return self.linear.product.as_stored(self.linear.weight)

    @property
    def bias(self) -> torch.Tensor | None:
        return self.linear.bias_O


class NormPart(nn.Module):
    """For a module that computes x / rms(x) * (w + offset)."""

    def __init__(self, width: int, *, epsilon: float, offset: float, placement: Placement) -> None:
        super().__init__()
        self.norm = RMSNorm(width, epsilon=epsilon, offset=offset, placement=placement)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm.forward(x.reshape(-1, x.shape[-1])).view(x.shape)

    @property
    def weight(self) -> torch.Tensor:
        """The checkpoint's weight plus the offset."""
        return self.norm.weight_E


class EmbeddingPart(nn.Module):
    """For nn.Embedding and its kin, which may do something with the rows they look up."""

    def __init__(self, original: nn.Embedding, table: Embedding | TiedEmbedding) -> None:
        super().__init__()
        self.table = table
        self.original: nn.Embedding | None = None
        if type(original) is not nn.Embedding:
            # Without rows of its own, but with whatever else it holds.
            rows_0E = torch.empty(0, original.embedding_dim, dtype=original.weight.dtype, device="meta")
            original.weight, original.padding_idx = nn.Parameter(rows_0E, requires_grad=False), None
            self.original = original

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """[..., T] -> [..., T, E]"""
        rows_TE = self.table.forward(token_ids.reshape(-1))
        return self.finish(rows_TE).view(*token_ids.shape, -1)

    def finish(self, rows_TE: torch.Tensor) -> torch.Tensor:
        """What the original makes of looked-up rows: it is run on a table that holds just them."""
        if self.original is None:
            return rows_TE
        places_T = torch.arange(len(rows_TE), device=rows_TE.device)
        finished: torch.Tensor = torch.func.functional_call(self.original, {"weight": rows_TE}, (places_T,))
        return finished

    @property
    def weight(self) -> torch.Tensor:
        """[V, E]"""
        if isinstance(self.table, TiedEmbedding):
            return self.table.head.product.as_stored(self.table.head.weight)
        return self.table.weight_VE


def substitute(skeleton: Any, placement: Placement) -> EmbeddingPart:
    """Put our layers, with room for weights where `placement` says, into the skeleton.

    Returns the embedding. Raises ModelFileError where embedding and head are of a kind that cannot be.
    """
    embedding, head = skeleton.get_input_embeddings(), skeleton.get_output_embeddings()
    if not isinstance(embedding, nn.Embedding) or type(head) is not nn.Linear:
        raise ModelFileError(
            f"transformers' {type(skeleton).__name__} cannot run here: its embedding is a "
            f"{type(embedding).__name__} and its head a {type(head).__name__}."
        )
    is_tied = head.weight is embedding.weight
    parts: dict[nn.Module, nn.Module] = {}
    modules: list[nn.Module] = list(skeleton.modules())
    for module in modules:
        if type(module) is nn.Linear and module.weight.dtype == placement.dtype:
            parts[module] = LinearPart(module, placement)
        elif (facts := rms_norm_facts(module)) is not None:
            weight_E, (epsilon, offset) = module.get_parameter("weight"), facts
            if weight_E.dtype == placement.dtype:
                parts[module] = NormPart(len(weight_E), epsilon=epsilon, offset=offset, placement=placement)
    new_head = parts.get(head)
    if not isinstance(new_head, LinearPart):
        raise ModelFileError(f"The head of {type(skeleton).__name__} is not in {placement.dtype}.")
    table = (
        TiedEmbedding(new_head.linear)
        if is_tied
        else Embedding(embedding.num_embeddings, embedding.embedding_dim, placement=placement)
    )
    new_embedding = parts[embedding] = EmbeddingPart(embedding, table)
    for module in modules:
        for name, child in dict(module.named_children()).items():
            if child in parts:
                setattr(module, name, parts[child])
    return new_embedding


def rms_norm_facts(module: nn.Module) -> tuple[float, float] | None:
    """(epsilon, offset of the weight) if the module is an RMS norm in what it computes; None if it is not.

    Found out by computing: on random numbers it must give what RMSNorm gives.
    """
    if next(module.children(), None) is not None or next(module.buffers(), None) is not None:
        return None
    names = [name for name, _ in module.named_parameters()]
    epsilon = getattr(module, "variance_epsilon", None) or getattr(module, "eps", None)
    weight = getattr(module, "weight", None)
    if names != ["weight"] or not isinstance(epsilon, float) or weight is None or weight.ndim != 1:
        return None
    generator = torch.Generator().manual_seed(1)
    x_TE = torch.randn(3, len(weight), generator=generator) * torch.tensor([[1e-3], [1.0], [30.0]])
    weight_E = torch.randn(len(weight), generator=generator)
    try:
        with torch.no_grad():
            computed_TE = torch.func.functional_call(module, {"weight": weight_E}, (x_TE,))
    except Exception:  # it wants to be called in another way
        return None
    normed_TE = x_TE * torch.rsqrt(x_TE.square().mean(-1, keepdim=True) + epsilon)
    for offset in (0.0, 1.0):
        if torch.allclose(computed_TE, normed_TE * (weight_E + offset), atol=1e-5, rtol=1e-4):
            return epsilon, offset
    return None
