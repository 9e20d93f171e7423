"""NativeEngine: threads and kernels of the compiled library, called with raw pointers.

T tokens, I input width, O output width.
"""

from __future__ import annotations

import ctypes
import logging
import os
import weakref
from collections.abc import Sequence
from ctypes import c_char_p, c_int32, c_int64, c_void_p
from functools import cache
from typing import NamedTuple

import numpy as np
import torch

from octavo.base.native import native_kernels, native_library
from octavo.ops.cpu.structs import (
    LayerStruct,
    LinearStruct,
    MatrixStruct,
    NormStruct,
    RecurrenceStruct,
    TokensStruct,
)
from octavo.ops.grids import grid_of
from octavo.ops.stored import StoredMatrix

logger = logging.getLogger(__name__)

TYPES = {
    "F32": 0,
    "F16": 1,
    "Q4_0": 2,
    "Q4_1": 3,
    "Q5_0": 6,
    "Q5_1": 7,
    "Q8_0": 8,
    "Q2_K": 10,
    "Q3_K": 11,
    "Q4_K": 12,
    "Q5_K": 13,
    "Q6_K": 14,
    "IQ2_XXS": 16,
    "IQ2_XS": 17,
    "IQ3_XXS": 18,
    "IQ1_S": 19,
    "IQ4_NL": 20,
    "IQ3_S": 21,
    "IQ2_S": 22,
    "IQ4_XS": 23,
    "IQ1_M": 29,
    "BF16": 30,
    "TQ1_0": 34,
    "TQ2_0": 35,
    "MXFP4": 39,
}
"""Kinds of stored matrices that can be packed, by GGUF's number."""
PLAIN_KINDS = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
"""Those that are plain numbers."""


class PackedMatrix(NamedTuple):
    """A matrix [O, I] in the kernels' own layout."""

    packed: torch.Tensor
    """uint8; keeps the memory that `struct` points to."""
    struct: MatrixStruct
    is_finite: bool
    """No weight is NaN or infinite."""


