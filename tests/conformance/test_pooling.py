"""Embeddings and scores of tiny random models against transformers: alone, in a crowd, in chunks; float32."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from octavo import LLM
from octavo.base.errors import ModelFileError
from octavo.engine.pooling.offline import cosine
from octavo.messages.pooling import PoolingParams
from tests.conformance.pooled import (
    BOTH_WAYS,
    DECODERS,
    ENCODERS,
    LONGEST,
    below_transformer,
    save_modules,
    save_pooled,
)
from tests.tiny import VOCAB_SIZE

TOLERANCE = 1e-5
RAW = PoolingParams(use_activation=False)
LENGTHS = [1, 2, 3, 8, 9, 15, 16, 17, 33, 34, 64, 90, 150, 151, 300, LONGEST]


def prompts(shared: int = 0) -> list[list[int]]:
    """Lengths from 1 to the most, the first `shared` tokens the same. Ids under 7 mean padding to some."""
    source = random.Random(5)
    begin = [source.randrange(7, VOCAB_SIZE) for _ in range(shared)]
    own = [[source.randrange(7, VOCAB_SIZE) for _ in range(length)] for length in LENGTHS]
    return [(begin + ids)[: len(ids)] if shared else ids for ids in own]


def states(folder: Path, given: list[list[int]], dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """Last hidden states [T, E] of each prompt, one by one."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()
    with torch.inference_mode():
        return [model(torch.tensor([ids])).last_hidden_state[0].float() for ids in given]


def logits(folder: Path, given: list[list[int]]) -> list[torch.Tensor]:
    from transformers import AutoModelForSequenceClassification

    kind = AutoModelForSequenceClassification
    model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.inference_mode():
        # Decoders look for the last token that is no padding: say that there is none.
        return [model(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).logits[0] for ids in given]


def check(outputs: list[Any], expected: list[torch.Tensor], tolerance: float = TOLERANCE) -> None:
    for output, wanted in zip(outputs, expected, strict=True):
        # Relative where numbers are large.
        scale = max(1.0, wanted.abs().max().item())
        assert (output.outputs.data - wanted).abs().max().item() < tolerance * scale


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_encoders_embed_as_transformers(tmp_path: Path, name: str, pooling: str) -> None:
    family, overrides = ENCODERS[name]
    folder = save_pooled(tmp_path / "model", family, **overrides)
    given = prompts()
    hidden = states(folder, given)
    expected = [one[0] if pooling == "cls" else one.mean(0) for one in hidden]
    with LLM(str(folder), pooling_type=pooling) as llm:
        assert llm.config.model.max_model_len == LONGEST
        check(llm.encode(given, RAW, use_tqdm=False), expected)
        alone = [llm.encode(ids, RAW, use_tqdm=False)[0] for ids in given]
        check(alone, expected)
        unit = [torch.nn.functional.normalize(one, dim=0) for one in expected]
        check(llm.encode(given, use_tqdm=False), unit)
        check(llm.encode(given, pooling_task="token_embed", pooling_params=RAW, use_tqdm=False), hidden)


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_classify_as_transformers(tmp_path: Path, name: str) -> None:
    family, overrides = ENCODERS[name]
    folder = save_pooled(tmp_path / "model", family, num_labels=3, **overrides)
    given = prompts()
    expected = logits(folder, given)
    with LLM(str(folder)) as llm:
        check(llm.encode(given, RAW, use_tqdm=False), expected)
        probabilities = [torch.tensor(one.outputs.probs) for one in llm.classify(given, use_tqdm=False)]
    for ours, wanted in zip(probabilities, expected, strict=True):
        assert (ours - wanted.softmax(-1)).abs().max().item() < TOLERANCE


@pytest.mark.parametrize("name", ["bert", "roberta", "modernbert", "mpnet"])
@pytest.mark.parametrize("is_bare", [True, False])
def test_an_embedder_may_be_called_what_it_was_trained_from(tmp_path: Path, name: str, is_bare: bool) -> None:
    """all-distilroberta-v1 says RobertaForMaskedLM and holds a bare model; others have the head, too."""
    from transformers import AutoModel, AutoModelForMaskedLM

    family, overrides = ENCODERS[name]
    folder = save_pooled(tmp_path / "model", family, **overrides)
    given = prompts()[:8]
    expected = [one.mean(0) for one in states(folder, given)]
    model = AutoModelForMaskedLM.from_config(AutoModel.from_pretrained(folder).config)
    model.base_model.load_state_dict(AutoModel.from_pretrained(folder).state_dict(), strict=False)
    if not is_bare:
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = [type(model).__name__]
    (folder / "config.json").write_text(json.dumps(config))
    save_modules(folder, "mean_tokens", normalizes=False)
    with LLM(str(folder)) as llm:
        check(llm.encode(given, use_tqdm=False), expected)


MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "chunked": {"max_num_batched_tokens": 32},
    "whole": {"enable_chunked_prefill": False},
    "few blocks": {"num_gpu_blocks_override": 140, "max_num_batched_tokens": 64},
}


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_decoders_embed_as_transformers(tmp_path: Path, name: str, mode: str, pooling: str) -> None:
    family, overrides = DECODERS[name]
    folder = save_pooled(tmp_path / "model", family, **overrides)
    given = prompts(shared=70)
    hidden = states(folder, given)
    expected = [one[-1] if pooling == "last" else one.mean(0) for one in hidden]
    with LLM(str(folder), pooling_type=pooling, max_model_len=LONGEST, **MODES[mode]) as llm:
        for _ in range(2):  # The second time everything but the last block is cached, if anything may be.
            check(llm.encode(given, RAW, use_tqdm=False), expected)
        hits = llm.stats().prefix_hits_tokens
        assert (hits > 0) == (pooling == "last")
        check(llm.encode(given, pooling_task="token_embed", pooling_params=RAW, use_tqdm=False), hidden)


@pytest.mark.parametrize("name", BOTH_WAYS)
def test_decoders_whose_tokens_see_both_ways_embed_as_transformers(tmp_path: Path, name: str) -> None:
    family, overrides = BOTH_WAYS[name]
    folder = save_pooled(tmp_path / "model", family, **overrides)
    given = prompts()
    hidden = states(folder, given)
    assert (hidden[-1][0] - states(folder, [given[-1][:20]])[0][0]).abs().max() > 1e-3, "it sees only before"
    with LLM(str(folder), max_model_len=LONGEST) as llm:
        assert llm.config.model.pooling_type == "mean" and not llm.config.cache.enable_prefix_caching
        check(llm.encode(given, RAW, use_tqdm=False), [one.mean(0) for one in hidden])
        check(llm.encode(given, pooling_task="token_embed", pooling_params=RAW, use_tqdm=False), hidden)


@pytest.mark.parametrize("name", DECODERS)
def test_decoders_score_as_transformers(tmp_path: Path, name: str) -> None:
    family, overrides = DECODERS[name]
    folder = save_pooled(tmp_path / "model", family, num_labels=1, **overrides)
    given = prompts(shared=70)
    expected = logits(folder, given)
    with LLM(str(folder), max_model_len=LONGEST, max_num_batched_tokens=64) as llm:
        check(llm.reward(given, use_tqdm=False), expected)
        scores = [one.outputs.probs[0] for one in llm.classify(given, use_tqdm=False)]
    for ours, wanted in zip(scores, expected, strict=True):
        assert abs(ours - wanted.sigmoid().item()) < TOLERANCE


def test_a_decoder_with_a_head_is_pooled_where_its_files_say_so(tmp_path: Path) -> None:
    """As Qwen3-Embedding is stored: ForCausalLM, and the files of sentence-transformers."""
    from tests.tiny import save_model

    folder = save_modules(save_model(tmp_path / "model", "qwen3"), "lasttoken", max_seq_length=200)
    given = [ids for ids in prompts() if len(ids) <= 200]
    expected = [torch.nn.functional.normalize(one[-1], dim=0) for one in states(folder, given)]
    with LLM(str(folder)) as llm:
        assert llm.config.model.max_model_len == 200
        check(llm.encode(given, use_tqdm=False), expected)
    with LLM(str(folder), runner="generate", max_model_len=64) as llm:
        assert len(llm.generate([given[0]], use_tqdm=False)) == 1


@pytest.mark.parametrize("name", ["bert", "roberta", "electra", "deberta-v2, positions, no buckets", "gte"])
def test_pairs_are_scored_as_transformers(tmp_path: Path, name: str) -> None:
    """A cross-encoder: some are told which token belongs to which text, RoBERTa and GTE are not."""
    from transformers import AutoModelForSequenceClassification

    family, overrides = ENCODERS[name]
    folder = save_pooled(tmp_path / "model", family, num_labels=1, **overrides)
    query, documents = "a question", ["an answer", "x", "a longer answer, with more words in it " * 3]
    kind = AutoModelForSequenceClassification
    model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with LLM(str(folder)) as llm:
        scored = llm.score(query, documents, use_tqdm=False)
        order = llm.rerank(query, documents, use_tqdm=False)
        for document, output in zip(documents, scored, strict=True):
            encoding = llm.get_tokenizer().backend.encode(query, document)
            assert output.prompt_token_ids == encoding.ids and 1 in encoding.type_ids
            is_told = name not in ("roberta", "gte")
            types = torch.tensor([encoding.type_ids if is_told else [0] * len(encoding.ids)])
            with torch.inference_mode():
                wanted = (
                    model(torch.tensor([encoding.ids]), token_type_ids=types).logits[0, 0].sigmoid().item()
                )
            assert abs(output.outputs.score - wanted) < TOLERANCE
    scores = [result.relevance_score for result in order]
    assert scores == sorted((one.outputs.score for one in scored), reverse=True)
    assert [documents[result.index] for result in order] == [result.document for result in order]


