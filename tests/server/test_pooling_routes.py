"""Embeddings, scores and labels over HTTP, from tiny random models in the whole engine."""

from __future__ import annotations

import threading
from array import array
from base64 import b64decode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from server_replies import check_error

from octavo import LLM
from octavo.config.root import EngineConfig
from octavo.engine.async_llm import AsyncLLM
from octavo.server.app import create_app
from tests.conformance.pooled import save_modules, save_pooled

PROMPTS = {"query": "find: ", "plain": ""}
WIDTH = 48


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_pooled(tmp_path_factory.mktemp("m") / "embedder", "bert", max_position_embeddings=64)
    return save_modules(folder, "mean_tokens", max_seq_length=40, do_lower_case=True, prompts=PROMPTS)


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pooled(tmp_path_factory.mktemp("m") / "ranker", "bert", num_labels=1)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    labels = {0: "good", 1: "bad", 2: "neither"}
    return save_pooled(tmp_path_factory.mktemp("m") / "classifier", "roberta", id2label=labels, num_labels=3)


class Served:
    """An application around a started engine."""

    def __init__(self, engine: AsyncLLM, **options: Any) -> None:
        self.engine = engine
        app = create_app(engine, engine.config.server, engine.config.observe)
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")
        self.openai = openai.AsyncOpenAI(base_url="http://test/v1", api_key="none", http_client=self.http)

    async def post(self, path: str, **body: Any) -> Any:
        response = await self.http.post(path, json=body)
        assert response.status_code == 200, response.text
        return response.json()

    async def refused(self, path: str, param: str | None, *words: str, **body: Any) -> None:
        response = await self.http.post(path, json=body)
        check_error(response, 400, response.json()["error"]["code"], param)
        for word in words:
            assert word in response.json()["error"]["message"]


async def serve(folder: Path, **options: Any) -> AsyncIterator[Served]:
    config = EngineConfig.from_options({"model": str(folder), "served_model_name": ["tiny"], **options})
    engine = await AsyncLLM.start(config, in_process=True)
    yield Served(engine)
    await engine.shutdown()


@pytest.fixture
async def embeds(embedder: Path) -> AsyncIterator[Served]:
    async for served in serve(embedder):
        yield served


@pytest.fixture
async def ranks(ranker: Path) -> AsyncIterator[Served]:
    async for served in serve(ranker):
        yield served


@pytest.fixture
async def classifies(classifier: Path) -> AsyncIterator[Served]:
    async for served in serve(classifier):
        yield served


def near(first: list[float], second: list[float]) -> bool:
    return max(abs(a - b) for a, b in zip(first, second, strict=True)) < 1e-6


async def test_openai_s_client_embeds(embeds: Served, embedder: Path) -> None:
    with LLM(str(embedder)) as llm:
        expected = [one.outputs.embedding for one in llm.embed(["Hello", "a b"], use_tqdm=False)]
    reply = await embeds.openai.embeddings.create(model="tiny", input=["Hello", "a b"])
    assert [item.index for item in reply.data] == [0, 1] and reply.model == "tiny"
    # "find: hello", between two special tokens; the prompt is the model's default.
    assert reply.usage.prompt_tokens == reply.usage.total_tokens == 13 + 11
    for item, wanted in zip(reply.data, expected, strict=True):  # The client asks for base64.
        assert near(item.embedding, wanted) and abs(sum(x * x for x in item.embedding) - 1) < 1e-5
    as_floats = await embeds.openai.embeddings.create(model="tiny", input="HELLO", encoding_format="float")
    assert near(as_floats.data[0].embedding, expected[0])  # The model wants lower case.


