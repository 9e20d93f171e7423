"""GGUF files of tiny models against transformers on the checkpoint they were made from, float32."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from octavo import LLM, SamplingParams
from octavo.base.errors import ModelFileError
from octavo.base.native import native_kernels
from octavo.config.native_families import NATIVE
from octavo.weights.checkpoint import open_checkpoint
from octavo.weights.gguf.mamba import to_logarithm
from tests.weights.gguf_writer import CASES, save

TOLERANCE = 1e-3
PROMPT = [(7 * index) % 251 for index in range(40)]


def prompt_logprobs(file: Path, **options: Any) -> list[float]:
    """Of each token of the prompt but the first."""
    params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0, ignore_eos=True)
    with LLM(str(file), skip_tokenizer_init=True, max_model_len=64, dtype="float32", **options) as llm:
        (output,) = llm.generate([PROMPT], params, use_tqdm=False)
    return [each[token].logprob for each, token in zip(output.prompt_logprobs[1:], PROMPT[1:], strict=True)]


def expected_logprobs(model: Path) -> list[float]:
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.inference_mode():
        logprobs_TV = reference(torch.tensor([PROMPT])).logits[0].log_softmax(-1)
    return logprobs_TV[:-1].gather(1, torch.tensor(PROMPT[1:])[:, None])[:, 0].tolist()


@pytest.mark.parametrize(("architecture", "variant"), CASES)
def test_equals_transformers(tmp_path: Path, architecture: str, variant: str) -> None:
    model, file = save(tmp_path, architecture, variant)
    expected = expected_logprobs(model)
    assert prompt_logprobs(file) == pytest.approx(expected, abs=TOLERANCE)
    (name,) = json.loads((model / "config.json").read_text())["architectures"]
    if native_kernels() is not None and name in NATIVE:
        assert prompt_logprobs(file, packed_weights=True) == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize(("architecture", "variant"), [("gptneox", "parallel"), ("falcon", "40B")])
def test_packed_rows_move_as_wholes(tmp_path: Path, architecture: str, variant: str) -> None:
    """Queries, keys and values that are quantised come back in the checkpoint's order, packed or not."""
    kind = gguf.GGMLQuantizationType.Q8_0
    rotated = {"rope.dimension_count": 8} if architecture == "gptneox" else {}
    model, file = save(
        tmp_path,
        architecture,
        variant,
        kind=kind,
        wider={"hidden_size": 96},
        **{"embedding_length": 96, "feed_forward_length": 88 * 4, **rotated},
    )
    checkpoint, original = open_checkpoint(file), open_checkpoint(model)
    ends = ("1.self_attention.query_key_value.weight", "1.attention.query_key_value.weight")
    (name,) = (name for name in original.tensor_names() if name.endswith(ends))
    weight = original.load(name).numpy()
    expected = torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(weight, kind), kind))
    assert torch.equal(checkpoint.load(name), expected)
    stored = checkpoint.stored_matrix(name)
    assert stored is not None
    unpacked = gguf.quants.dequantize(stored.data.reshape(len(weight), -1), kind)
    assert torch.equal(torch.from_numpy(unpacked), expected)


@pytest.mark.parametrize(
    ("architecture", "variant", "name"),
    [
        ("gpt2", "", "transformer.h.1.mlp.c_fc.bias"),
        ("gptneox", "parallel", "gpt_neox.layers.1.attention.query_key_value.weight"),
        ("falcon", "40B", "transformer.h.2.ln_attn.weight"),
        ("mamba2", "", "backbone.layers.1.mixer.A_log"),
        ("granitehybrid", "experts", "model.layers.1.block_sparse_moe.input_linear.weight"),
        ("qwen3next", "", "model.layers.0.linear_attn.in_proj_qkvz.weight"),
    ],
)
def test_a_missing_tensor_is_named(tmp_path: Path, architecture: str, variant: str, name: str) -> None:
    _, file = save(tmp_path, architecture, variant, without=name)
    with pytest.raises(ModelFileError, match=re.escape(name)):
        LLM(str(file), skip_tokenizer_init=True, max_model_len=64, dtype="float32")


