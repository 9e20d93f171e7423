"""A decoder's layers as structs, for the native kernels to run all of them in one call.

Families whose layers are a DecoderLayer or a BranchLayer between an embedding and a last norm can be told in
this way. Others run one operation after the other, with the same kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import Array

import torch

from octavo.attention.backends.native import heads_struct, pages_struct
from octavo.attention.contract import PageLayout, Pages
from octavo.layers.attention import SelfAttention
from octavo.layers.linear import Linear
from octavo.layers.mlp import Gate, GatedMLP
from octavo.layers.native_product import NativeProduct
from octavo.layers.norm import RMSNorm
from octavo.models.blocks.branch import BranchLayer
from octavo.models.blocks.decoder import DecoderLayer
from octavo.models.contract import Backbone
from octavo.models.llama import LlamaForCausalLM
from octavo.ops.cpu.engine import linear_struct
from octavo.ops.cpu.structs import LayerStruct, LinearStruct, NormStruct

GATES = {Gate.SILU: 0, Gate.GELU_TANH: 1}
MAX_PARTS = 3
"""Matrices of one linear layer that the kernels take."""


def as_native(model: Backbone) -> LlamaForCausalLM | None:
    """The model, if `native_layers` can tell it."""
    if not isinstance(model, LlamaForCausalLM) or type(model).forward is not LlamaForCausalLM.forward:
        return None
    if not all(type(block) in (DecoderLayer, BranchLayer) and _is_plain(block) for block in model.blocks):
        return None
    return model if len({_widths(block) for block in model.blocks}) == 1 else None


def _is_plain(block: DecoderLayer | BranchLayer) -> bool:
    attention, mlp = block.attention, block.mlp
    if type(attention) is not SelfAttention or type(mlp) is not GatedMLP or mlp.gate not in GATES:
        return False
    linears = (attention.qkv, attention.out, mlp.gate_up, mlp.down)
    return (
        not attention.whole_norms
        and attention.clip is None
        and all(isinstance(linear.product, NativeProduct) for linear in linears)
    )


def _widths(block: DecoderLayer | BranchLayer) -> tuple[torch.Size, ...]:
    """Layers share the memory of a step, so they must be of one size."""
    attention, mlp = block.attention, block.mlp
    assert isinstance(attention, SelfAttention) and isinstance(mlp, GatedMLP), "asked before"
    return tuple(linear.weight.shape for linear in (attention.qkv, attention.out, mlp.gate_up, mlp.down))


def native_layers(
    model: LlamaForCausalLM, pages: Sequence[Pages], layouts: Sequence[PageLayout], groups: Sequence[int]
) -> Array[LayerStruct]:
    """A C array; the model and the pages must outlive it. `pages` and `groups` are by layer."""
    structs = (LayerStruct * len(model.blocks))()
    for index, block in enumerate(model.blocks):
        assert isinstance(block, DecoderLayer | BranchLayer), "asked before"
        _fill(structs[index], block)
        group = groups[index]
        structs[index].pages = pages_struct(pages[index], layouts[group])
        structs[index].group = group
    return structs


def norm_struct(norm: RMSNorm | None) -> NormStruct:
    if norm is None:
        return NormStruct(None, 0.0)
    assert norm.weight_E.dtype == torch.float32, "native kernels compute in float32"
    return NormStruct(norm.weight_E.data_ptr(), norm.epsilon)


def _fill(struct: LayerStruct, block: DecoderLayer | BranchLayer) -> None:
    struct.branch_factor = 1.0
    if isinstance(block, DecoderLayer):
        struct.before_attention = norm_struct(block.attention_norm)
        struct.before_mlp = norm_struct(block.mlp_norm)
    else:
        struct.before_attention = norm_struct(block.before_attention)
        struct.after_attention = norm_struct(block.after_attention)
        struct.before_mlp = norm_struct(block.before_mlp)
        struct.after_mlp = norm_struct(block.after_mlp)
        if block.factor is not None:
            struct.branch_factor = block.factor.value
    attention, mlp = block.attention, block.mlp
    assert isinstance(attention, SelfAttention) and isinstance(mlp, GatedMLP), "asked before"
    _fill_attention(struct, attention)
    _fill_mlp(struct, mlp)


def _fill_attention(struct: LayerStruct, attention: SelfAttention) -> None:
    struct.qkv = _linear_struct(attention.qkv)
    struct.out = _linear_struct(attention.out)
    struct.heads = heads_struct(attention.layer)


def _fill_mlp(struct: LayerStruct, mlp: GatedMLP) -> None:
    struct.gate_up = _linear_struct(mlp.gate_up)
    struct.down = _linear_struct(mlp.down)
    struct.gate = GATES[mlp.gate]


def _linear_struct(linear: Linear) -> LinearStruct:
    assert isinstance(linear.product, NativeProduct), "asked before"
    parts = linear.product.parts
    assert 1 <= len(parts) <= MAX_PARTS, "queries, keys and values are the most that share their input"
    return linear_struct(parts, linear.bias_O)
