"""What a decision goes by, and how it is noted together with its reason."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from octavo.config.facts import CheckpointFacts, DeviceFacts
from octavo.config.root import EngineConfig


@dataclass(frozen=True)
class Reason:
    """Why an option has its value."""

    option: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Known:
    """What every step sees, and where it notes its reasons."""

    checkpoint: CheckpointFacts
    device: DeviceFacts
    reasons: list[Reason]

    @property
    def is_encoder(self) -> bool:
        facts = self.checkpoint.pooling
        return facts is not None and facts.is_encoder


def decided(config: EngineConfig, group: str, known: Known, **values: tuple[Any, str]) -> EngineConfig:
    """`config` with these values, each of which comes with its reason."""
    known.reasons.extend(Reason(name, value, why) for name, (value, why) in values.items())
    new = dataclasses.replace(getattr(config, group), **{name: value for name, (value, _) in values.items()})
    return dataclasses.replace(config, **{group: new})
