"""POST /classify, /score and /rerank: labels of texts, and how well texts fit each other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from octavo.base.errors import RequestError
from octavo.engine.pooling.offline import check_scores_pairs, cosine, pairs_of
from octavo.engine.pooling.outputs import PoolingRequestOutput, floats_of
from octavo.engine.pooling.refuse import cannot_pool, cannot_task
from octavo.server.body import read
from octavo.server.list_reply import NUMBER_BYTES, list_reply
from octavo.server.pooling.embeddings import num_numbers
from octavo.server.pooling.inputs import check_count, inputs_of, texts_of
from octavo.server.pooling.run import run_inputs, usage_of
from octavo.server.pooling.schema import (
    ClassifyBody,
    ClassifyData,
    ClassifyReply,
    PoolingBody,
    PoolingUsage,
    RerankBody,
    RerankDocument,
    RerankItem,
    RerankReply,
    ScoreBody,
    ScoreData,
    ScoreReply,
)
from octavo.server.replies import json_reply, off_loop_if_long, request_id_of
from octavo.server.serving import Serving


async def classify(serving: Serving, request: Request) -> Response:
    body, num_bytes = await read(request, ClassifyBody)
    model = serving.check_model(body.model)
    facts = serving.engine.facts.pooling
    if facts is None:
        raise cannot_pool("/classify")
    if facts.task != "classify":
        raise cannot_task("/classify", facts)
    outputs = await run_inputs(
        serving, request, inputs_of(body.input), body.params("classify"), num_bytes=num_bytes, body=body
    )
    reply = ClassifyReply(
        id=f"classify-{request_id_of(request)}",
        created=int(time.time()),
        model=model,
        data=[],
        usage=usage_of(outputs),
    )
    data = (_labelled(index, one, facts.labels) for index, one in enumerate(outputs))
    return await list_reply(data, num_numbers(outputs), whole=reply)


async def score(serving: Serving, request: Request) -> Response:
    body, num_bytes = await read(request, ScoreBody)
    model = serving.check_model(body.model)
    firsts = _either(body.text_1, "text_1", body.queries, "queries")
    seconds = _either(body.text_2, "text_2", body.documents, "documents")
    pairs = pairs_of(firsts, seconds, "text_2" if body.documents is None else "documents")
    scores, usage = await _score(serving, request, pairs, body, num_bytes)
    reply = ScoreReply(
        id=f"score-{request_id_of(request)}",
        created=int(time.time()),
        model=model,
        data=[ScoreData(index=index, score=value) for index, value in enumerate(scores)],
        usage=usage,
    )
    return json_reply(reply)


async def rerank(serving: Serving, request: Request) -> Response:
    body, num_bytes = await read(request, RerankBody)
    model = serving.check_model(body.model)
    documents = _documents(body.documents)
    if body.top_n is not None and body.top_n < 0:
        raise RequestError(f"top_n is {body.top_n}; it must be at least 1.", param="top_n")
    query = texts_of(body.query, "query")[0]
    pairs = [(query, document) for document in documents]
    scores, usage = await _score(serving, request, pairs, body, num_bytes)
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[: body.top_n or None]
    results = [RerankItem(index=index, relevance_score=scores[index]) for index in order]
    if body.return_documents is not False:
        for item in results:
            item.document = RerankDocument(documents[item.index])
    return json_reply(
        RerankReply(id=f"rerank-{request_id_of(request)}", model=model, usage=usage, results=results)
    )


async def _score(
    serving: Serving, request: Request, pairs: Sequence[tuple[str, str]], body: PoolingBody, num_bytes: int
) -> tuple[list[float], PoolingUsage]:
    """Of each pair. A model that embeds reads each text once."""
    facts = serving.engine.facts.pooling
    if facts is None:
        raise cannot_pool("This route")
    if facts.can_embed:
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        outputs = await run_inputs(
            serving, request, texts, body.params("embed"), num_bytes=num_bytes, body=body
        )
        scores = await off_loop_if_long(
            len(pairs) * num_numbers(outputs[:1]) * NUMBER_BYTES, _cosines, pairs, texts, outputs
        )
        return scores, usage_of(outputs)
    check_scores_pairs(facts.num_outputs)
    outputs = await run_inputs(
        serving, request, list(pairs), body.params("classify"), num_bytes=num_bytes, body=body
    )
    return [floats_of(one.outputs.numbers)[0] for one in outputs], usage_of(outputs)


def _cosines(
    pairs: Sequence[tuple[str, str]], texts: Sequence[str], outputs: Sequence[PoolingRequestOutput]
) -> list[float]:
    vectors = {text: floats_of(one.outputs.numbers) for text, one in zip(texts, outputs, strict=True)}
    return [cosine(vectors[first], vectors[second]) for first, second in pairs]


def _labelled(index: int, output: PoolingRequestOutput, labels: Sequence[str]) -> ClassifyData:
    probs = floats_of(output.outputs.numbers)
    best = max(range(len(probs)), key=probs.__getitem__)
    return ClassifyData(index=index, label=labels[best], probs=probs, num_classes=len(probs))


def _either(first: Any, name: str, second: Any, other_name: str) -> list[str]:
    """Of two names of one thing, the one that is given."""
    if (first is None) == (second is None):
        raise RequestError(f"Give either {name} or {other_name}.", param=name)
    return texts_of(second if first is None else first, other_name if first is None else name)


def _documents(given: list[str | dict[str, Any]]) -> list[str]:
    check_count(len(given), "documents")
    return texts_of([one.get("text") if isinstance(one, dict) else one for one in given], "documents")
