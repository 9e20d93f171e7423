"""`octavo serve` and the official openai client, on a tiny model: the same tokens as LLM, over every road."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from octavo import LLM, SamplingParams
from tests.end_to_end.server_process import ServerProcess, serving

OPTIONS = ("--max-model-len", "512", "--num-gpu-blocks-override", "300", "--served-model-name", "tiny")
PROMPTS = [f"prompt {'x' * n} number {n}" for n in range(12)]


@pytest.fixture(scope="module")
def server(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tiny_llama, *OPTIONS, log=tmp_path_factory.mktemp("server") / "log") as running:
        yield running


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def expected(tiny_llama: Path) -> list[Any]:
    params = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True, logprobs=2)
    with LLM(str(tiny_llama), max_model_len=512, num_gpu_blocks_override=300) as llm:
        return [output.outputs[0] for output in llm.generate(PROMPTS, params, use_tqdm=False)]


def test_completions_equal_llm(client: openai.OpenAI, expected: list[Any]) -> None:
    answer = client.completions.create(
        model="tiny",
        prompt=PROMPTS,
        max_tokens=20,
        temperature=0,
        logprobs=2,
        extra_body={"ignore_eos": True, "return_token_ids": True},
    )
    assert [choice.text for choice in answer.choices] == [sample.text for sample in expected]
    for choice, sample in zip(answer.choices, expected, strict=True):
        assert choice.token_ids == sample.token_ids  # type: ignore[attr-defined]
        assert choice.logprobs is not None and choice.logprobs.token_logprobs is not None
        ours = [next(iter(position.values())).logprob for position in sample.logprobs]
        assert choice.logprobs.token_logprobs == pytest.approx(ours, abs=1e-5)
    assert answer.usage is not None and answer.usage.completion_tokens == 20 * len(PROMPTS)


def test_streams_in_a_crowd_equal_llm(client: openai.OpenAI, expected: list[Any]) -> None:
    def stream(prompt: str) -> str:
        parts = client.completions.create(
            model="tiny",
            prompt=prompt,
            max_tokens=20,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        text, usage = "", None
        for part in parts:
            text += "".join(choice.text for choice in part.choices)
            usage = part.usage or usage
        assert usage is not None and usage.completion_tokens == 20
        return text

    with concurrent.futures.ThreadPoolExecutor(len(PROMPTS)) as pool:
        assert list(pool.map(stream, PROMPTS)) == [sample.text for sample in expected]


def test_a_seeded_request_is_the_same_alone_and_in_a_crowd(client: openai.OpenAI) -> None:
    def ask(prompt: str, seed: int) -> str:
        answer = client.completions.create(
            model="tiny",
            prompt=prompt,
            max_tokens=16,
            temperature=1.0,
            seed=seed,
            extra_body={"ignore_eos": True},
        )
        return answer.choices[0].text

    alone = [ask("once upon", seed) for seed in range(6)]
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        noise = [pool.submit(ask, f"noise {n}", 1000 + n) for n in range(6)]
        crowd = list(pool.map(lambda seed: ask("once upon", seed), range(6)))
        concurrent.futures.wait(noise)
    assert crowd == alone
    assert len(set(alone)) > 1


def test_chat_streaming_equals_chat_whole(client: openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello!"}]
    whole = client.chat.completions.create(
        model="tiny", messages=messages, max_tokens=24, temperature=0, logprobs=True, top_logprobs=3
    )
    deltas = client.chat.completions.create(
        model="tiny", messages=messages, max_tokens=24, temperature=0, stream=True
    )
    chunks = list(deltas)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert whole.choices[0].logprobs is not None and whole.choices[0].logprobs.content
    assert all(len(token.top_logprobs) == 3 for token in whole.choices[0].logprobs.content)


def test_echo_with_logprobs_scores_a_text(server: ServerProcess, tiny_llama: Path) -> None:
    """What evaluation harnesses send: echo, logprobs, no new tokens; here against transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    ids = list(b"a text to score, token by token")
    body = {
        "model": "tiny",
        "prompt": [ids, ids],
        "max_tokens": 0,
        "echo": True,
        "logprobs": 1,
        "temperature": 0,
    }
    answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=60).json()
    reference = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()
    with torch.inference_mode():
        logprobs_TV = reference(torch.tensor([ids])).logits[0].log_softmax(-1)
    scores = [logprobs_TV[i, token].item() for i, token in enumerate(ids[1:])]
    for choice in answer["choices"]:
        logprobs = choice["logprobs"]
        assert logprobs["token_logprobs"][0] is None
        assert logprobs["token_logprobs"][1:] == pytest.approx(scores, abs=1e-3)
        assert len(logprobs["tokens"]) == len(logprobs["text_offset"]) == len(ids)


def test_a_client_that_leaves_stops_costing(server: ServerProcess) -> None:
    body = {"model": "tiny", "prompt": "go on", "max_tokens": 480, "stream": True, "ignore_eos": True}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=30) as response:
        next(response.iter_lines())
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        metrics = httpx.get(f"{server.url}/metrics").text
        running = next(line for line in metrics.splitlines() if line.startswith("vllm:num_requests_running{"))
        if running.endswith(" 0.0"):
            return
        time.sleep(0.02)
    raise AssertionError("the request still runs")


def test_wrong_input_hurts_nobody(server: ServerProcess, client: openai.OpenAI, expected: list[Any]) -> None:
    bodies: list[Any] = [b"{", b"[]", b'{"prompt": 1e999}', b'{"prompt": "x", "n": 1000000}', b"\xff\xfe"]
    for body in bodies:
        response = httpx.post(
            f"{server.url}/v1/completions", content=body, headers={"content-type": "application/json"}
        )
        assert response.status_code == 400
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model="tiny", prompt="x", max_tokens=100_000)
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="other", prompt="x")
    answer = client.completions.create(
        model="tiny", prompt=PROMPTS[0], max_tokens=20, temperature=0, extra_body={"ignore_eos": True}
    )
    assert answer.choices[0].text == expected[0].text


def test_sigterm_lets_running_requests_finish(tiny_llama: Path, tmp_path: Path) -> None:
    with serving(tiny_llama, *OPTIONS, log=tmp_path / "log") as server:
        body = {"model": "tiny", "prompt": "go on", "max_tokens": 300, "stream": True, "ignore_eos": True}
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            server.process.terminate()
            rest = list(lines)
        assert "data: [DONE]" in rest
        assert any('"finish_reason":"length"' in line for line in rest)
        assert server.stop() == 0


def test_the_key_guards_every_route_but_health(tiny_llama: Path, tmp_path: Path) -> None:
    with serving(tiny_llama, *OPTIONS, "--api-key", "secret", log=tmp_path / "log") as server:
        assert httpx.get(f"{server.url}/health").status_code == 200
        for path in ("/v1/models", "/metrics", "/version", "/docs"):
            assert httpx.get(f"{server.url}{path}").status_code == 401, path
        key = {"authorization": "Bearer secret"}
        assert httpx.get(f"{server.url}/v1/models", headers=key).status_code == 200
