"""Which experts a token goes to, and what each of them counts. T tokens, E width, X experts, K chosen.

How a family routes is data (`Routing`). What looks like further kinds is covered by it: softmax over the
chosen logits alone (GPT-OSS, Granite) is softmax over all, the chosen ones brought to a sum of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

import torch

from octavo.base.table import LazyTable
from octavo.ops.by_rows import by_rows
from octavo.ops.contract import Op

TINY = 1e-20
"""Added to a sum that is divided by: sigmoids may all be zero."""


class Scoring(StrEnum):
    """From logits to scores, the same for every expert that might be chosen."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Experts stand in groups, and only those of the best groups may be chosen (DeepSeek-V2, -V3)."""

    count: int
    num_chosen: int
    num_best: int
    """So many of its best experts' scores, added up, are a group's score."""


@dataclass(frozen=True, kw_only=True)
class Routing:
    num_chosen: int
    """K"""
    scoring: Scoring = Scoring.SOFTMAX
    is_normed: bool = True
    """Weights of the chosen add up to one."""
    factor: float = 1.0
    """What weights are multiplied with at the end."""
    groups: Groups | None = None


def choose_plain(
    logits_TX: torch.Tensor, choice_bias_X: torch.Tensor | None, routing: Routing
) -> tuple[torch.Tensor, torch.Tensor]:
    """From float32 logits to (experts int32 [T, K], weights float32 [T, K]), the best expert first.

    choice_bias: added to the scores to choose by, not to the weights.
    """
    scores_TX = _SCORINGS[routing.scoring](logits_TX)
    choice_TX = scores_TX if choice_bias_X is None else scores_TX + choice_bias_X
    if routing.groups is not None:
        choice_TX = _only_best_groups(choice_TX, routing.groups)
    chosen_TK = choice_TX.topk(routing.num_chosen, -1).indices
    weights_TK = scores_TX.gather(1, chosen_TK)
    if routing.is_normed:
        weights_TK = weights_TK / (weights_TK.sum(-1, keepdim=True) + TINY)
    return chosen_TK.int(), weights_TK * routing.factor


def _only_best_groups(choice_TX: torch.Tensor, groups: Groups) -> torch.Tensor:
    """The same with minus infinity outside of the best groups."""
    by_group_TGM = choice_TX.view(len(choice_TX), groups.count, -1)
    score_TG = by_group_TGM.topk(groups.num_best, -1).values.sum(-1)
    kept_TG = torch.zeros_like(score_TG, dtype=torch.bool)
    kept_TG.scatter_(1, score_TG.topk(groups.num_chosen, -1).indices, True)
    return by_group_TGM.masked_fill(~kept_TG[:, :, None], -torch.inf).flatten(1)


_SCORINGS: dict[Scoring, Callable[[torch.Tensor], torch.Tensor]] = {
    Scoring.SOFTMAX: lambda logits_TX: logits_TX.softmax(-1),
    Scoring.SIGMOID: partial(by_rows, torch.sigmoid),
}


def _plain(
    x_TE: torch.Tensor,
    weight_XE: torch.Tensor,
    bias_X: torch.Tensor | None,
    choice_bias_X: torch.Tensor | None,
    routing: Routing,
) -> tuple[torch.Tensor, torch.Tensor]:
    """choose_plain of the logits x @ W^T + bias, which are float32 whatever the others are."""
    bias_X = None if bias_X is None else bias_X.float()
    logits_TX = torch.nn.functional.linear(x_TE.float(), weight_XE.float(), bias_X)
    return choose_plain(logits_TX, choice_bias_X, routing)


def _examples() -> Iterator[tuple[Any, ...]]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    v2_groups, v3_groups = (Groups(count=4, num_chosen=2, num_best=best) for best in (1, 2))
    sigmoid = Routing(num_chosen=4, scoring=Scoring.SIGMOID, factor=2.5, groups=v3_groups)
    yield draw(1, 64), draw(8, 64), None, None, Routing(num_chosen=2)
    yield draw(5, 48), draw(12, 48), draw(12), None, Routing(num_chosen=3, is_normed=False)
    yield draw(19, 72), draw(16, 72), None, None, Routing(num_chosen=4, factor=1.5, groups=v2_groups)
    yield draw(17, 300), draw(24, 300) / 17, None, draw(24), sigmoid
    yield draw(3, 20), draw(5, 20), None, None, Routing(num_chosen=5)


route = Op(
    name="route",
    plain=_plain,
    providers=LazyTable("route provider", {"cuda": "octavo.ops.triton.routing:route"}),
    examples=_examples,
    tolerance=1e-5,
)
