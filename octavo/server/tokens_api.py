"""POST /tokenize and /detokenize: what the tokenizer makes of text, messages and ids."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from octavo.base.errors import ErrorCode, RequestError
from octavo.server.body import read
from octavo.server.openai.schema.tokens import (
    DetokenizeBody,
    DetokenizeReply,
    TokenizeBody,
    TokenizeReply,
    TokenizerInfo,
)
from octavo.server.openapi import ApiPage
from octavo.server.render.chat import encode_conversation
from octavo.server.render.text import check_text_fits, ids_prompt
from octavo.server.replies import json_reply, off_loop_if_long, weighed
from octavo.server.serving import Serving


def add_token_routes(app: FastAPI, serving: Serving, page: ApiPage) -> None:
    @app.post(
        "/tokenize",
        tags=["tokens"],
        summary="Text or messages to ids",
        **page.describe(TokenizeReply, body=TokenizeBody),
    )
    async def tokenize(request: Request) -> Response:
        body, num_bytes = await read(request, TokenizeBody)
        serving.check_model(body.model)
        return json_reply(
            await off_loop_if_long(weighed(num_bytes, body.chat_template), _tokenize, serving, body)
        )

    @app.post(
        "/detokenize",
        tags=["tokens"],
        summary="Ids to text",
        **page.describe(DetokenizeReply, body=DetokenizeBody),
    )
    async def detokenize(request: Request) -> Response:
        body, num_bytes = await read(request, DetokenizeBody)
        serving.check_model(body.model)
        return json_reply(await off_loop_if_long(num_bytes, _detokenize, serving, body))

    @app.get("/tokenizer_info", tags=["tokens"], summary="The tokenizer", **page.describe(TokenizerInfo))
    async def tokenizer_info(_: Request) -> Response:
        return json_reply(_info(serving))


def _tokenize(serving: Serving, body: TokenizeBody) -> TokenizeReply:
    if (body.prompt is None) == (not body.messages):
        raise RequestError("Give either prompt or messages.", param="prompt")
    if body.prompt is None:
        token_ids = encode_conversation(serving, body, bool(body.add_special_tokens))
    else:
        check_text_fits(serving, len(body.prompt), "prompt")
        token_ids = serving.tokenizer.encode(body.prompt, body.add_special_tokens is not False)
    reply = TokenizeReply(len(token_ids), serving.engine.max_request_tokens, token_ids)
    if body.return_token_strs:
        reply.token_strs = [serving.tokenizer.token_text(token_id) for token_id in token_ids]
    return reply


def _info(serving: Serving) -> TokenizerInfo:
    tokenizer = serving.tokenizer
    return TokenizerInfo(
        vocab_size=serving.engine.vocab_size,
        max_model_len=serving.engine.max_request_tokens,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_ids=tokenizer.eos_token_ids,
        special_tokens=tokenizer.special_tokens,
        chat_template=tokenizer.chat_template,
    )


def _detokenize(serving: Serving, body: DetokenizeBody) -> DetokenizeReply:
    limit = serving.engine.max_request_tokens
    if len(body.tokens) > limit:
        raise RequestError(
            f"tokens has {len(body.tokens)} ids; at most {limit}, the model's context.",
            code=ErrorCode.CONTEXT_LENGTH,
            param="tokens",
        )
    if not body.tokens:
        return DetokenizeReply("")
    prompt = ids_prompt(serving, body.tokens, keep=None, param="tokens")
    return DetokenizeReply(serving.tokenizer.decode(prompt.token_ids, skip_special_tokens=False))
