"""From wishes to decisions: user's options + checkpoint facts + machine facts -> complete config.

An ordered list of small pure steps. Each fills or checks some fields and gives a reason for every
value it chose; `octavo explain` prints them. A wish that cannot be met is refused, never bent.
"""

from __future__ import annotations

from dataclasses import dataclass

from octavo.config.decisions.bounds import check_bounds
from octavo.config.decisions.cache import decide_cache
from octavo.config.decisions.device import chosen_device, decide_device, decide_kernels
from octavo.config.decisions.known import Known, Reason
from octavo.config.decisions.model import (
    decide_implementation,
    decide_lengths,
    decide_names,
    decide_pooling,
    decide_runner,
)
from octavo.config.decisions.numbers import decide_dtype, decide_kv_dtype, decide_packing
from octavo.config.decisions.schedule import decide_schedule
from octavo.config.decisions.supervision import decide_supervision
from octavo.config.decisions.tenants import decide_batches, decide_tenants
from octavo.config.facts import CheckpointFacts, DeviceFacts
from octavo.config.root import EngineConfig

STEPS = (
    *(decide_names, decide_runner, decide_implementation, decide_device, decide_kernels, decide_packing),
    *(decide_dtype, decide_lengths, decide_pooling, decide_schedule, decide_cache, decide_kv_dtype),
    *(decide_tenants, decide_batches, decide_supervision, check_bounds),
)
"""In this order: each may go by what the ones before it decided."""


@dataclass(frozen=True)
class Resolved:
    config: EngineConfig
    reasons: list[Reason]


def resolve(wishes: EngineConfig, checkpoint: CheckpointFacts, device: DeviceFacts) -> Resolved:
    """Fill every None and 'auto' of the model, cache and schedule groups, and what of the server's follows
    from them. Raises ConfigError."""
    known = Known(checkpoint, chosen_device(wishes, device), [])
    config = wishes
    for step in STEPS:
        config = step(config, known)
    return Resolved(config, known.reasons)