@pytest.mark.parametrize(
    ("architecture", "variant", "keys", "words"),
    [
        ("gptneox", "parallel", {"attention.head_count_kv": 3}, r"144 rows; 6 heads, 3 keys .* are 96"),
        ("gptneox", "parallel", {"rope.dimension_count": 10}, "dimension_count is 10, but a head has 8"),
        ("gpt2", "", {"context_length": 900}, r"wpe.weight has shape \[1024, 48\].*\[900, 48\]"),
        ("falcon", "7B", {"rope.dimension_count": 4}, "dimension_count is 4, but a head has 8"),
        ("phi3", "short longrope", {"rope.dimension_count": 4}, "4 rope factors; .* 4 values .* need 2"),
        ("glm4", "", {"rope.dimension_sections": [1, 1, 1, 0]}, "a model that sees pictures"),
        ("command-r", "", {"logit_scale": None}, "no 'command-r.logit_scale'"),
        ("mpt", "", {"attention.max_alibi_bias": None}, "alibi False; only True"),
        ("mamba2", "", {"ssm.time_step_rank": 7}, "inner_size 96 is not a multiple of the 7 heads"),
        ("mamba2", "", {"ssm.inner_size": 90}, "90, is not a multiple of its width 48"),
        ("mamba2", "", {"ssm.state_size": 24}, r"\[238, 48\].*\[246, 48\]|\[136, 1, 4\].*\[144, 1, 4\]"),
        ("granitehybrid", "dense", {"rope.scaling.finetuned": True}, "a Bamba or another hybrid"),
        ("granitehybrid", "dense", {"attention.head_count_kv": 2}, "one value for 4 layers"),
        ("granitehybrid", "dense", {"attention.head_count_kv": [0, 2]}, "2 values for 4 layers"),
        ("granitehybrid", "dense", {"attention.scale": None}, "no 'granitehybrid.attention.scale'"),
        ("olmo2", "olmo3", {"attention.sliding_window_pattern": [True, False]}, "for each of the 4 layers"),
        ("olmo2", "olmo3", {"attention.sliding_window_pattern": [2, 0, 1, 1]}, "for each of the 4 layers"),
        ("mistral3", "", {"rope.scaling.type": "none"}, "temperature_scale 0.1 and no yarn"),
        ("mistral3", "", {"attention.temperature_length": 16}, "length is 16, and yarn's original length 12"),
        ("mistral3", "", {"expert_count": 4}, "mixture of 4 experts"),
        ("glm4moe", "", {"expert_gating_func": 1}, "expert_gating_func is 1; 2"),
        ("glm4moe", "", {"rope.dimension_sections": [1, 1, 1, 0]}, "sees pictures"),
        ("glm4moe", "", {"nextn_predict_layers": 2}, "nextn_predict_layers is 2, of 2 layers"),
        ("glm4moe", "", {"nextn_predict_layers": 1, "block_count": 3}, "3, but there are tensors of 2"),
        ("qwen3next", "", {"ssm.group_count": 3}, r"attn_qkv.weight' has the shape \[108, 48\].* say 132"),
        ("qwen3next", "", {"ssm.time_step_rank": 7}, "inner_size 60 is not a multiple of the 7 value heads"),
    ],
)
def test_metadata_that_lie(
    tmp_path: Path, architecture: str, variant: str, keys: dict[str, Any], words: str
) -> None:
    _, file = save(tmp_path, architecture, variant, **keys)
    with pytest.raises(ModelFileError, match=words):
        LLM(str(file), skip_tokenizer_init=True, max_model_len=64, dtype="float32")


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, None),
        ({"rope.scaling.yarn_attn_factor": 1.0}, None),
        ({"rope.scaling.yarn_attn_factor": 1.25}, 1.25),
        ({"rope.scaling.attn_factor": 1.25}, 1.25 * (1 + 0.1 * math.log(4))),
    ],
)
def test_what_a_stretched_rope_multiplies_by(
    tmp_path: Path, keys: dict[str, float], expected: float | None
) -> None:
    """One key holds the config's attention_factor, the other what yarn's own is multiplied by."""
    _, file = save(tmp_path, "olmo2", "olmo3", **keys)
    scaling = open_checkpoint(file).config["rope_parameters"]["full_attention"]
    assert scaling.get("attention_factor") == (None if expected is None else pytest.approx(expected))


def test_variants_that_files_do_not_tell_apart(tmp_path: Path) -> None:
    _, file = save(tmp_path, "falcon", "7B", wider={"bias": True})
    with pytest.raises(ModelFileError, match="ALiBi"):
        open_checkpoint(file)
    _, file = save(tmp_path, "falcon-h1", "no norms", without="lm_head.weight")
    with pytest.raises(ModelFileError, match=r"without output\.weight"):
        open_checkpoint(file)


def test_decays_that_grow() -> None:
    """ssm_a holds -exp(x): never above 0."""
    grows = torch.ones(3)
    with pytest.raises(ModelFileError, match="ssm_a"):
        to_logarithm(grows.numpy())
