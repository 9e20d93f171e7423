"""Rows 2.3: what says how to choose tokens, and how many: its types, its limits, two limits at once."""

from __future__ import annotations

import itertools
from typing import Any

from tests.attacks.arena import CONTEXT, VOCAB, Arena
from tests.attacks.row import Row, case
from tests.attacks.send import (
    CHAT,
    COMPLETIONS,
    CONTEXT_LENGTH,
    PLAIN,
    PLAIN_CHAT,
    Refusal,
    answers,
    each,
    posts,
    sends,
    wrong,
    wrong_chat,
)

HUGE = 10**9


def equal_seeds(arena: Arena) -> None:
    """Equal seeds, equal answers; the largest and the smallest seed among them."""
    with arena.client() as client:
        for seed in (0, 1, -1, 2**64 - 1, -(2**63)):
            body = {**PLAIN, "temperature": 1.5, "seed": seed, "return_token_ids": True}
            both = [client.post(COMPLETIONS, json=body).json()["choices"][0]["token_ids"] for _ in range(2)]
            assert both[0] == both[1], seed


def all_that_is_told_of_prompts(arena: Arena) -> None:
    """The most log-probabilities for each token of several long prompts, which end in one step."""
    prompts = [[65 + n] * (CONTEXT - 8) for n in range(4)]
    with arena.client() as client:
        reply = client.post(COMPLETIONS, json={**PLAIN, "prompt": prompts, "prompt_logprobs": 64})
    assert reply.status_code == 200, reply.text[:300]
    for choice in reply.json()["choices"]:
        first, *rest = choice["prompt_logprobs"]
        assert first is None and len(rest) == CONTEXT - 9 and all(len(each) >= 64 for each in rest)


