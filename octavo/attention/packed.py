"""Attention of whole texts whose tokens all see each other: packed one behind the other, no cache.

Texts of one length are served together, as they lie. Others of similar length are padded: a padding token is
the text's own last one again, seen by nobody and thrown away. For CPUs and GPUs, by torch's own attention.

T tokens, O = (H + 2 K) * D for H query heads and K KV heads of width D, B texts of L tokens each.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch.nn.functional import scaled_dot_product_attention

from octavo.attention.contract import AttentionLayer
from octavo.attention.step_view import HostView
from octavo.ops.heads import prepare_heads
from octavo.ops.paged_plain import AttentionTerms

SLACK = {"cpu": 1.25, "cuda": 2.0}
"""By how much a run's longest text may exceed its shortest. Kernels cost a GPU more than padding does."""
ALWAYS_TOGETHER = 16
"""Texts up to this long share a run whatever their lengths."""
SCORES_AT_ONCE = {"cpu": 1 << 22, "cuda": 1 << 24}
"""Where layers add numbers of their own to the scores, texts are served in slices of at most so many."""


@dataclass(eq=False)
class Run:
    """Some texts that are attended together: `num_texts` of them, padded to `length` tokens."""

    start: int
    end: int
    """Its tokens in the step."""
    num_texts: int
    length: int
    rows_N: torch.Tensor | None = None
    """[B * L]: the token at each place; None: all texts have this length."""
    kept_N: torch.Tensor | None = None
    """The places that are no padding, in the order of the tokens."""
    hidden_BL: torch.Tensor | None = None
    """Places that are padding."""
    _biases: dict[int | None, torch.Tensor | None] = field(default_factory=dict)

    def bias(self, window: int | None, like: torch.Tensor) -> torch.Tensor | None:
        """What is added to the scores, [B or 1, 1, L or 1, L]; None: nothing. Made once for each window."""
        if window not in self._biases:
            self._biases[window] = self._make_bias(window, like)
        return self._biases[window]

    def _make_bias(self, window: int | None, like: torch.Tensor) -> torch.Tensor | None:
        is_narrow = window is not None and self.length > window // 2 + 1
        if self.hidden_BL is None and not is_narrow:
            return None
        hidden = torch.zeros(1, 1, 1, self.length, dtype=torch.bool, device=like.device)
        if self.hidden_BL is not None:
            hidden = self.hidden_BL[:, None, None]
        if is_narrow:
            assert window is not None, "narrow means that there is one"
            places_L = torch.arange(self.length, device=like.device)
            # A padding token stands where the text's last one does, so that it sees somebody.
            if self.rows_N is not None:
                places_L = places_L.expand(self.num_texts, -1).clamp(max=self._last_B1())[:, None]
                hidden = hidden | ((places_L[..., :, None] - places_L[..., None, :]).abs() > window // 2)
            else:
                hidden = hidden | ((places_L[:, None] - places_L).abs() > window // 2)
        bias = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
        return bias.masked_fill_(hidden, float("-inf"))

    def _last_B1(self) -> torch.Tensor:
        assert self.hidden_BL is not None, "padded"
        return (~self.hidden_BL).sum(1, keepdim=True) - 1


class PackedAttention:
    """One step, planned: what the layers of an encoder call."""

    def __init__(self, host: HostView, positions_T: torch.Tensor) -> None:
        """host: texts from their first token to their last, shortest first."""
        self._positions_T = positions_T
        self._device = positions_T.device
        self._prepare_heads = prepare_heads.on(self._device)
        self._runs = [self._plan(host, first, last) for first, last in _runs(host.lengths, self._device.type)]

    def __call__(self, layer: AttentionLayer, qkv_TO: torch.Tensor) -> torch.Tensor:
        """[T, H * D]. A layer's window counts the keys that a query sees, itself in the middle."""
        if layer.rotation_PD is not None or layer.q_norm_D is not None:
            self._norm_and_rotate(layer, qkv_TO)
        if len(self._runs) == 1 and self._runs[0].end == len(qkv_TO):
            return self._attend(self._runs[0], layer, qkv_TO)
        out_TC = qkv_TO.new_empty(len(qkv_TO), layer.num_heads * layer.head_dim)
        out_TC[self._runs[-1].end :] = 0.0  # Tokens of nobody, at the step's end.
        for run in self._runs:
            out_TC[run.start : run.end] = self._attend(run, layer, qkv_TO)
        return out_TC

    def _attend(self, run: Run, layer: AttentionLayer, qkv_TO: torch.Tensor) -> torch.Tensor:
        own_NO = qkv_TO[run.start : run.end] if run.rows_N is None else qkv_TO.index_select(0, run.rows_N)
        heads = own_NO.view(run.num_texts, run.length, -1, layer.head_dim).transpose(1, 2)
        first_value = layer.num_heads + layer.num_kv_heads
        q_BHLD, k_BKLD, v_BKLD = heads.tensor_split((layer.num_heads, first_value), 1)
        hidden = run.bias(layer.terms.window, qkv_TO)
        if layer.terms.bias is not None:
            out_BHLD = _attend_with_bias(q_BHLD, k_BKLD, v_BKLD, hidden, layer.terms)
        else:
            out_BHLD = scaled_dot_product_attention(
                q_BHLD,
                k_BKLD,
                v_BKLD,
                attn_mask=hidden,
                scale=layer.terms.scale,
                enable_gqa=layer.num_heads != layer.num_kv_heads,
            )
        out_NC = out_BHLD.transpose(1, 2).reshape(run.num_texts * run.length, -1)
        return out_NC if run.kept_N is None else out_NC.index_select(0, run.kept_N)

    def _norm_and_rotate(self, layer: AttentionLayer, qkv_TO: torch.Tensor) -> None:
        """In place, by the op that otherwise also writes pages: here no token has a slot."""
        nowhere_T = self._positions_T.new_full((len(qkv_TO),), -1)
        page_BKND = qkv_TO.new_zeros(1, layer.num_kv_heads, 1, layer.head_dim)
        self._prepare_heads(
            qkv_TO,
            self._positions_T,
            nowhere_T,
            layer.rotation_PD,
            layer.q_norm_D,
            layer.k_norm_D,
            layer.norm_epsilon,
            page_BKND,
            page_BKND.clone(),
            layer.num_heads,
        )

    def _plan(self, host: HostView, first: int, last: int) -> Run:
        lengths = host.lengths[first:last]
        start, length = host.query_starts[first], lengths[-1]
        run = Run(start, host.query_starts[last], len(lengths), length)
        if lengths[0] == length:
            return run
        length_B1 = torch.tensor(lengths, device=self._device)[:, None]
        first_B1 = torch.tensor(host.query_starts[first:last], device=self._device)[:, None]
        place_L = torch.arange(length, device=self._device)
        run.hidden_BL = place_L >= length_B1
        run.rows_N = (first_B1 + place_L.minimum(length_B1 - 1)).flatten()
        run.kept_N = (~run.hidden_BL).flatten().nonzero()[:, 0]
        return run


def _attend_with_bias(
    q_BHLD: torch.Tensor,
    k_BHLD: torch.Tensor,
    v_BHLD: torch.Tensor,
    hidden: torch.Tensor | None,
    terms: AttentionTerms,
) -> torch.Tensor:
    """[B, H, L, D], a few texts at a time: a bias is as large as all scores. hidden: see Run.bias."""
    assert terms.bias is not None, "that is what it is for"
    num_texts, num_heads, length, _ = q_BHLD.shape
    step = max(1, SCORES_AT_ONCE[q_BHLD.device.type] // (num_heads * length * length))
    parts = []
    for start in range(0, num_texts, step):
        q, k, v = (x[start : start + step] for x in (q_BHLD, k_BHLD, v_BHLD))
        bias = terms.bias(q, k)
        if hidden is not None:
            bias = bias + (hidden if len(hidden) == 1 else hidden[start : start + step])
        parts.append(scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=terms.scale))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _runs(lengths: list[int], device: str) -> list[tuple[int, int]]:
    """Cut ascending `lengths` into runs of similar ones."""
    slack, found, start = SLACK[device], [], 0
    for index, length in enumerate(lengths):
        if length > max(slack * lengths[start], ALWAYS_TOGETHER):
            found.append((start, index))
            start = index
    return [*found, (start, len(lengths))]
