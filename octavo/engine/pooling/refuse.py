"""What is said to callers who ask a model for what it was not made for."""

from __future__ import annotations

from octavo.base.errors import ErrorCode, RequestError
from octavo.config.pooling import PoolingFacts

POSSIBLE = {
    "embed": "embed, encode, score and rerank (/v1/embeddings, /score, /rerank, /pooling)",
    "classify": "classify, encode, reward, score and rerank (/classify, /score, /rerank, /pooling)",
}


def cannot_pool(call: str) -> RequestError:
    return RequestError(
        f"{call} needs a model that was made for it, and this one writes text. Serve an embedding or "
        "classification model, or pool this one's hidden states with runner='pooling' (--runner pooling).",
        code=ErrorCode.UNSUPPORTED_VALUE,
        param="model",
    )


def cannot_write(facts: PoolingFacts) -> RequestError:
    kind = {"embed": "makes embeddings", "classify": "scores labels"}[facts.task]
    return RequestError(
        f"This model {kind} and writes no text. It offers {POSSIBLE[facts.task]}.",
        code=ErrorCode.UNSUPPORTED_VALUE,
        param="model",
    )


def cannot_task(call: str, facts: PoolingFacts) -> RequestError:
    return RequestError(
        f"{call} is not what this model was made for; it offers {POSSIBLE[facts.task]}.",
        code=ErrorCode.UNSUPPORTED_VALUE,
        param="model",
    )
