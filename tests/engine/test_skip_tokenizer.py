"""skip_tokenizer_init: token ids in, token ids out, and a clear refusal of everything that needs text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from octavo import LLM, RequestError, SamplingParams
from octavo.executor.fake import FakeExecutor
from octavo.server.app import create_app
from tests.tiny import VOCAB_SIZE

PROMPT = list(range(40))
GREEDY = {"temperature": 0.0, "max_tokens": 6, "ignore_eos": True}


def test_llm_runs_on_a_folder_that_holds_only_a_config(bare_folder: Path) -> None:
    with LLM(str(bare_folder), skip_tokenizer_init=True, load_format="dummy", num_blocks=40) as llm:
        outputs = llm.generate([PROMPT, PROMPT[:5]], SamplingParams(**GREEDY, logprobs=2), use_tqdm=False)
        assert [len(output.outputs[0].token_ids) for output in outputs] == [6, 6]
        assert all(output.outputs[0].text == "" for output in outputs)
        # Tokens have to stay distinct where nobody knows their text.
        assert outputs[0].outputs[0].logprobs is not None
        for token_id, entry in outputs[0].outputs[0].logprobs[0].items():
            assert entry.decoded_token == f"token_id:{token_id}"
        with pytest.raises(RequestError, match="skip_tokenizer_init") as caught:
            llm.generate("a text", use_tqdm=False)
        assert caught.value.param == "prompt"
        with pytest.raises(RequestError, match="skip_tokenizer_init") as caught:
            llm.chat([{"role": "user", "content": "x"}], use_tqdm=False)
        assert caught.value.param == "messages"
        with pytest.raises(RequestError, match="skip_tokenizer_init"):
            llm.get_tokenizer().decode([1])


@pytest.mark.parametrize(("name", "value"), [("stop", "x"), ("stop", ["x"]), ("bad_words", ["x"])])
async def test_what_speaks_of_text_is_refused_by_name(make_engine: Any, name: str, value: Any) -> None:
    engine = await make_engine(skip_tokenizer_init=True)
    with pytest.raises(RequestError, match="skip_tokenizer_init") as caught:
        engine.generate(PROMPT, SamplingParams(**GREEDY, **{name: value}))
    assert caught.value.param == name
    await engine.shutdown()


class TestServer:
    """The routes of a server without a tokenizer."""

    @pytest.fixture
    async def client(self, make_engine: Any) -> Any:
        executor = FakeExecutor(vocab_size=VOCAB_SIZE, step_seconds=0.001)
        engine = await make_engine(executor, skip_tokenizer_init=True, served_model_name=["bare"])
        app = create_app(engine, engine.config.server, engine.config.observe)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            yield client
        await engine.shutdown()

    async def test_completions_with_token_ids(self, client: httpx.AsyncClient) -> None:
        body = {"prompt": PROMPT, **GREEDY, "return_token_ids": True}
        reply = (await client.post("/v1/completions", json=body)).json()
        assert reply["choices"][0]["text"] == "" and len(reply["choices"][0]["token_ids"]) == 6
        assert reply["usage"]["completion_tokens"] == 6

    async def test_a_stream_still_shows_progress(self, client: httpx.AsyncClient) -> None:
        body = {"prompt": PROMPT, **GREEDY, "max_tokens": 100, "stream": True}
        response = await client.post("/v1/completions", json=body)
        chunks = [json.loads(line[6:]) for line in response.text.split("\n\n")[:-2]]
        assert len(chunks) > 5 and {chunk["choices"][0]["text"] for chunk in chunks} == {""}

    @pytest.mark.parametrize(
        ("path", "body", "param"),
        [
            ("/v1/completions", {"prompt": "text"}, "prompt"),
            ("/v1/completions", {"prompt": PROMPT, "stop": ["x"]}, "stop"),
            ("/v1/completions", {"prompt": PROMPT, "echo": True, "stream": True}, "echo"),
            ("/v1/completions", {"prompt": []}, "prompt"),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}, "messages"),
            ("/tokenize", {"prompt": "text"}, "prompt"),
            ("/detokenize", {"tokens": [1, 2]}, "tokens"),
        ],
    )
    async def test_text_is_refused(
        self, client: httpx.AsyncClient, path: str, body: dict[str, Any], param: str
    ) -> None:
        response = await client.post(path, json=body)
        error = response.json()["error"]
        assert (response.status_code, error["param"]) == (400, param), error
