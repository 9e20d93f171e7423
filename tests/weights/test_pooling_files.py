"""What checkpoints say about pooling, and what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from octavo.base.errors import ModelFileError
from octavo.config.pooling import Activation, PoolingType
from octavo.weights.pooling_files import read_pooling
from tests.conformance.pooled import save_modules

BERT = {"architectures": ["BertModel"], "model_type": "bert", "hidden_size": 8}
QWEN = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 8}
SCORES = {"architectures": ["BertForSequenceClassification"], "model_type": "bert", "hidden_size": 8}

POOLING = "1_Pooling/config.json"


def test_decoders_made_into_encoders_only_embed() -> None:
    for entry in ({"is_causal": False}, {"use_bidirectional_attention": True}):
        facts = read_pooling({**QWEN, **entry})
        assert (facts.pooling, facts.is_encoder) == (PoolingType.MEAN, True)
    facts = read_pooling({**QWEN, "is_causal": True, "use_bidirectional_attention": False})
    assert (facts.pooling, facts.is_encoder) == (PoolingType.LAST, False)


def test_without_files_what_is_usual() -> None:
    bert, qwen = read_pooling(BERT), read_pooling(QWEN)
    assert (bert.task, bert.pooling, bert.normalizes, bert.is_encoder) == (
        "embed",
        PoolingType.CLS,
        True,
        True,
    )
    assert (qwen.pooling, qwen.normalizes, qwen.is_encoder) == (PoolingType.LAST, True, False)
    assert bert.num_outputs == qwen.num_outputs == 8


@pytest.mark.parametrize(
    ("mode", "pooling"),
    [("mean_tokens", PoolingType.MEAN), ("cls_token", PoolingType.CLS), ("lasttoken", PoolingType.LAST)],
)
def test_modules_say_how(tmp_path: Path, mode: str, pooling: PoolingType) -> None:
    prompts = {"query": "q: ", "document": ""}
    save_modules(tmp_path, mode, normalizes=mode == "cls_token", prompts=prompts, max_seq_length=99)
    facts = read_pooling(BERT, tmp_path)
    assert (facts.pooling, facts.normalizes) == (pooling, mode == "cls_token")
    assert (facts.max_tokens, facts.lowercases) == (99, False)
    assert (facts.prompts, facts.default_prompt_name) == (prompts, "query")


def test_limits_in_a_file_by_the_older_name(tmp_path: Path) -> None:
    save_modules(tmp_path, "mean_tokens", max_seq_length=99, do_lower_case=True)
    (tmp_path / "sentence_bert_config.json").rename(tmp_path / "sentence_xlm-roberta_config.json")
    facts = read_pooling(BERT, tmp_path)
    assert (facts.max_tokens, facts.lowercases) == (99, True)


@pytest.mark.parametrize(("stated", "most"), [(40, 40), (10**30, None), (None, None)])
def test_as_newer_versions_write_it(tmp_path: Path, stated: int | None, most: int | None) -> None:
    save_modules(tmp_path, "mean_tokens")
    modules = [
        {"path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.sentence_transformer.modules.pooling.Pooling"},
        {"path": "2_Normalize", "type": "sentence_transformers.base.modules.normalize.Normalize"},
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / POOLING).write_text(json.dumps({"pooling_mode": "lasttoken", "include_prompt": True}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": stated}))
    facts = read_pooling(BERT, tmp_path)
    assert (facts.pooling, facts.normalizes, facts.max_tokens) == (PoolingType.LAST, True, most)


@pytest.mark.parametrize(
    ("config", "activation", "count"),
    [
        ({}, Activation.SOFTMAX, 2),
        ({"id2label": {"0": "score"}}, Activation.SIGMOID, 1),
        ({"num_labels": 5}, Activation.SOFTMAX, 5),
        ({"num_labels": 5, "problem_type": "multi_label_classification"}, Activation.SIGMOID, 5),
        ({"num_labels": 1, "problem_type": "regression"}, Activation.NONE, 1),
        (
            {"num_labels": 1, "sentence_transformers": {"activation_fn": "torch.nn.Identity"}},
            Activation.NONE,
            1,
        ),
        ({"num_labels": 2, "sbert_ce_default_activation_function": "x.Sigmoid"}, Activation.SIGMOID, 2),
    ],
)
def test_labels(config: dict[str, Any], activation: Activation, count: int) -> None:
    facts = read_pooling({**SCORES, **config})
    assert (facts.task, facts.activation, facts.num_outputs) == ("classify", activation, count)
    assert len(facts.labels) == count


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        (
            "modules.json",
            [{"type": "sentence_transformers.models.WeightedLayerPooling"}],
            "WeightedLayerPooling",
        ),
        ("modules.json", [{"type": "sentence_transformers.models.Transformer"}], "no Pooling module"),
        ("modules.json", [{"type": "custom_st.Transformer"}], "custom_st.Transformer"),
        ("modules.json", {"type": "sentence_transformers.models.Transformer"}, "a list of JSON objects"),
        (
            "modules.json",
            [{"type": "sentence_transformers.models.Pooling", "path": "../1_Pooling"}],
            "plain name|pools by nothing",
        ),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "pooling_mode_max_tokens"),
        (
            "1_Pooling/config.json",
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            "cls_token",
        ),
        (
            "1_Pooling/config.json",
            {"pooling_mode_mean_tokens": True, "include_prompt": False},
            "include_prompt",
        ),
        ("sentence_bert_config.json", {"max_seq_length": "long"}, "max_seq_length"),
        ("config_sentence_transformers.json", {"prompts": {"a": 5}}, "not all texts"),
        ("config_sentence_transformers.json", {"default_prompt_name": "a"}, "not among the prompts"),
    ],
)
def test_what_is_not_known_is_refused_by_name(tmp_path: Path, file: str, content: Any, words: str) -> None:
    save_modules(tmp_path, "mean_tokens")
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(ModelFileError, match=words):
        read_pooling(BERT, tmp_path)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"num_labels": 0, "id2label": None}, None),
        ({"num_labels": -3}, "num_labels"),
        ({"classifier_pooling": "max"}, "classifier_pooling"),
        ({"sentence_transformers": {"activation_fn": "os.system"}}, "os.system"),
    ],
)
def test_wrong_heads(config: dict[str, Any], words: str | None) -> None:
    if words is None:  # As transformers reads it: two labels.
        assert read_pooling({**SCORES, **config}).num_outputs == 2
        return
    with pytest.raises(ModelFileError, match=words):
        read_pooling({**SCORES, **config})


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        (5, "gguf_dense is 5"),
        ({"a": 5}, "has the widths 5"),
        ({"a": [BERT["hidden_size"], 0]}, "from 1 to"),
        ({"a": [BERT["hidden_size"], 2**40]}, "from 1 to"),
        ({"a": [7, 7]}, "takes 7 numbers"),
    ],
)
def test_wrong_layers_behind_the_pooling(stated: Any, words: str) -> None:
    with pytest.raises(ModelFileError, match=words):
        read_pooling({**BERT, "gguf_dense": stated})
