"""TransformersForCausalLM: any causal language model of transformers, on paged attention.

The model's own modules run, built from its config without any remote code; what they do with each other is
theirs. Ours are attention and what substitute.py puts in the places of some of them.

T tokens, S positions that want logits, E width, V vocabulary, H query heads, K KV heads, D head width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from octavo.attention.contract import Attend, AttentionLayer
from octavo.base.errors import ConfigError, ModelFileError
from octavo.layers.placement import Placement
from octavo.layers.slot import WeightSlot
from octavo.messages.kv import KVKind, KVSpec
from octavo.models.contract import ModelInput
from octavo.models.fallback.apart import check_tokens_stay_apart, own_attention
from octavo.models.fallback.fill import fill
from octavo.models.fallback.interface import OBSERVED, PAGED, answered_by, register
from octavo.models.fallback.probe import OWN_ATTENTION, AttentionCall, Probed, probe, refusal
from octavo.models.fallback.ropes import fix_ropes
from octavo.models.fallback.substitute import NormPart, substitute
from octavo.ops.paged_plain import AttentionTerms
from octavo.weights.skeleton import build_skeleton, class_name, stored_tensors


class TransformersForCausalLM(nn.Module):
    """The body computes hidden states. For logits the whole class runs once more, on a body that returns
    them as they are: so the head, its scale and its cap are the class's own, whatever they may be.
    """

    def __init__(self, config: Mapping[str, Any], placement: Placement) -> None:
        super().__init__()
        if placement.deterministic:
            raise ConfigError(
                "deterministic is for Octavo's own models; this one is computed by transformers, and its "
                "numbers may depend on how many tokens a step has. Leave it out.",
                param="deterministic",
            )
        self.whole, probed = observe(config, placement.dtype)
        self.whole.config._attn_implementation = PAGED
        self.vocab_size, self.hidden_size = probed.vocab_size, probed.hidden_size
        self.num_heads = max(call.num_heads for call in probed.calls)
        self._calls = probed.calls
        self._placement = placement
        self._names = list(self.whole.state_dict())
        sinks = [self._name_of(call.sinks) for call in probed.calls]
        self.embedding = substitute(self.whole, placement)
        fill(self.whole, placement)
        fix_ropes(self.whole, placement)
        for name in sinks:
            if name is not None:
                self._use_float32(name)
        self.layers = [
            attention_layer(index, call, None if name is None else self._find(name))
            for index, (call, name) in enumerate(zip(probed.calls, sinks, strict=True))
        ]
        self.body = self.whole.base_model
        self.given = GivenHidden()
        setattr(self.whole, self.whole.base_model_prefix, self.given)
        self.requires_grad_(False)

    def weight_slots(self) -> list[WeightSlot]:
        with self._body_in_place():
            tensors = {name: self._find(name) for name in self._names}
            stored = stored_tensors(self.whole, tensors)
            offsets = {
                _memory(module.weight): module.norm.offset
                for module in self.whole.modules()
                if isinstance(module, NormPart)
            }
        return [
            WeightSlot(name=name, target=target, offset=offsets.get(_memory(target), 0.0))
            for name, target in stored.items()
        ]

    def kv_layers(self) -> list[KVSpec]:
        return [
            KVSpec(
                kind=KVKind.FULL if call.window is None else KVKind.SLIDING_WINDOW,
                num_kv_heads=call.num_kv_heads,
                head_dim=call.head_dim,
                dtype_bytes=self._placement.dtype.itemsize,
                window=call.window,
                has_plain_softmax=call.soft_cap is None and call.sinks is None,
            )
            for call in self._calls
        ]

    def verify(self) -> None:
        """See apart.py."""

        @torch.inference_mode()
        def compute(ids_T: torch.Tensor, positions_T: torch.Tensor) -> torch.Tensor:
            step = ModelInput(token_ids_T=ids_T, positions_T=positions_T, attend=own_attention)
            return self.logits(self.forward(step))

        check_tokens_stay_apart(
            type(self.whole).__name__,
            compute,
            vocab_size=self.vocab_size,
            dtype=self._placement.dtype,
            device=self._placement.device,
        )

    def embed(self, token_ids_T: torch.Tensor) -> torch.Tensor:
        return self.embedding.table.forward(token_ids_T)

    def forward(self, batch: ModelInput) -> torch.Tensor:
        given_TE = batch.inputs_TE
        inputs = (
            {"input_ids": batch.token_ids_T.long()[None]}
            if given_TE is None
            else {"inputs_embeds": self.embedding.finish(given_TE)[None]}
        )
        with answered_by(PagedAnswer(self.layers, batch.attend, self._placement.dtype)):
            outputs = self.body(**inputs, position_ids=batch.positions_T.long()[None], use_cache=False)
        hidden_1TE: torch.Tensor = outputs[0]
        return hidden_1TE[0]

    def logits(self, hidden_SE: torch.Tensor) -> torch.Tensor:
        self.given.hidden_1SE = hidden_SE[None]
        logits_1SV: torch.Tensor = self.whole(inputs_embeds=hidden_SE[None], use_cache=False).logits
        self.given.hidden_1SE = None
        return logits_1SV[0]

    @contextmanager
    def _body_in_place(self) -> Iterator[None]:
        """transformers' code that looks at the model from outside wants it in one piece."""
        setattr(self.whole, self.whole.base_model_prefix, self.body)
        try:
            yield
        finally:
            setattr(self.whole, self.whole.base_model_prefix, self.given)

    def _find(self, name: str) -> torch.Tensor:
        """A tensor by its name in the skeleton; our layers have it under the same."""
        path, _, leaf = name.rpartition(".")
        tensor: torch.Tensor = getattr(self.whole.get_submodule(path), leaf)
        return tensor

    def _name_of(self, wanted: nn.Parameter | None) -> str | None:
        if wanted is None:
            return None
        named: Iterator[tuple[str, nn.Parameter]] = self.whole.named_parameters()
        return next(name for name, parameter in named if parameter is wanted)

    def _use_float32(self, name: str) -> None:
        """Attention takes sinks in it, and from the same memory that the checkpoint goes to."""
        self._find(name).data = self._find(name).float()


