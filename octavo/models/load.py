"""Puts a checkpoint's tensors into a model: every name and shape checked before the first copy."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, replace

import torch
from torch import nn

from octavo.base.errors import ModelFileError
from octavo.layers.slot import PackedTarget, Taken, WeightSlot
from octavo.models.contract import Backbone, VerifiesItself
from octavo.ops.cpu.engine import PLAIN_KINDS
from octavo.ops.stored import StoredMatrix
from octavo.weights.checkpoint import Checkpoint

logger = logging.getLogger(__name__)

PLAIN = frozenset(PLAIN_KINDS.values())
"""Kinds of matrices that are plain numbers."""
DERIVED = ("rotary_emb.inv_freq", "attention.masked_bias", "attn.bias")
"""Endings of tensors that old checkpoints store and every model computes for itself."""
UNUSED_HEADS = ("lm_head.weight", "pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids")
"""Endings of tensors that a checkpoint may hold beside what the model needs."""
SHOWN = 8
"""Names listed in a message before it says 'and N more'."""
REPORT_EVERY_S = 5.0
"""Between two log lines of a load that takes long."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Where the weights live now."""

    num_bytes: int
    broken: list[str]
    """Names of tensors that hold NaN or infinite numbers."""


def load_weights(model: Backbone, checkpoint: Checkpoint) -> Placed:
    """Fill every slot. Raises ModelFileError if a tensor is missing or has another shape."""
    slots = _as_called(model.weight_slots(), checkpoint)
    _check(slots, checkpoint)
    is_cpu = all(slot.packed is not None or slot.target.device.type == "cpu" for slot in slots)
    placed = place_on_cpu(slots, checkpoint) if is_cpu else place_on_device(slots, checkpoint)
    for slot in slots:
        reorder(slot)
        if slot.offset:
            slot.target.add_(slot.offset)
    if placed.broken:
        logger.warning(
            "%d tensors of the checkpoint hold NaN or infinite numbers, so answers may fail: %s.",
            len(placed.broken),
            _listed(placed.broken),
        )
    if isinstance(model, VerifiesItself):
        model.verify()
    return placed


def reorder(slot: WeightSlot) -> None:
    """From the checkpoint's order of rows to the model's."""
    if slot.order_R is not None and slot.packed is None:
        order_R = slot.order_R.to(slot.target.device)
        slot.target.copy_(slot.target.index_select(slot.order_dim, order_R))


def place_on_cpu(slots: list[WeightSlot], checkpoint: Checkpoint) -> Placed:
    """One tensor after the other. All is copied: a file that changes while we serve must not change answers,
    nor end the process that reads from its map.
    """
    num_bytes = 0
    sums: list[torch.Tensor] = []
    for slot in slots:
        if slot.packed is not None:
            taken = _pack(slot, slot.packed, checkpoint)
            sums.append(torch.tensor(0.0 if taken.is_finite else math.nan))
            num_bytes += taken.num_bytes
            continue
        tensor = checkpoint.load(slot.name)
        sums.append(_sum(tensor))
        slot.target.copy_(tensor)
        num_bytes += slot.target.nbytes
    return Placed(num_bytes=num_bytes, broken=_broken(slots, sums))


def _pack(slot: WeightSlot, packed: PackedTarget, checkpoint: Checkpoint) -> Taken:
    stored = checkpoint.stored_matrix(slot.name, is_turned=slot.is_turned)
    if stored is None or stored.kind not in packed.kinds:
        kind = checkpoint.stored_kind(slot.name)
        if kind not in PLAIN and not packed.kinds <= PLAIN:
            logger.info("%s is stored as %s, for which there is no kernel: kept plain.", slot.name, kind)
        stored = _plain(checkpoint.load(slot.name, packed.otherwise), is_turned=slot.is_turned)
    if slot.order_R is not None:
        assert slot.order_dim == 0, "rows of one matrix"
        stored = stored.reordered(slot.order_R.numpy())
    taken = packed.take(stored)
    stored.release()
    return taken


