"""Probe: a model of transformers is run once without numbers, and what its attention layers ask for is noted.

So that is known before any weight is read: how many calls of attention a step has, their heads, scales,
windows, caps and sinks. What paged attention cannot answer is refused here, with the reason.

T tokens, H query heads, K KV heads, D head width.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from octavo.base.errors import ModelFileError
from octavo.models.fallback.interface import MaskRule, answered_by, rule_of
from octavo.models.fallback.ropes import MOVING, held_still, tell_their_type

NUM_TOKENS = 3
FAR = 1 << 20
"""A position that no window reaches back from to the start."""
KNOWN = frozenset(
    {
        "dropout",
        "is_causal",
        "output_attentions",
        "position_ids",
        "cache_position",
        "sliding_window",
        "use_cache",
    }
)
"""Arguments of attention that are heeded elsewhere or change nothing of it when a model is served."""
OTHER_INPUTS = ("vision_config", "audio_config", "image_config", "speech_config")
OWN_ATTENTION = "it computes attention by itself, without transformers' interface for it"


@dataclass(frozen=True, kw_only=True)
class AttentionCall:
    """One call of attention in a step."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    window: int | None
    soft_cap: float | None
    sinks: nn.Parameter | None
    """A parameter of the model."""


@dataclass(frozen=True, kw_only=True)
class Probed:
    calls: list[AttentionCall]
    """In the order of a step."""
    hidden_size: int
    vocab_size: int


def probe(skeleton: Any) -> Probed:
    """Run a model that was built with the attention OBSERVED. Raises ModelFileError, saying why not."""
    refuse_class(skeleton)
    observer = Observer()
    tokens_1T = torch.zeros(1, NUM_TOKENS, dtype=torch.long, device="meta")
    try:
        with torch.no_grad(), torch.device("meta"), answered_by(observer), held_still(skeleton):
            # A mask of ones keeps transformers from looking at positions, which have no numbers here.
            hidden_1TE = skeleton.base_model(
                input_ids=tokens_1T,
                position_ids=tokens_1T,
                attention_mask=torch.ones_like(tokens_1T),
                use_cache=False,
            )[0]
    except ModelFileError:
        raise
    except Exception as error:  # whatever happens in a model's code
        raise _refusal(
            skeleton, f"its forward does not run without numbers ({_first_line(error)})"
        ) from error
    if not observer.calls:
        raise _refusal(skeleton, OWN_ATTENTION)
    embedding, head = skeleton.get_input_embeddings(), skeleton.get_output_embeddings()
    width, hidden_size = embedding.weight.shape[-1], hidden_1TE.shape[-1]
    if width != hidden_size:
        raise _refusal(skeleton, f"its embedding is {width} wide and its hidden states {hidden_size}")
    return Probed(calls=observer.calls, hidden_size=hidden_size, vocab_size=head.weight.shape[0])


def refuse_class(skeleton: Any) -> None:
    """Raise ModelFileError for what can be told from class and config alone."""
    config = skeleton.config
    text = config.get_text_config()
    if any(getattr(config, name, None) is not None for name in OTHER_INPUTS):
        raise _refusal(skeleton, "it takes pictures or sound beside text")
    kinds = set(getattr(text, "layer_types", None) or []) - {"full_attention", "sliding_attention"}
    if kinds:
        raise _refusal(skeleton, f"it has layers of the type {', '.join(sorted(map(str, kinds)))}")
    if skeleton._is_stateful:
        raise _refusal(skeleton, "it keeps a state of its own from token to token")
    if skeleton.base_model is skeleton or skeleton.get_output_embeddings() is None:
        raise _refusal(skeleton, "its class does not tell the layers from the head")
    if "position_ids" not in inspect.signature(skeleton.base_model.forward).parameters:
        raise _refusal(skeleton, "it counts positions itself (its forward has no position_ids)")
    ropes = rope_types(text)
    moving = [name for name in MOVING if name in ropes]
    if moving and not tell_their_type(skeleton):
        raise _refusal(
            skeleton, f"its rope ({moving[0]}) turns all tokens of a step by the length of the longest text"
        )


def rope_types(config: Any) -> set[str]:
    """All types of rope in a config of transformers, which has one or one for each type of layer."""
    ropes = getattr(config, "rope_parameters", None) or {}
    each = [value for value in ropes.values() if isinstance(value, dict)] or [ropes]
    return {str(rope.get("rope_type", "default")) for rope in each}