class NativeEngine:
    """One set of threads. Calls from several threads wait for each other."""

    def __init__(self, num_threads: int, kernels: str | None = None) -> None:
        """kernels: the name of an instruction set instead of the fastest; the processor must have it."""
        library = native_library()
        assert library is not None, "whoever opens the library has asked whether there is one"
        declare(library)
        self._library = library
        self.kernels = kernels or native_kernels()
        handle = library.octavo_open(num_threads, None if kernels is None else kernels.encode())
        assert handle, f"this processor does not run {kernels}"
        self.handle = c_void_p(handle)
        self.num_threads: int = library.octavo_num_threads(self.handle)
        if self.num_threads < num_threads:
            logger.warning(
                "The system let %d of %d threads start (ulimit -u, or the pids limit of a container): "
                "computing goes on with these, more slowly",
                self.num_threads,
                num_threads,
            )
        closing = weakref.finalize(self, _close, library, self.handle, os.getpid())
        closing.atexit = False  # another thread may still compute then, in memory that would be freed

    def pack(self, stored: StoredMatrix) -> PackedMatrix:
        """Pack a matrix of one of the TYPES."""
        kind = TYPES[stored.kind]
        form = self._library.octavo_form(kind)
        rows, columns = stored.rows, stored.columns
        packed = torch.empty(self._library.octavo_packed_bytes(form, rows, columns), dtype=torch.uint8)
        data, grid = np.ascontiguousarray(stored.data), grid_of(stored.kind)
        is_finite = self._library.octavo_pack(
            self.handle,
            kind,
            None if grid is None else grid.ctypes.data,
            data.ctypes.data,
            data.strides[0],
            rows,
            columns,
            packed.data_ptr(),
        )
        struct = MatrixStruct(packed.data_ptr(), form, rows, columns)
        return PackedMatrix(packed, struct, bool(is_finite))

    def linear(
        self, x_TI: torch.Tensor, parts: Sequence[PackedMatrix], bias_O: torch.Tensor | None
    ) -> torch.Tensor:
        """[T, O]: x times the matrices, side by side; float32, contiguous."""
        assert x_TI.dtype == torch.float32, "the kernels compute in float32"
        x_TI = x_TI.contiguous()
        structs = (MatrixStruct * len(parts))(*(part.struct for part in parts))
        y_TO = torch.empty(len(x_TI), sum(part.struct.rows for part in parts))
        self._library.octavo_linear(
            self.handle,
            structs,
            len(parts),
            x_TI.data_ptr(),
            len(x_TI),
            y_TO.data_ptr(),
            y_TO.shape[1],
            None if bias_O is None else bias_O.data_ptr(),
            0,
        )
        return y_TO

    def grouped(
        self, linears: Sequence[LinearStruct], ends: Sequence[int], x_PI: torch.Tensor
    ) -> torch.Tensor:
        """[P, O]: rows of x up to ends[0] times the first layer, those up to ends[1] times the second ..."""
        assert x_PI.is_contiguous() and x_PI.dtype == torch.float32, "the kernels compute in float32"
        structs = (LinearStruct * len(linears))(*linears)
        starts = (c_int32 * (len(ends) + 1))(0, *ends)
        first = linears[0]
        y_PO = torch.empty(len(x_PI), sum(first.parts[p].rows for p in range(first.num_parts)))
        self._library.octavo_grouped(
            self.handle, structs, starts, len(linears), x_PI.data_ptr(), y_PO.data_ptr()
        )
        return y_PO

    def rows(self, matrix: PackedMatrix, ids_T: torch.Tensor) -> torch.Tensor:
        """[T, I]: rows of the matrix as float32, as the file's format defines them."""
        ids = ids_T.to(torch.int32).contiguous()
        out_TI = torch.empty(len(ids), matrix.struct.columns)
        self._library.octavo_rows(ctypes.byref(matrix.struct), ids.data_ptr(), len(ids), out_TI.data_ptr())
        return out_TI

    def attention(
        self,
        heads: object,
        pages: object,
        tokens: object,
        tables: object,
        qkv_TO: torch.Tensor,
        out_TI: torch.Tensor,
    ) -> None:
        """References to structs; heads are normed and rotated in place."""
        assert qkv_TO.is_contiguous() and qkv_TO.dtype == torch.float32, "products make them so"
        self._library.octavo_attention(
            self.handle, heads, pages, tokens, tables, qkv_TO.data_ptr(), out_TI.data_ptr()
        )

    def ssd(self, recurrence: RecurrenceStruct, *tensors: torch.Tensor) -> None:
        """x [T, I], b and c [T, J], dt and decay [T, H], skip [H], and where the result goes [T, I]."""
        x_TI, b_TJ, c_TJ, dt_TH, decay_TH, skip_H, y_TI = tensors
        assert all(tensor.stride(-1) == 1 for tensor in tensors), "rows are read as they lie"
        self._library.octavo_ssd(
            self.handle,
            ctypes.byref(recurrence),
            *(x_TI.data_ptr(), x_TI.stride(0)),
            *(b_TJ.data_ptr(), b_TJ.stride(0)),
            *(c_TJ.data_ptr(), c_TJ.stride(0)),
            *(tensor.data_ptr() for tensor in (dt_TH, decay_TH, skip_H, y_TI)),
        )

    def gated_delta(self, recurrence: RecurrenceStruct, *tensors: torch.Tensor) -> None:
        """q and k [T, G, K], v [T, I], beta and decay [T, H], and where the result goes [T, I]."""
        q_TGK, k_TGK, v_TI, beta_TH, decay_TH, y_TI = tensors
        assert q_TGK.is_contiguous() and k_TGK.is_contiguous() and v_TI.stride(-1) == 1, (
            "as products make them"
        )
        self._library.octavo_gated_delta(
            self.handle,
            ctypes.byref(recurrence),
            *(q_TGK.data_ptr(), k_TGK.data_ptr()),
            *(v_TI.data_ptr(), v_TI.stride(0)),
            *(tensor.data_ptr() for tensor in (beta_TH, decay_TH, y_TI)),
        )

    def step(
        self,
        layers: ctypes.Array[LayerStruct],
        tokens: TokensStruct,
        tables: object,
        x_TE: torch.Tensor,
        last_norm: NormStruct,
    ) -> torch.Tensor:
        """[T, E] behind all layers and the last norm. x_TE is overwritten."""
        assert x_TE.is_contiguous() and x_TE.dtype == torch.float32, "embeddings are so"
        out_TE = torch.empty_like(x_TE)
        self._library.octavo_step(
            self.handle,
            layers,
            len(layers),
            ctypes.byref(tokens),
            tables,
            x_TE.data_ptr(),
            x_TE.shape[1],
            ctypes.byref(last_norm),
            out_TE.data_ptr(),
        )
        return out_TE


