"""Answers in a form by a random model: every answer that ends fits, whoever shares the batch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from octavo import LLM, RequestError, SamplingParams, StructuredOutputsParams

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "size": {"type": "integer", "minimum": 0, "maximum": 99},
        "kind": {"enum": ["red", "größer", None]},
    },
    "required": ["name", "size", "kind"],
    "additionalProperties": False,
}
FORM = StructuredOutputsParams(json=SCHEMA, disable_any_whitespace=True)


def form(seed: int = 0, wish: StructuredOutputsParams = FORM, **more: Any) -> SamplingParams:
    return SamplingParams(temperature=1.0, seed=seed, max_tokens=200, structured_outputs=wish, **more)


@pytest.fixture(scope="module")
def llm(tiny_llama: Path) -> Iterator[LLM]:
    with LLM(str(tiny_llama), max_num_seqs=8, num_blocks=400) as llm:
        yield llm


def texts(llm: LLM, params: list[SamplingParams], prompt: str = "hello") -> list[list[str]]:
    outputs = llm.generate([prompt] * len(params), params, use_tqdm=False)
    for output in outputs:
        assert all(part.finish_reason in ("stop", "length") for part in output.outputs)
    return [[part.text for part in output.outputs] for output in outputs]


def check(text: str) -> None:
    jsonschema.validate(json.loads(text), SCHEMA)


def test_samples_fit(llm: LLM) -> None:
    (found,) = texts(llm, [form(n=4)])
    assert len(set(found)) > 1
    for text in found:
        check(text)


def test_greedy_penalties_and_filters(llm: LLM) -> None:
    params = [
        form().clone(),
        form(1, presence_penalty=2.0, repetition_penalty=1.5),
        form(2, top_k=5),
        form(3, top_p=0.3, min_p=0.1),
        form(4, logit_bias={ord("0"): 50.0}),
    ]
    params[0].temperature = 0.0
    for (text,) in texts(llm, params):
        check(text)


@pytest.mark.parametrize("overlaps", [False, True])
def test_company_and_preemption_change_nothing(tiny_llama: Path, llm: LLM, overlaps: bool) -> None:
    params = [form(seed) for seed in range(6)]
    params += [SamplingParams(temperature=1.0, seed=9, max_tokens=120) for _ in range(2)]
    alone = [texts(llm, [one])[0] for one in params]
    assert texts(llm, params) == alone
    # Room for two or three at a time: requests are preempted and enter again with what they have said.
    with LLM(
        str(tiny_llama), max_num_seqs=8, num_blocks=14, max_model_len=224, async_scheduling=overlaps
    ) as crowded:
        assert texts(crowded, params) == alone
        assert crowded.stats().num_preemptions > 0


def test_logprobs_are_the_models_own(llm: LLM) -> None:
    (output,) = llm.generate(["x"], form(logprobs=3), use_tqdm=False)
    part = output.outputs[0]
    check(part.text)
    assert part.logprobs is not None and len(part.logprobs) == len(part.token_ids)
    free = llm.generate(["x"], SamplingParams(temperature=0.0, max_tokens=1, logprobs=3), use_tqdm=False)
    best = free[0].outputs[0].logprobs
    assert best is not None
    assert sorted(best[0])[:3] == sorted(set(part.logprobs[0]) - {part.token_ids[0]} | set(best[0]))[:3]
    assert min(entry.logprob for entry in part.logprobs[0].values()) < 0.0


def test_choice_regex_grammar_tag(llm: LLM) -> None:
    tag = {
        "format": {
            "type": "tag",
            "begin": "<a>",
            "content": {"type": "regex", "pattern": "[0-9]{2}"},
            "end": "!",
        }
    }
    wishes = [
        StructuredOutputsParams(choice=["yes", "no", "日本"]),
        StructuredOutputsParams(regex="[a-c]{3}-[0-9]"),
        StructuredOutputsParams(grammar='start: "x" ("," "x")~2'),
        StructuredOutputsParams(structural_tag=tag),
    ]
    (choice,), (pattern,), (lark,), (tagged,) = texts(llm, [form(1, wish) for wish in wishes])
    assert choice in ("yes", "no", "日本")
    assert pattern[3] == "-" and len(pattern) == 5
    assert lark == "x,x,x"
    assert tagged.startswith("<a>") and tagged.endswith("!") and len(tagged) == 6


@pytest.mark.parametrize(("more", "jumps"), [({}, True), ({"logprobs": 0}, False)])
def test_what_can_only_follow_takes_no_step_of_its_own(llm: LLM, more: dict[str, Any], jumps: bool) -> None:
    text = "a sentence of which no part is in any doubt"
    wish = StructuredOutputsParams(choice=[text, "b"])
    params = form(
        0, wish, allowed_token_ids=None, logit_bias={llm.get_tokenizer().encode("a")[0]: 90.0}, **more
    )
    before = llm.stats()
    assert texts(llm, [params]) == [[text]]
    after = llm.stats()
    assert after.generation_tokens - before.generation_tokens == len(text) + 1
    assert (after.steps - before.steps < 6) is jumps
    params.max_tokens = 10
    (output,) = llm.generate(["hello"], params, use_tqdm=False)
    assert (output.outputs[0].text, output.outputs[0].finish_reason) == (text[:10], "length")
    assert llm.stats().num_free_blocks == llm.stats().num_blocks


def test_a_form_may_begin_later(llm: LLM) -> None:
    marker = list(b"}")
    tokenizer = llm.get_tokenizer()
    marker = tokenizer.encode("}", add_special_tokens=False)
    wish = StructuredOutputsParams(choice=["done"], begin_after=marker)
    # The bias brings the marker about; before it anything is said, but not the end.
    params = form(3, wish, logit_bias={marker[0]: 2.0})
    params.max_tokens = 900
    ((text,),) = texts(llm, [params])
    free, _, answer = text.partition("}")
    assert free and answer == "done"


def test_refusals_name_the_place_and_nothing_runs(llm: LLM) -> None:
    wish = StructuredOutputsParams(json={"properties": {"a": {"uniqueItems": True}}})
    with pytest.raises(RequestError) as caught:
        llm.generate(["x"], form(0, wish), use_tqdm=False)
    assert caught.value.param == "structured_outputs.json.properties.a.uniqueItems"
    with pytest.raises(RequestError, match="exactly one"):
        llm.generate(["x"], form(0, StructuredOutputsParams()), use_tqdm=False)
    check(texts(llm, [form()])[0][0])


def test_a_grammar_that_fails_late_fails_alone(llm: LLM) -> None:
    """What the front would have refused, as if it had come through."""
    from octavo.base.errors import EngineError

    broken = form(0, StructuredOutputsParams(canonical="start: missing"))
    with pytest.raises(EngineError, match="missing"):
        llm.generate(["x"], broken, use_tqdm=False)
    check(texts(llm, [form()])[0][0])


def test_masks_and_other_masks_together(llm: LLM) -> None:
    """Nothing is left: the request says so and fails alone."""
    from octavo.base.errors import EngineError

    tokenizer = llm.get_tokenizer()
    only = tokenizer.encode("z", add_special_tokens=False)
    with pytest.raises(EngineError, match="No token can be chosen"):
        llm.generate(["x"], form(allowed_token_ids=only), use_tqdm=False)