class Observer:
    """Answers attention with an empty tensor of the right shape."""

    def __init__(self) -> None:
        self.calls: list[AttentionCall] = []

    def __call__(
        self,
        module: nn.Module,
        q_1HTD: torch.Tensor,
        k_1KTD: torch.Tensor,
        v_1KTD: torch.Tensor,
        mask: torch.Tensor | None,
        **terms: Any,
    ) -> torch.Tensor:
        heads, width = q_1HTD.shape[1], q_1HTD.shape[3]
        kv_heads = k_1KTD.shape[1]
        if q_1HTD.shape[2] != NUM_TOKENS or k_1KTD.shape[2] != NUM_TOKENS:
            raise _refusal(
                module, f"{NUM_TOKENS} tokens make {q_1HTD.shape[2]} queries and {k_1KTD.shape[2]} keys"
            )
        if k_1KTD.shape != v_1KTD.shape:
            raise _refusal(module, f"its keys are {k_1KTD.shape[3]} wide and its values {v_1KTD.shape[3]}")
        if width % 2:
            raise _refusal(module, f"its heads are {width} wide, and only even widths are computed")
        if heads % kv_heads:
            raise _refusal(module, f"{heads} query heads do not share {kv_heads} KV heads evenly")
        sinks = terms.pop("s_aux", None)
        scale, soft_cap = terms.pop("scaling", None), terms.pop("softcap", None)
        unknown = [
            name
            for name, value in terms.items()
            if name not in KNOWN and value is not None and value is not False
        ]
        if unknown:
            raise _refusal(module, f"its attention takes {', '.join(unknown)}, which is unknown here")
        window = _window(module, mask, terms.get("is_causal"))
        stated = terms.get("sliding_window")
        if stated is not None and stated != window:
            raise _refusal(module, f"it states a window of {stated} tokens and masks by one of {window}")
        self.calls.append(
            AttentionCall(
                num_heads=heads,
                num_kv_heads=kv_heads,
                head_dim=width,
                scale=width**-0.5 if scale is None else float(scale),
                window=window,
                soft_cap=None if soft_cap is None else float(soft_cap),
                sinks=_parameter(module, sinks),
            )
        )
        return q_1HTD.new_empty(1, NUM_TOKENS, heads, width)


def _parameter(module: nn.Module, sinks: Any) -> nn.Parameter | None:
    if sinks is not None and not isinstance(sinks, nn.Parameter):
        raise _refusal(module, "its attention computes its sinks")
    return sinks


def _window(module: nn.Module, mask: torch.Tensor | None, is_causal: bool | None) -> int | None:
    """How many keys a query sees by the mask, its own included; None: all before it."""
    if mask is None:
        if getattr(module, "is_causal", False) and is_causal in (None, True):
            return None
        raise _refusal(module, "its tokens see those after them")
    rule = rule_of(mask)
    if rule is None:
        raise _refusal(module, "it computes a mask of its own for its attention")
    try:
        return window_of(rule)
    except ValueError as error:
        raise _refusal(module, str(error)) from None


def window_of(rule: MaskRule) -> int | None:
    """How many keys a query sees by a rule; None: all before it. Raises ValueError if it is another one."""
    strange = "its tokens see others by a rule that is neither 'all before' nor 'the last few'"
    zero = torch.tensor(0, device="cpu")

    def sees(query: int, key: int) -> bool:
        try:
            place = torch.tensor([query, key], device="cpu")
            return bool(rule(zero, zero, place[0], place[1]))
        except (RuntimeError, IndexError) as error:  # it depends on tokens, which have no numbers
            raise ValueError(strange) from error

    def sees_exactly(query: int, window: int | None) -> bool:
        first = 0 if window is None else max(0, query - window + 1)
        return (
            sees(query, query)
            and sees(query, first)
            and not sees(query, query + 1)
            and not (first and sees(query, first - 1))
        )

    if sees(0, 1):
        raise ValueError("its tokens see those after them")
    hidden, seen = -1, FAR
    while seen - hidden > 1:
        middle = (hidden + seen) // 2
        hidden, seen = (hidden, middle) if sees(FAR, middle) else (middle, seen)
    window = None if seen == 0 else FAR - seen + 1
    reach = window or 1
    if not all(sees_exactly(query, window) for query in (0, 1, reach, 2 * reach + 1, FAR)):
        raise ValueError(strange)
    return window


def _refusal(model: nn.Module, reason: str) -> ModelFileError:
    return refusal(type(model).__name__, reason)


def refusal(name: str, reason: str) -> ModelFileError:
    return ModelFileError(f"transformers' {name} cannot run on paged attention: {reason}.")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error).strip() else ''}"