def _plain(weight: torch.Tensor, *, is_turned: bool) -> StoredMatrix:
    """Matrices one below the other, where there are several."""
    weight = (weight.transpose(-1, -2) if is_turned else weight).flatten(0, -2).contiguous()
    data = weight.view(torch.uint8).numpy()
    return StoredMatrix(kind=PLAIN_KINDS[weight.dtype], columns=weight.shape[1], data=data)


def place_on_device(slots: list[WeightSlot], checkpoint: Checkpoint) -> Placed:
    """Hand all targets to the checkpoint, which knows the fastest way."""
    report = _Report()
    checkpoint.upload([(slot.name, slot.target) for slot in slots], report.progress)
    # Waits for the device, so that the time is true.
    broken = _broken(slots, [_sum(slot.target) for slot in slots])
    report.finish()
    return Placed(num_bytes=sum(slot.target.nbytes for slot in slots), broken=broken)


def move_weights(model: Backbone, device: torch.device) -> None:
    """Keep the weights there from now on. The model computes only where it was built."""
    assert isinstance(model, nn.Module), "every model is one"
    for parameter in model.parameters():
        if parameter.is_meta:
            continue  # packed, on the CPU for ever
        parameter.data = parameter.data.to(device)


def _sum(tensor: torch.Tensor) -> torch.Tensor:
    """One pass over the numbers: a sum is finite only if all of them are."""
    return tensor.sum(dtype=torch.float32)


def _broken(slots: list[WeightSlot], sums: list[torch.Tensor]) -> list[str]:
    """Names of the slots whose sum is not finite. All sums are read at once: one wait for the device."""
    is_finite = torch.isfinite(torch.stack(sums)).tolist() if sums else []
    return [slot.name for slot, fine in zip(slots, is_finite, strict=True) if not fine]


class _Report:
    """Log lines while weights come in: now and then, and how fast it was."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()
        self._total = 0

    def progress(self, done: int, total: int) -> None:
        self._total = total
        now = time.monotonic()
        if now - self._last >= REPORT_EVERY_S:
            self._last = now
            logger.info("Weights: %.1f of %.1f GB (%.0f %%).", done / 1e9, total / 1e9, 100 * done / total)

    def finish(self) -> None:
        seconds = time.monotonic() - self._began
        gigabytes = self._total / 1e9
        logger.info(
            "Weights: %.2f GB in %.2f s (%.1f GB/s).", gigabytes, seconds, gigabytes / max(seconds, 1e-9)
        )


def _as_called(slots: list[WeightSlot], checkpoint: Checkpoint) -> list[WeightSlot]:
    """The slots by the names that this checkpoint has for them."""
    names = set(checkpoint.tensor_names())
    return [
        replace(slot, name=slot.older_name)
        if slot.older_name is not None and slot.name not in names and slot.older_name in names
        else slot
        for slot in slots
    ]


def _check(slots: list[WeightSlot], checkpoint: Checkpoint) -> None:
    names = set(checkpoint.tensor_names())
    missing = [slot.name for slot in slots if slot.name not in names]
    if missing:
        raise ModelFileError(
            f"The checkpoint lacks {len(missing)} tensors that its config asks for: {_listed(missing)}. "
            "Fetch the model again, or take the config that belongs to these files."
        )
    for slot in slots:
        stored, wanted = tuple(checkpoint.shape(slot.name)), tuple(slot.target.shape)
        if stored != wanted:
            raise ModelFileError(
                f"Tensor {slot.name} has shape {list(stored)} in the file; "
                f"the model's config asks for {list(wanted)}. Take the config that belongs to these files."
            )
    wanted_names = {slot.name for slot in slots}
    unexpected = sorted(name for name in names - wanted_names if not name.endswith(DERIVED + UNUSED_HEADS))
    if unexpected:
        logger.warning(
            "%d tensors of the checkpoint are not used by this model: %s.",
            len(unexpected),
            _listed(unexpected),
        )


def _listed(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
