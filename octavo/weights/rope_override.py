"""A user's words about rope, in the older spelling, over a config in the newer one.

Newer configs hold all of it in rope_parameters, and who finds that does not read rope_scaling and rope_theta
beside it: a wish spelled so would be dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from octavo.base.errors import ConfigError

_NUMBERS = ("rope_theta", "partial_rotary_factor")
"""Beside rope_scaling in the older spelling, within rope_parameters in the newer one."""


def respell_rope(config: dict[str, Any], entries: Mapping[str, Any]) -> None:
    """Put what `entries` (which lie over the config already) say into rope_parameters, if there are some.

    rope_scaling replaces everything but the numbers above; None takes the scaling away. Raises ConfigError
    where layers have ropes of different kinds, as it does not say whose it is.
    """
    rope = config.get("rope_parameters")
    wished = [name for name in ("rope_scaling", *_NUMBERS) if name in entries]
    if not isinstance(rope, dict) or "rope_parameters" in entries or not wished:
        return
    if any(isinstance(value, dict) for value in rope.values()):
        raise ConfigError(
            f"hf_overrides has {wished[0]}, but the model's layers have ropes of different kinds. Give "
            "rope_parameters, with an entry for each kind.",
            param="hf_overrides",
        )
    if "rope_scaling" in entries:
        scaling = entries["rope_scaling"]
        if not isinstance(scaling, dict | None):
            raise ConfigError("hf_overrides: rope_scaling must be an object or null.", param="hf_overrides")
        rope = {**{name: rope[name] for name in _NUMBERS if name in rope}, **(scaling or {})}
    numbers = {name: entries[name] for name in _NUMBERS if name in entries}
    config["rope_parameters"] = {**rope, **numbers}
    config.pop("rope_scaling", None)
