"""The structs of native/interface.h, field by field."""

from __future__ import annotations

from ctypes import Structure, c_float, c_int32, c_int64, c_void_p


class MatrixStruct(Structure):
    _fields_ = (("data", c_void_p), ("form", c_int32), ("rows", c_int32), ("columns", c_int32))


class PagesStruct(Structure):
    _fields_ = (
        ("keys", c_void_p),
        ("values", c_void_p),
        ("page", c_int64),
        ("block_size", c_int32),
        ("kind", c_int32),
    )


class HeadsStruct(Structure):
    _fields_ = (
        ("num_heads", c_int32),
        ("num_kv_heads", c_int32),
        ("head_dim", c_int32),
        ("rotated", c_int32),
        ("window", c_int32),
        ("scale", c_float),
        ("soft_cap", c_float),
        ("norm_epsilon", c_float),
        ("rotation", c_void_p),
        ("q_norm", c_void_p),
        ("k_norm", c_void_p),
        ("sinks", c_void_p),
        ("slopes", c_void_p),
        ("rounds_biases", c_int32),
    )


class TokensStruct(Structure):
    _fields_ = (
        ("positions", c_void_p),
        ("starts", c_void_p),
        ("rows", c_void_p),
        ("num_tokens", c_int32),
        ("num_seqs", c_int32),
    )


class PageTablesStruct(Structure):
    _fields_ = (("slots", c_void_p), ("tables", c_void_p), ("stride", c_int64))


class NormStruct(Structure):
    _fields_ = (("weight", c_void_p), ("epsilon", c_float))


class LinearStruct(Structure):
    _fields_ = (("parts", MatrixStruct * 3), ("bias", c_void_p), ("num_parts", c_int32))


class RecurrenceStruct(Structure):
    _fields_ = (
        ("rows", c_void_p),
        ("starts", c_void_p),
        ("lengths", c_void_p),
        ("num_seqs", c_int32),
        ("states", c_void_p),
        ("heads", c_int32),
        ("width", c_int32),
        ("size", c_int32),
        ("groups", c_int32),
    )


class LayerStruct(Structure):
    _fields_ = (
        ("before_attention", NormStruct),
        ("after_attention", NormStruct),
        ("before_mlp", NormStruct),
        ("after_mlp", NormStruct),
        ("qkv", LinearStruct),
        ("out", LinearStruct),
        ("gate_up", LinearStruct),
        ("down", LinearStruct),
        ("heads", HeadsStruct),
        ("pages", PagesStruct),
        ("group", c_int32),
        ("gate", c_int32),
        ("branch_factor", c_float),
    )
