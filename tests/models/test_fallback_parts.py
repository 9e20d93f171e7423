"""Parts of the fallback: mask rules, tokens that meet, norms found by computing, embeddings, buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from octavo.base.errors import ModelFileError
from octavo.layers.placement import Placement
from octavo.models.contract import ModelInput
from octavo.models.fallback.apart import check_tokens_stay_apart, own_attention
from octavo.models.fallback.model import TransformersForCausalLM, observe
from octavo.models.fallback.probe import NUM_TOKENS, Observer, window_of
from octavo.models.fallback.substitute import rms_norm_facts, substitute
from tests.conformance.fallback import FALLBACK
from tests.models.test_fallback_refused import PLACEMENT, config_of

CPU = torch.device("cpu")


def made(family: str, **overrides: Any) -> TransformersForCausalLM:
    """With random weights."""
    model = TransformersForCausalLM(config_of(family, **overrides), PLACEMENT)
    generator = torch.Generator().manual_seed(1)
    for slot in model.weight_slots():
        slot.target.copy_(torch.randn(slot.target.shape, generator=generator) * 0.2)
    return model


def compute(model: TransformersForCausalLM, ids: list[int], given: bool = False) -> torch.Tensor:
    ids_T = torch.tensor(ids, dtype=torch.int32)
    return model.forward(
        ModelInput(
            token_ids_T=torch.zeros_like(ids_T) if given else ids_T,
            positions_T=torch.arange(len(ids), dtype=torch.int32),
            attend=own_attention,
            inputs_TE=model.embed(ids_T) if given else None,
        )
    )


# --- masks ----------------------------------------------------------------------------------------------


def test_windows_are_read_from_rules() -> None:
    from transformers.masking_utils import causal_mask_function, sliding_window_causal_mask_function

    assert window_of(causal_mask_function) is None
    for window in (1, 2, 24, 4096, 131072):
        assert window_of(sliding_window_causal_mask_function(window)) == window


def test_other_rules_are_refused() -> None:
    from transformers.masking_utils import (
        bidirectional_mask_function,
        causal_mask_function,
        chunked_causal_mask_function,
        or_masks,
        sliding_window_bidirectional_mask_function,
    )

    def prefix(batch: Any, head: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return key < 5

    def with_gap(batch: Any, head: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return (key <= query) & ((key > query - 8) | (key < 4))

    no_padding = torch.zeros(1, dtype=torch.long)
    for rule in (
        bidirectional_mask_function,
        sliding_window_bidirectional_mask_function(8),
        chunked_causal_mask_function(8, no_padding),
        or_masks(causal_mask_function, prefix),
        with_gap,
    ):
        with pytest.raises(ValueError, match="its tokens see"):
            window_of(rule)


# --- calls of attention ---------------------------------------------------------------------------------


class Causal(nn.Module):
    is_causal = True


def observed(
    heads: tuple[int, int, int] = (4, 2, 8),
    keys: int = NUM_TOKENS,
    module: nn.Module | None = None,
    **terms: Any,
) -> Any:
    """What is noted of one call with (query heads, KV heads, width)."""
    observer = Observer()
    q_1HTD = torch.empty(1, heads[0], NUM_TOKENS, heads[2])
    k_1KTD = torch.empty(1, heads[1], keys, heads[2])
    observer(module or Causal(), q_1HTD, k_1KTD, k_1KTD, None, **terms)
    return observer.calls[0]


def test_what_is_noted_of_a_call() -> None:
    sinks = nn.Parameter(torch.zeros(4))
    call = observed(scaling=0.5, softcap=30.0, s_aux=sinks, dropout=0.0, alibi=None, use_cache=False)
    assert (call.num_heads, call.num_kv_heads, call.head_dim, call.window) == (4, 2, 8, None)
    assert (call.scale, call.soft_cap, call.sinks is sinks) == (0.5, 30.0, True)
    assert observed().scale == 8**-0.5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"keys": 5}, "3 tokens make 3 queries and 5 keys"),
        ({"heads": (4, 3, 8)}, "4 query heads do not share 3 KV heads evenly"),
        ({"heads": (4, 2, 7)}, "heads are 7 wide"),
        ({"sliding_window": 9}, "states a window of 9 tokens and masks by one of None"),
        ({"s_aux": torch.zeros(4)}, "computes its sinks"),
        ({"alibi": torch.zeros(4)}, "takes alibi, which is unknown here"),
        ({"temperature": 2.0}, "takes temperature, which is unknown here"),
        ({"is_causal": False}, "tokens see those after them"),
        ({"module": nn.Identity()}, "tokens see those after them"),
    ],
)
def test_calls_that_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelFileError) as error:
        observed(**arguments)
    assert words in error.value.message


# --- tokens that meet -----------------------------------------------------------------------------------


def check_apart(compute: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    check_tokens_stay_apart("Some", compute, vocab_size=50, dtype=torch.float32, device=CPU)


def test_tokens_that_stay_apart_pass() -> None:
    check_apart(lambda ids_T, positions_T: (ids_T * 3 + positions_T).float()[:, None])


@pytest.mark.parametrize(
    "mixes",
    [
        lambda ids_T, positions_T: ids_T.cumsum(0).float()[:, None],
        lambda ids_T, positions_T: (ids_T + ids_T.roll(1)).float()[:, None],
        lambda ids_T, positions_T: (ids_T + torch.arange(len(ids_T))).float()[:, None],
    ],
    ids=["a state", "a convolution", "positions of its own"],
)
def test_tokens_that_meet_are_refused(mixes: Callable[..., torch.Tensor]) -> None:
    with pytest.raises(ModelFileError, match="outside of attention"):
        check_apart(mixes)


def test_a_forward_that_fails_is_refused() -> None:
    def fails(ids_T: torch.Tensor, positions_T: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such thing")

    with pytest.raises(ModelFileError, match="no such thing"):
        check_apart(fails)


def test_a_model_whose_layers_look_at_neighbours_is_refused_when_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers.models.cohere.modeling_cohere import CohereMLP

    model = made("cohere")
    model.verify()
    plain = CohereMLP.forward
    monkeypatch.setattr(CohereMLP, "forward", lambda self, x: plain(self, x + x.roll(1, dims=1)))
    with pytest.raises(ModelFileError, match="outside of attention"):
        model.verify()


# --- what is put in the places --------------------------------------------------------------------------


def test_linear_layers_and_norms_are_ours() -> None:
    model = made("ernie4_5")
    names = [type(module).__name__ for module in model.body.modules()]
    assert not any(type(module) is nn.Linear for module in model.modules())
    assert names.count("LinearPart") == 3 * 7
    assert names.count("NormPart") == 2 * 3 + 1


def test_norms_are_told_by_what_they_compute() -> None:
    from transformers.models.cohere.modeling_cohere import CohereLayerNorm
    from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    assert rms_norm_facts(LlamaRMSNorm(24, eps=1e-5)) == (1e-5, 0.0)
    assert rms_norm_facts(GemmaRMSNorm(24, eps=1e-6)) == (1e-6, 1.0)
    assert rms_norm_facts(nn.RMSNorm(24, eps=1e-5)) == (1e-5, 0.0)
    assert rms_norm_facts(CohereLayerNorm(24, eps=1e-5)) is None
    assert rms_norm_facts(nn.LayerNorm(24)) is None
    assert rms_norm_facts(nn.Linear(24, 24, bias=False)) is None


@pytest.mark.parametrize("family", ["gemma3_text", "gemma2", "cohere", "biogpt"])
def test_given_inputs_are_rows_of_the_checkpoint(family: str) -> None:
    """Whether a model scales them in its embedding (Gemma 3) or behind it (Gemma 2), or is tied or not."""
    model = made(family, scale_embedding=True) if family == "biogpt" else made(family)
    ids = [3, 50, 7]
    slots = {slot.name: slot.target for slot in model.weight_slots()}
    table_VE = next(target for name, target in slots.items() if "embed_tokens" in name)
    assert torch.equal(model.embed(torch.tensor(ids)), table_VE[ids])
    torch.testing.assert_close(compute(model, ids, given=True), compute(model, ids))


def test_a_head_of_another_make_is_refused() -> None:
    skeleton, _ = observe(config_of("cohere"), torch.float32)
    skeleton.lm_head = nn.Sequential(skeleton.lm_head)
    with pytest.raises(ModelFileError, match="its embedding is a Embedding and its head a Sequential"):
        substitute(skeleton, PLACEMENT)


def test_experts_lie_in_the_checkpoint_one_by_one() -> None:
    """Names and shapes of the hub, and each of them a view of the one tensor that is computed with."""
    model = made("olmoe", num_experts=5, num_experts_per_tok=2, head_dim=8)
    slots = {slot.name: slot.target for slot in model.weight_slots()}
    gate = slots["model.layers.1.mlp.experts.4.gate_proj.weight"]
    assert gate.shape == (88, 48)
    gate.fill_(7.0)
    experts = model.body.get_submodule("layers.1.mlp.experts")
    assert (experts.gate_up_proj[4, :88] == 7.0).all()
    assert not (experts.gate_up_proj[4, 88:] == 7.0).any()


def test_tables_that_are_no_weights_are_computed() -> None:
    model = made("gemma3_text")
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            assert buffer.device == CPU and not buffer.isnan().any(), name


def test_a_buffer_that_nobody_computes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.cohere.modeling_cohere import CoherePreTrainedModel

    monkeypatch.setattr(CoherePreTrainedModel, "_init_weights", lambda self, module: None)
    with pytest.raises(ModelFileError, match="inv_freq"):
        made("cohere")


@pytest.mark.parametrize("family", ["cohere", "gemma3_text"])
def test_half_precision_computes_much_the_same(family: str) -> None:
    exact, half = (
        TransformersForCausalLM(config_of(family), Placement(dtype=dtype, device=CPU, max_positions=64))
        for dtype in (torch.float32, torch.bfloat16)
    )
    generator = torch.Generator().manual_seed(1)
    for one, other in zip(exact.weight_slots(), half.weight_slots(), strict=True):
        one.target.copy_(torch.randn(one.target.shape, generator=generator) * 0.2)
        other.target.copy_(one.target)
    half.verify()
    a_TE, b_TE = compute(exact, [3, 50, 7]), compute(half, [3, 50, 7])
    assert b_TE.dtype == torch.bfloat16
    torch.testing.assert_close(b_TE.float(), a_TE, atol=0.1, rtol=0.1)
    assert {tensor.dtype for name, tensor in half.named_parameters() if "norm" not in name} == {
        torch.bfloat16
    }


@pytest.mark.parametrize(
    ("family", "kept"),
    [
        ("dots1", ["layers.1.mlp.gate.weight", "layers.1.mlp.gate.e_score_correction_bias"]),
        ("gpt_oss", ["layers.0.self_attn.sinks"]),
    ],
)
def test_what_stays_in_float32(family: str, kept: list[str]) -> None:
    """What transformers says of routers, and what attention says of sinks."""
    experts = {"num_local_experts": 6, "num_experts_per_tok": 2, "intermediate_size": 20}
    overrides = FALLBACK["dots1"][1] if family == "dots1" else experts
    placement = Placement(dtype=torch.bfloat16, device=CPU, max_positions=64)
    model = TransformersForCausalLM(config_of(family, **overrides), placement)
    tensors = model.body.state_dict()
    assert [tensors[name].dtype for name in kept] == [torch.float32] * len(kept)
    for slot in model.weight_slots():
        slot.target.normal_(0.0, 0.2)
    model.verify()
    for layer in model.layers:
        sinks_H = layer.terms.sinks_H
        assert (sinks_H is None) is (family == "dots1")
        assert sinks_H is None or (sinks_H.dtype == torch.float32 and sinks_H.abs().sum() > 0)