def test_linear_layers_behind_the_pooling(tmp_path: Path) -> None:
    """As sentence-transformers stores them: a folder each, with weights of its own."""
    import json

    from safetensors.torch import save_file

    folder = save_modules(save_pooled(tmp_path / "model", "bert", **ENCODERS["bert"][1]), "mean_tokens")
    modules = json.loads((folder / "modules.json").read_text())
    shapes = {"2_Dense": (48, 20, "Tanh"), "3_Dense": (20, 7, "Identity")}
    generator = torch.Generator().manual_seed(3)
    dense = {}
    for place, (name, (width_in, width_out, activation)) in enumerate(shapes.items()):
        modules.insert(2 + place, {"path": name, "type": "sentence_transformers.models.Dense"})
        (folder / name).mkdir()
        said = {"in_features": width_in, "out_features": width_out, "bias": place == 0}
        said["activation_function"] = f"torch.nn.modules.activation.{activation}"
        (folder / name / "config.json").write_text(json.dumps(said))
        weights = {"linear.weight": torch.randn(width_out, width_in, generator=generator)}
        if place == 0:
            weights["linear.bias"] = torch.randn(width_out, generator=generator)
        save_file(weights, folder / name / "model.safetensors")
        dense[name] = weights
    (folder / "modules.json").write_text(json.dumps(modules))
    given = prompts()
    expected = []
    for one in states(folder, given):
        first = torch.nn.functional.linear(one.mean(0), *dense["2_Dense"].values()).tanh()
        expected.append(torch.nn.functional.normalize(dense["3_Dense"]["linear.weight"] @ first, dim=0))
    with LLM(str(folder)) as llm:
        check(llm.encode(given, use_tqdm=False), expected)
    (folder / "2_Dense/model.safetensors").rename(folder / "2_Dense/pytorch_model.bin")
    with pytest.raises(ModelFileError, match=r"2_Dense.*only in 'pytorch_model.bin'.*safetensors: cd "):
        LLM(str(folder))
    (folder / "3_Dense/config.json").write_text(json.dumps({"in_features": 21, "out_features": 7}))
    with pytest.raises(ModelFileError, match="takes 21 numbers; 20 come in"):
        LLM(str(folder))


def test_a_transformer_in_a_folder_of_its_own(tmp_path: Path) -> None:
    """As older versions of sentence-transformers write it."""
    from tokenizers import Tokenizer

    inner = save_pooled(tmp_path / "model/0_Transformer", "bert", **ENCODERS["bert"][1])
    folder = tmp_path / "model"
    below_transformer(save_modules(folder, "mean_tokens", prompts={"query": "q: "}, max_seq_length=40))
    texts = ["a text", "another one of them"]
    tokenizer = Tokenizer.from_file(str(inner / "tokenizer.json"))
    given = [tokenizer.encode(f"q: {text}").ids for text in texts]
    expected = [torch.nn.functional.normalize(one.mean(0), dim=0) for one in states(inner, given)]
    with LLM(str(folder), dtype="float32") as llm:
        assert llm.config.model.max_model_len == 40
        assert llm.config.model.served_model_name == ["model"]
        check(llm.encode(texts, use_tqdm=False), expected)


def test_rounding_makes_no_cosine_larger_than_one() -> None:
    source = random.Random(2)
    vectors = [[source.gauss(0, 1) for _ in range(48)] for _ in range(100)]
    raw = [sum(x * x for x in one) / math.hypot(*one) / math.hypot(*one) for one in vectors]
    assert max(raw) > 1.0, "else this would show nothing"
    assert max(cosine(one, one) for one in vectors) == 1.0
    assert min(cosine(one, [-x for x in one]) for one in vectors) == -1.0
    assert math.isnan(cosine([1.0, math.nan], [1.0, 1.0]))