LIMITS: dict[str, tuple[Any, Any]] = {
    "temperature": (0, 100.0),
    "top_p": (1e-9, 1.0),
    "top_k": (-1, 2**31),
    "min_p": (0.0, 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "repetition_penalty": (1e-3, 100.0),
    "seed": (-(2**63), 2**64 - 1),
    "n": (1, 8),
    "logprobs": (0, 64),
    "max_tokens": (1, 8),
    "min_tokens": (0, 1),
    "typical_p": (1e-9, 1.0),
    "top_n_sigma": (0.0, 100.0),
    "xtc_probability": (0.0, 1.0),
    "dry_multiplier": (0.0, 10.0),
    "logit_bias": ({"0": -100}, {"0": 100}),
    "stop": ("a", ["a"] * 16),
}


def pairwise(arena: Arena) -> None:
    """Every two of them, each at both of its ends: 200, finite, within what was asked for."""
    pairs = list(itertools.combinations(LIMITS, 2))
    if not arena.is_full:
        pairs = pairs[::9]
    problems = []
    with arena.client() as client:
        for (first, second), ends in itertools.product(pairs, ((0, 0), (0, 1), (1, 0), (1, 1))):
            fields = {first: LIMITS[first][ends[0]], second: LIMITS[second][ends[1]]}
            reply = client.post(COMPLETIONS, json={"prompt": "x", "max_tokens": 2, **fields})
            body = reply.json() if reply.status_code == 200 else {}
            if reply.status_code != 200 or "NaN" in reply.text or "Infinity" in reply.text:
                problems.append(f"{fields}: {reply.status_code} {reply.text[:200]}")
            elif body["usage"]["completion_tokens"] > fields.get("max_tokens", 2) * fields.get("n", 1):
                problems.append(f"{fields}: {body['usage']}")
    assert not problems, "; ".join(problems[:5])


INTEGERS = (
    *(
        "n",
        "max_tokens",
        "min_tokens",
        "top_k",
        "seed",
        "logprobs",
        "prompt_logprobs",
        "best_of",
        "beam_width",
    ),
    *("truncate_prompt_tokens", "repeat_last_n", "dry_allowed_length", "dry_penalty_last_n", "priority"),
    *(
        "thinking_token_budget",
        "stop_token_ids",
        "allowed_token_ids",
        "logprob_token_ids",
        "max_completion_tokens",
    ),
)


def big_integers(arena: Arena) -> None:
    """Whatever the field: never an error of the server's own."""
    problems = []
    with arena.client() as client:
        for path, plain in ((COMPLETIONS, PLAIN), (CHAT, PLAIN_CHAT)):
            for name in INTEGERS:
                for value in (2**31, 2**63, 2**70, -(2**31) - 1, -(2**63) - 1, -(2**70)):
                    wish = [value] if name.endswith("_ids") else value
                    beside = {"use_beam_search": True} if name == "beam_width" else {}
                    reply = client.post(path, json={**plain, "logprobs": None, **beside, name: wish})
                    if reply.status_code not in (200, 400):
                        problems.append(f"{path} {name} {value}: {reply.status_code} {reply.text[:200]}")
    assert not problems, "; ".join(problems)


def biases(count: int) -> bytes:
    """Written before the row begins: an encoder of so much would hold the victim's thread up, too."""
    return b'{"prompt": "x", "logit_bias": {%b}}' % b",".join(b'"%d":1' % i for i in range(count))


ROWS: tuple[Row, ...] = (
    case("V06", "max_tokens", wrong("max_tokens", -1, 0, 1.5, "5", code=("invalid_value",))),
    case(
        "V06", "max_tokens beyond the context", wrong("max_tokens", 10**12, CONTEXT + 1, code=CONTEXT_LENGTH)
    ),
    case("V06", "min_tokens over max_tokens", wrong("min_tokens", 5, HUGE, -1)),
    case("V06", "min_tokens over no max_tokens", wrong("min_tokens", CONTEXT, HUGE, max_tokens=None)),
    case("V08", "n", wrong("n", 0, -1, HUGE, 10**30, 1.5), with_victim=True, budget_ms=500),
    case("V08", "n times prompts", wrong("n", 128, prompt=["x"] * 256), budget_ms=500),
    case("V08", "best_of below n", wrong("best_of", 1, 5, n=2, code=("invalid_value", "unsupported_value"))),
    case("V08", "a million beams", wrong("beam_width", 10**6, use_beam_search=True), budget_ms=500),
    case("V09", "logprobs", wrong("logprobs", -1, -2, HUGE, VOCAB + 1, 65, 1.5)),
    case("V09", "prompt_logprobs", wrong("prompt_logprobs", -2, HUGE, VOCAB + 1)),
    case(
        "V09",
        "100,000 log-probabilities of prompts",
        all_that_is_told_of_prompts,
        "200, nobody else held up",
        with_victim=True,
        budget_ms=5000,
    ),
    case("V09", "top_logprobs", wrong_chat("top_logprobs", -1, HUGE, 65, logprobs=True)),
    case(
        "V10",
        "logit_bias",
        wrong("logit_bias", {"-1": 1}, {str(VOCAB): 1}, {"abc": 1}, {"9" * 5000: 1}, {"5": 1e9}, [1]),
    ),
    case(
        "V10",
        "49,000 logit_bias entries",
        sends(biases(49_000), Refusal(400, "invalid_value", "logit_bias")),
        with_victim=True,
    ),
    case(
        "V10",
        "a million logit_bias entries",
        sends(biases(1_000_000), Refusal(413, "body_too_large")),
        "413, at once",
        with_victim=True,
    ),
    case(
        "V11",
        "allowed_token_ids",
        wrong("allowed_token_ids", [VOCAB], [-1], [], [1] * 100_000),
        with_victim=True,
    ),
    case(
        "V11",
        "stop_token_ids",
        wrong("stop_token_ids", [-1], [VOCAB], [2**40], [1] * 100_000),
        with_victim=True,
    ),
    case(
        "V11",
        "bad_words",
        each(
            COMPLETIONS,
            PLAIN,
            Refusal(400, "invalid_value"),
            {
                "empty": {"bad_words": [""]},
                "number": {"bad_words": [5]},
                "many": {"bad_words": ["x"] * 100_000},
            },
        ),
        with_victim=True,
    ),
    case(
        "V11",
        "duplicates",
        answers(
            COMPLETIONS,
            PLAIN,
            {
                "allowed": {"allowed_token_ids": [5] * 100},
                "stop": {"stop_token_ids": [5] * 100},
                "bad": {"bad_words": ["x"] * 100},
            },
        ),
        "200",
        with_victim=True,
    ),
    case(
        "V11",
        "one million allowed ids",
        posts(COMPLETIONS, {**PLAIN, "allowed_token_ids": [1] * 1_000_000}, Refusal(413, "body_too_large")),
        "413, at once",
        with_victim=True,
        stall_ms=150,
    ),
    case("V13", "seed", wrong("seed", 2**64, -(2**64), 1.5, "1")),
    case("V13", "equal seeds", equal_seeds, "equal answers"),
    case("V20", "integers of 70 bits", big_integers),
    case("V20", "limits in pairs", pairwise, "200, finite, within limits", budget_ms=60_000),
)
