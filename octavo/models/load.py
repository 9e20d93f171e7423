"""Puts a checkpoint's tensors into a model: every name and shape checked before the first copy."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from octavo.base.errors import ModelFileError
from octavo.layers.slot import WeightSlot
from octavo.models.contract import CausalLM
from octavo.weights.checkpoint import Checkpoint

logger = logging.getLogger(__name__)

DERIVED = ("rotary_emb.inv_freq", "attention.masked_bias", "attn.bias")
"""Endings of tensors that old checkpoints store and every model computes for itself."""
SHOWN = 8
"""Names listed in a message before it says 'and N more'."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Where the weights live now."""

    copied_bytes: int
    mapped_bytes: int
    """Used in place, from the file's page cache."""


def load_weights(model: CausalLM, checkpoint: Checkpoint) -> Placed:
    """Fill every slot. Raises ModelFileError if a tensor is missing or has another shape."""
    slots = model.weight_slots()
    _check(slots, checkpoint)
    copied = mapped = 0
    broken: list[str] = []
    has_file = checkpoint.format != "dummy"
    for slot in slots:
        tensor = checkpoint.load(slot.name, slot.target.dtype if slot.adopt else None)
        is_mapped = has_file and str(tensor.dtype).removeprefix("torch.") == checkpoint.stored_dtype
        # One pass over the numbers: a sum is finite only if all of them are.
        if not torch.isfinite(tensor.sum(dtype=torch.float32)).item():
            broken.append(slot.name)
        if slot.adopt and slot.target.device == tensor.device and slot.target.dtype == tensor.dtype:
            slot.adopt(tensor)
            mapped += tensor.nbytes if is_mapped else 0
            copied += 0 if is_mapped else tensor.nbytes
        else:
            slot.target.copy_(tensor)
            copied += slot.target.nbytes
    if broken:
        logger.warning(
            "%d tensors of the checkpoint hold NaN or infinite numbers, so answers may fail: %s.",
            len(broken),
            _listed(broken),
        )
    return Placed(copied_bytes=copied, mapped_bytes=mapped)


def _check(slots: list[WeightSlot], checkpoint: Checkpoint) -> None:
    names = set(checkpoint.tensor_names())
    missing = [slot.name for slot in slots if slot.name not in names]
    if missing:
        raise ModelFileError(
            f"The checkpoint lacks {len(missing)} tensors that its config asks for: {_listed(missing)}."
        )
    for slot in slots:
        stored, wanted = tuple(checkpoint.shape(slot.name)), tuple(slot.target.shape)
        if stored != wanted:
            raise ModelFileError(
                f"Tensor {slot.name} has shape {list(stored)} in the file; "
                f"the model's config asks for {list(wanted)}."
            )
    wanted_names = {slot.name for slot in slots} | {"lm_head.weight"}
    unexpected = sorted(name for name in names - wanted_names if not name.endswith(DERIVED))
    if unexpected:
        logger.warning(
            "%d tensors of the checkpoint are not used by this model: %s.",
            len(unexpected),
            _listed(unexpected),
        )


def _listed(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
