"""Models of transformers that do not run on paged attention are refused, each with its reason."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from octavo.base.errors import ConfigError, ModelFileError
from octavo.layers.placement import Placement
from octavo.models.fallback.model import TransformersForCausalLM
from tests.conformance.fallback import REFUSED
from tests.tiny import tiny_config

PLACEMENT = Placement(dtype=torch.float32, device=torch.device("cpu"), max_positions=64)


def config_of(family: str, **overrides: Any) -> dict[str, Any]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CLASSES

    return {**tiny_config(family, **overrides).to_dict(), "architectures": [CLASSES[family]]}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_reason(case: str) -> None:
    family, overrides, words = REFUSED[case]
    with pytest.raises(ModelFileError) as error:
        TransformersForCausalLM(config_of(family, **overrides), PLACEMENT)
    assert words in error.value.message


def test_odd_widths_and_deterministic_mode_are_refused() -> None:
    with pytest.raises(ModelFileError, match="heads are 7 wide"):
        TransformersForCausalLM(config_of("nemotron", head_dim=7, partial_rotary_factor=0.5), PLACEMENT)
    with pytest.raises(ConfigError) as error:
        TransformersForCausalLM(config_of("cohere"), dataclasses.replace(PLACEMENT, deterministic=True))
    assert error.value.param == "deterministic"