async def test_long_inputs_are_tokenized_in_a_thread_and_admitted_in_the_loop(
    embeds: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits is counted without a lock."""
    threads: dict[str, int] = {}

    def noting(owner: Any, name: str) -> None:
        call = getattr(owner, name)

        def noted(*arguments: Any, **options: Any) -> Any:
            threads[name] = threading.get_ident()
            return call(*arguments, **options)

        monkeypatch.setattr(owner, name, noted)

    noting(embeds.engine._pooling, "prepare")
    noting(embeds.engine._bound, "check")
    await embeds.post("/v1/embeddings", input=["words and more"] * 1100)
    assert threads["prepare"] != threading.get_ident() == threads["check"]


async def test_inputs_of_every_kind(embeds: Served) -> None:
    ids = embeds.engine.tokenizer.encode("find: hello")
    text, by_ids, by_many_ids = [
        (await embeds.post("/v1/embeddings", input=given))["data"] for given in ("hello", ids, [ids, ids[:3]])
    ]
    assert near(text[0]["embedding"], by_ids[0]["embedding"])
    assert near(text[0]["embedding"], by_many_ids[0]["embedding"]) and len(by_many_ids) == 2
    packed = (await embeds.post("/v1/embeddings", input="hello", encoding_format="base64"))["data"]
    assert near(array("f", b64decode(packed[0]["embedding"])).tolist(), text[0]["embedding"])


async def test_wishes(embeds: Served) -> None:
    whole, short, raw, plain = [
        (await embeds.post("/v1/embeddings", input="hello", **wish))["data"][0]["embedding"]
        for wish in ({}, {"dimensions": 5}, {"use_activation": False}, {"prompt_name": "plain"})
    ]
    length = sum(x * x for x in whole[:5]) ** 0.5
    assert near(short, [x / length for x in whole[:5]])
    length = sum(x * x for x in raw) ** 0.5
    assert near(whole, [x / length for x in raw]) and not near(whole, plain)
    older = await embeds.post("/v1/embeddings", input="hello", normalize=False)
    assert near(older["data"][0]["embedding"], raw), "by its older name"
    cut = await embeds.post("/v1/embeddings", input="x" * 100, truncate_prompt_tokens=-1)
    assert cut["usage"]["prompt_tokens"] == 40
    left, right = [
        (
            await embeds.post(
                "/v1/embeddings", input="abcdefghijk", truncate_prompt_tokens=12, truncation_side=s
            )
        )
        for s in ("left", "right")
    ]
    assert left["usage"] == right["usage"] == {"prompt_tokens": 12, "total_tokens": 12}
    assert left["data"] != right["data"]


async def test_wrong_embedding_bodies(embeds: Served) -> None:
    path = "/v1/embeddings"
    await embeds.refused(path, "input", "missing")
    await embeds.refused(path, "input", "empty", input="")
    await embeds.refused(path, "input", "empty", input=[])
    await embeds.refused(path, "input", "input[1]", "empty", input=["a", ""])
    await embeds.refused(path, "input", "input[1]", "another kind", input=["a", [1]])
    await embeds.refused(path, "input", "a string, a list", input=5)
    await embeds.refused(path, "input", "0..258", input=[1, 259])
    await embeds.refused(path, "input", "0..258", input=[[1], [True]])
    await embeds.refused(path, "input", "3000", "2048", input=["a"] * 3000)
    await embeds.refused(path, "input", "48 tokens", "takes 40", input="x" * 40)
    await embeds.refused(path, "input", "characters", input="x" * 10_000)
    await embeds.refused(path, "dimensions", "49", "48", input="a", dimensions=49)
    await embeds.refused(path, "dimensions", input="a", dimensions=0)
    await embeds.refused(path, "truncate_prompt_tokens", "-1 or", input="a", truncate_prompt_tokens=0)
    await embeds.refused(path, "truncate_prompt_tokens", "no room", input="a" * 50, truncate_prompt_tokens=2)
    await embeds.refused(path, "normalize", "use_activation", input="a", normalize=True, use_activation=False)
    await embeds.refused(path, "prompt_name", "query, plain", input="a", prompt_name="other")
    await embeds.refused(path, "encoding_format", input="a", encoding_format="int8")
    headers = {"content-type": "application/json"}
    half = await embeds.http.post(path, content=rb'{"input": "a\ud800"}', headers=headers)
    check_error(half, 400, half.json()["error"]["code"], half.json()["error"]["param"])
    missing = await embeds.http.post(path, json={"model": "other", "input": "a"})
    check_error(missing, 404, "model_not_found", "model")


@pytest.mark.parametrize(
    "path",
    ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/invocations"],
)
async def test_a_model_that_embeds_writes_nothing(embeds: Served, path: str) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}
    response = await embeds.http.post(path, json=body)
    assert response.status_code == 400
    assert "/v1/embeddings" in response.json()["error"]["message"]


async def test_scores_of_a_model_that_embeds_are_cosines(embeds: Served) -> None:
    texts = ["a cat", "a dog", "the stock exchange"]
    vectors = [one["embedding"] for one in (await embeds.post("/v1/embeddings", input=texts))["data"]]
    expected = [sum(a * b for a, b in zip(vectors[0], other, strict=True)) for other in vectors]
    reply = await embeds.post("/v1/score", text_1=texts[0], text_2=texts)
    assert near([one["score"] for one in reply["data"]], expected)
    assert reply == {**(await embeds.post("/score", queries=texts[0], documents=texts)), **_own(reply)}
    await embeds.refused("/score", "text_2", "2 texts", "3", text_1=texts[:2], text_2=texts)
    await embeds.refused("/score", "text_1", "either text_1 or queries", text_2=texts)
    await embeds.refused("/classify", "model", "not what this model was made for", input="a")


async def test_rerank_puts_the_best_first(ranks: Served, ranker: Path) -> None:
    query, documents = "a question", ["an answer", "another", "neither of the two"]
    with LLM(str(ranker)) as llm:
        expected = llm.rerank(query, documents, use_tqdm=False)
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        given = [documents[0], {"text": documents[1]}, documents[2]]
        reply = await ranks.post(path, model="tiny", query=query, documents=given, top_n=2)
        assert [one["index"] for one in reply["results"]] == [one.index for one in expected[:2]]
        scores = [one["relevance_score"] for one in reply["results"]]
        assert near(scores, [one.relevance_score for one in expected[:2]]) and all(0 < x < 1 for x in scores)
        assert [one["document"]["text"] for one in reply["results"]] == [one.document for one in expected[:2]]
        assert reply["usage"]["total_tokens"] > 0
    bare = await ranks.post("/rerank", query=query, documents=documents, return_documents=False)
    assert len(bare["results"]) == 3 and all("document" not in one for one in bare["results"])
    raw = await ranks.post("/score", text_1=query, text_2=documents[0], use_activation=False)
    assert raw["data"][0]["score"] != scores[0]
    await ranks.refused("/rerank", "query", documents=documents)
    await ranks.refused("/rerank", "documents", "documents[1]", query=query, documents=["a", {"title": "b"}])
    await ranks.refused("/rerank", "documents", "empty", query=query, documents=[])
    await ranks.refused("/rerank", "top_n", query=query, documents=documents, top_n=-1)
    await ranks.refused("/v1/embeddings", "model", "classify", input="a")


async def test_labels(classifies: Served, classifier: Path) -> None:
    with LLM(str(classifier)) as llm:
        expected = [one.outputs.probs for one in llm.classify(["a", "some text"], use_tqdm=False)]
    for path in ("/classify", "/v1/classify"):
        reply = await classifies.post(path, model="tiny", input=["a", "some text"])
        for item, probs in zip(reply["data"], expected, strict=True):
            assert near(item["probs"], probs) and abs(sum(probs) - 1) < 1e-5 and item["num_classes"] == 3
            assert item["label"] == ["good", "bad", "neither"][probs.index(max(probs))]
    await classifies.refused("/score", "model", "3 labels", text_1="a", text_2="b")
    raw, *older = [
        await classifies.post("/classify", input="a", **{name: False})
        for name in ("use_activation", "activation", "softmax")
    ]
    assert abs(sum(raw["data"][0]["probs"]) - 1) > 1e-3
    assert all(reply["data"] == raw["data"] for reply in older)


async def test_numbers_as_they_are(embeds: Served) -> None:
    vector = (await embeds.post("/v1/embeddings", input="hello"))["data"][0]["embedding"]
    reply = await embeds.post("/pooling", input="hello")
    assert reply["data"][0]["object"] == "pooling" and near(reply["data"][0]["data"], vector)
    tokens = (await embeds.post("/pooling", input="hello", task="token_embed"))["data"][0]["data"]
    assert len(tokens) == 13 and all(len(row) == WIDTH for row in tokens)
    await embeds.refused("/pooling", "task", "embed, token_embed", input="a", task="classify")


async def test_ollama_s_routes(embeds: Served) -> None:
    vector = (await embeds.post("/v1/embeddings", input="hello"))["data"][0]["embedding"]
    reply = await embeds.post("/api/embed", model="tiny:latest", input=["hello", "x" * 500])
    assert near(reply["embeddings"][0], vector) and reply["prompt_eval_count"] == 13 + 40
    assert near((await embeds.post("/api/embeddings", model="tiny", prompt="hello"))["embedding"], vector)
    shown = await embeds.post("/api/show", model="tiny")
    assert shown["capabilities"] == ["embedding"]
    long = await embeds.http.post("/api/embed", json={"model": "tiny", "input": "x" * 90, "truncate": False})
    assert long.status_code == 400 and "takes 40" in long.json()["error"]


async def test_text_embeddings_inference_s_route(embeds: Served) -> None:
    vector = (await embeds.post("/v1/embeddings", input="hello"))["data"][0]["embedding"]
    one, many = [(await embeds.post("/embed", inputs=given)) for given in ("hello", ["hello", "b"])]
    assert near(one[0], vector) and near(many[0], vector) and len(many) == 2
    raw = await embeds.post("/embed", inputs="hello", normalize=False)
    assert not near(raw[0], vector)


async def test_what_is_measured(embeds: Served) -> None:
    await embeds.post("/v1/embeddings", input=["hello", "there"])
    text = (await embeds.http.get("/metrics")).text
    assert 'finished_reason="stop",model_name="tiny"} 2.0' in text
    assert 'prompt_tokens_total{engine="0",model_name="tiny"} 26.0' in text


async def test_a_model_that_writes_makes_no_embeddings(client: httpx.AsyncClient) -> None:
    for path, body in (
        ("/v1/embeddings", {"input": "a"}),
        ("/pooling", {"input": "a"}),
        ("/classify", {"input": "a"}),
        ("/score", {"text_1": "a", "text_2": "b"}),
        ("/rerank", {"query": "a", "documents": ["b"]}),
    ):
        response = await client.post(path, json=body)
        check_error(response, 400, "unsupported_value", "model")
        assert "--runner pooling" in response.json()["error"]["message"]


def _own(reply: dict[str, Any]) -> dict[str, Any]:
    return {"id": reply["id"], "created": reply["created"]}
