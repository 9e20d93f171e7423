"""Pooled models on a GPU, in float32 and bfloat16: encoders packed, decoders in chunks and from the cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pytest
import torch

from octavo import LLM
from octavo.messages.pooling import PoolingParams
from tests.conformance.pooled import DECODERS, ENCODERS, LONGEST, save_pooled
from tests.conformance.test_pooling import logits, prompts, states

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

RAW = PoolingParams(use_activation=False)
WIDE = {"hidden_size": 128, "num_attention_heads": 2, "dim": 128, "n_heads": 2}
"""Heads of 64: the kernels' usual width."""
DTYPES = ["float32", "bfloat16"]
FLOAT32_DISTANCE = 1e-5
"""1 - cosine; float32 products may run in TF32."""


def pooled(states_TE: torch.Tensor, pooling: str) -> torch.Tensor:
    return {"cls": states_TE[0], "last": states_TE[-1], "mean": states_TE.mean(0)}[pooling]


class Bound(NamedTuple):
    """How far results may be from float32."""

    furthest: float
    of: Callable[[list[float]], float]
    """What of all texts' distances is looked at."""


EXACT = Bound(FLOAT32_DISTANCE, max)


def allowed(folder: Path, given: list[list[int]], pooling: str, dtype: str) -> Bound:
    """In a narrow type little more than transformers', and not of single texts: random weights blow the
    rounding of some up, of others in transformers than here."""
    if dtype == "float32":
        return EXACT
    exact, narrow = (
        [pooled(one, pooling) for one in states(folder, given, kind)]
        for kind in (torch.float32, torch.bfloat16)
    )
    return Bound(1e-3 + 2 * median(distances(narrow, exact)), median)


def distances(found: list[torch.Tensor], expected: list[torch.Tensor]) -> list[float]:
    pairs = zip(found, expected, strict=True)
    return [1.0 - torch.cosine_similarity(one, other, dim=0).item() for one, other in pairs]


def check(outputs: list[Any], expected: list[torch.Tensor], bound: Bound) -> None:
    assert bound.of(distances([output.outputs.data for output in outputs], expected)) < bound.furthest


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("name", ENCODERS)
def test_encoders(tmp_path: Path, name: str, pooling: str, dtype: str) -> None:
    family, overrides = ENCODERS[name]
    folder = save_pooled(tmp_path / "model", family, **{**overrides, **WIDE})
    given = prompts()
    expected = [pooled(one, pooling) for one in states(folder, given)]
    bound = allowed(folder, given, pooling, dtype)
    with LLM(str(folder), pooling_type=pooling, dtype=dtype) as llm:
        check(llm.encode(given, RAW, use_tqdm=False), expected, bound)
        check([llm.encode(ids, RAW, use_tqdm=False)[0] for ids in given], expected, bound)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("name", DECODERS)
def test_decoders(tmp_path: Path, name: str, pooling: str, dtype: str) -> None:
    family, overrides = DECODERS[name]
    wide = {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64}
    folder = save_pooled(tmp_path / "model", family, **{**overrides, **wide})
    given = prompts(shared=70)
    expected = [pooled(one, pooling) for one in states(folder, given)]
    bound = allowed(folder, given, pooling, dtype)
    options: dict[str, Any] = {"max_model_len": LONGEST, "max_num_batched_tokens": 128, "max_num_seqs": 16}
    with LLM(str(folder), pooling_type=pooling, dtype=dtype, **options) as llm:
        for _ in range(2):
            check(llm.encode(given, RAW, use_tqdm=False), expected, bound)
        assert (llm.stats().prefix_hits_tokens > 0) == (pooling == "last")


def test_a_cross_encoder(tmp_path: Path) -> None:
    family, overrides = ENCODERS["bert"]
    folder = save_pooled(tmp_path / "model", family, num_labels=3, **{**overrides, **WIDE})
    given = prompts()
    with LLM(str(folder), dtype="float32") as llm:
        check(llm.encode(given, RAW, use_tqdm=False), logits(folder, given), EXACT)
        scored = llm.encode([("a question", "an answer"), ("a", "b" * 50)], use_tqdm=False)
        assert all(abs(one.outputs.data.sum().item() - 1) < 1e-4 for one in scored)
