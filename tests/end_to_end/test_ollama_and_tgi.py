"""The default model behind the clients of Ollama and TGI: the same answers as OpenAI's client gets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import ollama
import openai
import pytest
from huggingface_hub import constants

from tests.end_to_end.server_process import ServerProcess, serving

pytestmark = pytest.mark.real

QUESTION = [{"role": "user", "content": "Name the capital of France."}]
GREEDY = {"temperature": 0, "num_predict": 12}
PROMPT = "The capital of France is"
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "big": {"type": "boolean"}},
    "required": ["city", "big"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def server(default_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("ollama") / "log"
    flags = ("--max-model-len", "512", "--num-gpu-blocks-override", "200", "--served-model-name", "smol")
    with serving(default_model_path, *flags, log=log) as running:
        yield running


@pytest.fixture
def openai_client(server: ServerProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_ollama(server: ServerProcess, openai_client: openai.OpenAI) -> None:
    api = ollama.Client(server.url)
    reference = openai_client.chat.completions.create(
        model="smol",
        messages=QUESTION,  # type: ignore[arg-type]
        temperature=0,
        max_tokens=12,
    )
    text = reference.choices[0].message.content
    reply = api.chat("smol", QUESTION, options=GREEDY)
    assert reply.message.content == text and reply.done
    assert reference.usage is not None
    assert (reply.prompt_eval_count, reply.eval_count) == (
        reference.usage.prompt_tokens,
        reference.usage.completion_tokens,
    )
    streamed = api.chat("smol:latest", QUESTION, options=GREEDY, stream=True)
    assert "".join(part.message.content or "" for part in streamed) == text
    generated = api.generate("smol", QUESTION[0]["content"], options=GREEDY)
    assert generated.response == text and generated.context is not None
    followed = api.generate("smol", "And of Italy?", context=generated.context, options=GREEDY)
    assert followed.response and (followed.prompt_eval_count or 0) > len(generated.context)
    formed = api.chat("smol", QUESTION, format=CITY, options={"temperature": 0, "num_predict": 60})
    assert set(json.loads(formed.message.content or "")) == {"city", "big"}
    page = api.show("smol")
    assert page.modelinfo is not None and page.modelinfo["general.architecture"] == "llama"
    assert page.modelinfo["llama.context_length"] == 512
    (model,) = api.list().models
    assert model.model == "smol:latest" and (model.size or 0) > 10**7


def test_tgi(server: ServerProcess, openai_client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # the server is our own
    api = huggingface_hub.InferenceClient(server.url)
    reference = openai_client.completions.create(
        model="smol", prompt=PROMPT, temperature=0, max_tokens=12, logprobs=0
    )
    text = reference.choices[0].text
    assert api.text_generation(PROMPT, max_new_tokens=12) == text
    assert "".join(api.text_generation(PROMPT, max_new_tokens=12, stream=True)) == text
    reply = api.text_generation(PROMPT, max_new_tokens=12, details=True, decoder_input_details=True)
    assert reply.details is not None and reference.choices[0].logprobs is not None
    logprobs = [token.logprob for token in reply.details.tokens]
    assert logprobs == pytest.approx(reference.choices[0].logprobs.token_logprobs, abs=1e-5)
    assert "".join(token.text for token in reply.details.prefill).endswith("France is")
    stopped = api.text_generation(PROMPT, max_new_tokens=40, stop=["."], details=True)
    assert stopped.details is not None and stopped.details.finish_reason == "stop_sequence"
    assert stopped.generated_text.endswith(".") and "." not in stopped.generated_text[:-1]
    grammar = huggingface_hub.TextGenerationInputGrammarType(type="regex", value="[0-9]{3}")
    assert api.text_generation(PROMPT, max_new_tokens=12, grammar=grammar).isdigit()
    sampled = [api.text_generation(PROMPT, max_new_tokens=12, temperature=1.0, seed=7) for _ in range(2)]
    assert sampled[0] == sampled[1]
