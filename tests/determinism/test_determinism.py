"""The short form of compare_many: some requests on a model of each make, in every kind of company."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from octavo.base.native import native_kernels
from tests.conformance.families import FAMILIES
from tests.conformance.test_generation import num_kv_groups
from tests.determinism import company
from tests.determinism.company import MODES, compare, draw_requests
from tests.tiny import VOCAB_SIZE, save_model

pytestmark = pytest.mark.skipif(native_kernels() is None, reason="torch's products depend on the batch")

MODELS = ("llama", "gemma2", "mixtral", "gpt_neox")
"""Plain, with soft caps, a mixture of experts, with layer norms."""


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family, overrides = FAMILIES[request.param]
    return save_model(tmp_path_factory.mktemp("model"), family, **overrides)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_answers_are_the_same_bits_in_any_company(model: Path, dtype: str) -> None:
    requests = draw_requests(random.Random(dtype), 12, VOCAB_SIZE)
    options = {"dtype": dtype, "skip_tokenizer_init": True}
    report = compare(model, requests, list(MODES), kv_groups=num_kv_groups(model), **options)
    assert report.comparisons == 12 * len(MODES)
    assert report.mismatches == 0, report.examples
    assert report.cached_tokens > 0


def test_requests_are_preempted(tmp_path: Path) -> None:
    path = save_model(tmp_path, *FAMILIES["llama"][:1])
    requests = draw_requests(random.Random(4), 24, VOCAB_SIZE)
    modes = ["preempted", "preempted, in chunks"]
    report = compare(path, requests, modes, skip_tokenizer_init=True)
    assert report.preemptions > 0
    assert report.mismatches == 0, report.examples


def test_other_numbers_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_model(tmp_path, *FAMILIES["llama"][:1])
    monkeypatch.setitem(company.MODES, "in other numbers", {"dtype": "bfloat16"})
    requests = draw_requests(random.Random(5), 3, VOCAB_SIZE)
    report = compare(path, requests, ["in other numbers"], skip_tokenizer_init=True)
    assert (report.comparisons, report.mismatches) == (3, 3)
    assert "in other numbers: request 0" in report.examples[0]