def _close(library: ctypes.CDLL, handle: c_void_p, owner: int) -> None:
    """Threads do not come along into a forked process, which would wait for their end for ever."""
    if os.getpid() == owner:
        library.octavo_close(handle)


def linear_struct(parts: Sequence[PackedMatrix], bias_O: torch.Tensor | None) -> LinearStruct:
    """A linear layer of one to three matrices, which must outlive it."""
    struct = LinearStruct()
    for index, part in enumerate(parts):
        struct.parts[index] = part.struct
    struct.num_parts = len(parts)
    struct.bias = None if bias_O is None else bias_O.data_ptr()
    return struct


@cache
def native_engine(num_threads: int) -> NativeEngine:
    """The one of this process with so many threads."""
    return NativeEngine(num_threads)


@cache
def declare(library: ctypes.CDLL) -> None:
    """The C signatures."""
    declared = {
        "octavo_open": (c_void_p, [c_int32, c_char_p]),
        "octavo_close": (None, [c_void_p]),
        "octavo_num_threads": (c_int32, [c_void_p]),
        "octavo_form": (c_int32, [c_int32]),
        "octavo_packed_bytes": (c_int64, [c_int32, c_int64, c_int64]),
        "octavo_pack": (
            c_int32,
            [c_void_p, c_int32, c_void_p, c_void_p, c_int64, c_int64, c_int32, c_void_p],
        ),
        "octavo_rows": (None, [c_void_p, c_void_p, c_int32, c_void_p]),
        "octavo_linear": (
            None,
            [c_void_p, c_void_p, c_int32, c_void_p, c_int32, c_void_p, c_int64, c_void_p, c_int32],
        ),
        "octavo_choose_tokens": (None, [c_void_p, c_int64, c_int32, c_int32, *[c_void_p] * 4]),
        "octavo_grouped": (None, [c_void_p, c_void_p, c_void_p, c_int32, c_void_p, c_void_p]),
        "octavo_ssd": (None, [c_void_p, c_void_p, *[c_void_p, c_int64] * 3, *[c_void_p] * 4]),
        "octavo_gated_delta": (None, [*[c_void_p] * 5, c_int64, *[c_void_p] * 3]),
        "octavo_append_tokens": (None, [c_void_p, c_int64, *[c_void_p] * 3, c_int32, c_int32]),
        "octavo_gather_step": (
            None,
            [c_void_p, c_int64, *[c_void_p] * 5, *[c_int32] * 3, c_void_p, c_void_p, c_void_p, c_int64],
        ),
        "octavo_attention": (None, [c_void_p] * 7),
        "octavo_step": (
            None,
            [c_void_p, c_void_p, c_int32, c_void_p, c_void_p, c_void_p, c_int32, c_void_p, c_void_p],
        ),
    }
    for name, (result, arguments) in declared.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