class GivenHidden(nn.Module):
    """In the body's place: gives the hidden states that are there already."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden_1SE: torch.Tensor | None = None

    @property
    def decoder(self) -> GivenHidden:
        """Some heads call what is inside of the body (OPT)."""
        return self

    def forward(self, *_: Any, **__: Any) -> GivenOutputs:
        assert self.hidden_1SE is not None, "logits has set it"
        return GivenOutputs(self.hidden_1SE)


class GivenOutputs:
    """As much of a transformers ModelOutput as heads look at: the hidden states; all else is None."""

    def __init__(self, hidden_1SE: torch.Tensor) -> None:
        self.last_hidden_state = hidden_1SE

    def __getitem__(self, index: int) -> torch.Tensor:
        return (self.last_hidden_state,)[index]

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


class PagedAnswer:
    """Answers the attention calls of one step, in their order."""

    def __init__(self, layers: list[AttentionLayer], attend: Attend, dtype: torch.dtype) -> None:
        self._layers = iter(layers)
        self._attend = attend
        self._dtype = dtype

    def __call__(
        self,
        module: nn.Module,  # noqa: ARG002
        q_1HTD: torch.Tensor,
        k_1KTD: torch.Tensor,
        v_1KTD: torch.Tensor,
        mask: torch.Tensor | None,  # noqa: ARG002
        **terms: Any,  # noqa: ARG002
    ) -> torch.Tensor:
        """[1, T, H, D]. Heads come rotated and normed, as the model does it."""
        layer = next(self._layers)
        heads = [heads_1NTD[0].transpose(0, 1).to(self._dtype) for heads_1NTD in (q_1HTD, k_1KTD, v_1KTD)]
        out_TO = self._attend(layer, torch.cat(heads, 1).flatten(1))
        return out_TO.view(1, len(out_TO), layer.num_heads, layer.head_dim)


def observe(config: Mapping[str, Any], dtype: torch.dtype) -> tuple[Any, Probed]:
    """A model of transformers without numbers, and what it asks of attention. Raises ModelFileError."""
    register()
    try:
        skeleton = build_skeleton(
            config, dtype=str(dtype).removeprefix("torch."), attention=OBSERVED, experts=PAGED
        )
    except ModelFileError as error:
        if isinstance(error.__cause__, KeyError) and error.__cause__.args == (OBSERVED,):
            raise refusal(str(class_name(config)), OWN_ATTENTION) from error
        raise
    return skeleton, probe(skeleton)


def attention_layer(index: int, call: AttentionCall, sinks_H: torch.Tensor | None) -> AttentionLayer:
    """What the model asked for, as backends want to know it."""
    return AttentionLayer(
        index=index,
        num_heads=call.num_heads,
        num_kv_heads=call.num_kv_heads,
        head_dim=call.head_dim,
        terms=AttentionTerms(scale=call.scale, window=call.window, soft_cap=call.soft_cap, sinks_H=sinks_H),
        rotation_PD=None,
        q_norm_D=None,
        k_norm_D=None,
        norm_epsilon=0.0,
    )


def _memory(tensor: torch.Tensor) -> int:
    """The same for all views of a tensor."""
    return int(tensor.untyped_storage()._cdata)
