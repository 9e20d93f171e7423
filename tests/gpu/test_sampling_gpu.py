"""Sampling on a GPU: nothing is waited for, and what is chosen is what the plain form chooses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from octavo.messages.params import SamplingParams
from octavo.ops.sampling.choose import choose_plain, choose_tokens
from octavo.ops.sampling.draw import exact_weights
from octavo.ops.sampling.filters import full_threshold, probabilities
from octavo.ops.sampling.random import uniforms
from octavo.ops.sampling.settings import FILTERED, KEYS, UNFILTERED, Draws, Filters, settings_line
from octavo.worker.sampling.sampler import Sampler

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

NO_TOP_K = 2**31
CPU = torch.device("cpu")


@pytest.fixture
def cuda() -> torch.device:
    return torch.device("cuda")


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """Whatever waits for the device raises; a test may allow it again for a while."""
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@dataclass(frozen=True)
class Table:
    tokens: torch.Tensor
    num_known: NDArray[np.int32]
    num_prompt: NDArray[np.int32]


def make_table(num_rows: int, vocab_size: int, device: torch.device, width: int = 64) -> Table:
    tokens = torch.randint(vocab_size, (num_rows, width), dtype=torch.int32, generator=generator(9))
    known = np.arange(num_rows, dtype=np.int32) % (width - 8) + 8
    return Table(tokens.to(device), known, known // 2)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gpu_choose(logits_SV: torch.Tensor, draws: Draws | None) -> torch.Tensor:
    """The device's own form; its arguments may be on the CPU."""
    device = torch.device("cuda")
    if draws is not None:
        draws = Draws(
            settings=draws.settings.to(device),
            rows_S=draws.rows_S.to(device),
            positions_S=draws.positions_S.to(device),
            unfiltered=draws.unfiltered,
            filtered=draws.filtered,
        )
    return choose_tokens.on(device)(logits_SV.to(device), draws)


def draws_of(count: int, kind: int, temperature: float, top_k: int, top_p: float, min_p: float) -> Draws:
    lines = [
        settings_line(
            kind=kind, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, random_key=i * 7919
        )
        for i in range(count)
    ]
    return Draws.of([kind] * count, torch.tensor(lines), torch.arange(count), torch.arange(count) * 3 + 1)


@pytest.mark.parametrize("number", range(4))
def test_examples(number: int) -> None:
    logits_SV, draws = list(choose_tokens.examples())[number]
    assert torch.equal(gpu_choose(logits_SV, draws).cpu(), choose_plain(logits_SV, draws))


@pytest.mark.parametrize("shape", [(1, 151936), (256, 128256), (7, 50257)])
def test_greedy_takes_the_lowest_index_of_the_largest(shape: tuple[int, int], cuda: torch.device) -> None:
    """Narrow logits of a large vocabulary have many ties."""
    logits_SV = torch.randn(shape, generator=generator(1)).bfloat16().to(cuda)
    chosen_2S = gpu_choose(logits_SV, None)
    index_V = torch.arange(shape[1], device=cuda)
    is_best_SV = logits_SV == logits_SV.amax(-1, keepdim=True)
    assert torch.equal(chosen_2S[0].long(), torch.where(is_best_SV, index_V, shape[1]).amin(-1))
    assert not chosen_2S[1].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("spread", [0.5, 3.0])
@pytest.mark.parametrize(
    "setting",
    [
        (UNFILTERED, 0.8, NO_TOP_K, 1.0, 0.0),
        (FILTERED, 0.7, 50, 0.95, 0.0),
        (FILTERED, 1.0, NO_TOP_K, 0.9, 0.0),
        (FILTERED, 1.0, NO_TOP_K, 1.0, 0.1),
        (FILTERED, 2.0, 5000, 0.99, 0.001),
    ],
    ids=str,
)
def test_draws_fall_where_the_plain_distribution_says(
    setting: tuple[int, float, int, float, float], spread: float, dtype: torch.dtype
) -> None:
    """Exponentials differ in their last bits between devices, so at borders by as much, and no more."""
    count, vocab_size = 24, 128256
    logits_SV = (torch.randn(count, vocab_size, generator=generator(2)) * spread).to(dtype)
    draws = draws_of(count, *setting)
    token_S1 = gpu_choose(logits_SV, draws).cpu()[0].long().unsqueeze(1)

    lines_SW = draws.settings
    filters = Filters.of(lines_SW)
    p_SV = probabilities(logits_SV, logits_SV.amax(-1).float(), filters.temperature_R)
    weights_SV = exact_weights(p_SV)
    threshold_S1 = full_threshold(p_SV, weights_SV, filters).unsqueeze(1)
    assert (p_SV.gather(1, token_S1) >= threshold_S1 * (1 - 1e-5)).all()
    ends_SV = (weights_SV * (p_SV >= threshold_S1)).double().cumsum(-1)
    total_S1 = ends_SV[:, -1:]
    target_S1 = uniforms(draws.positions_S, lines_SW[:, KEYS:]).unsqueeze(1) * total_S1
    end_S1 = ends_SV.gather(1, token_S1)
    start_S1 = end_S1 - weights_SV.double().gather(1, token_S1)
    slack_S1 = 1e-5 * total_S1
    is_right_S1 = (start_S1 - slack_S1 <= target_S1) & (target_S1 <= end_S1 + slack_S1)
    # A token at the edge of the kept set may be in on one device and out on the other, which moves the rest.
    assert is_right_S1.float().mean() > 0.9


def test_company_and_type_change_no_draw(cuda: torch.device) -> None:
    """The same logits alone, in a crowd, and as float32 beside rows with penalties."""
    count, vocab_size = 40, 32000
    logits_SV = torch.randn(count, vocab_size, generator=generator(3)).bfloat16().to(cuda)
    sampler = Sampler(num_rows=count, vocab_size=vocab_size, device=cuda)
    settings = [{}, {"top_p": 0.9}, {"top_k": 40, "temperature": 0.7}, {"min_p": 0.01}, {"temperature": 0.0}]
    for row in range(count):
        sampler.add_row(row, SamplingParams(**settings[row % 5]), row * 31, [], [1], 1)
    table = make_table(count, vocab_size, cuda)
    together_S = sampler.sample(logits_SV, range(count), table).token_ids
    wide_S = sampler.sample(logits_SV.float(), range(count), table).token_ids
    assert torch.equal(together_S, wide_S)
    for row in range(count):
        assert sampler.sample(logits_SV[row : row + 1], [row], table).token_ids == together_S[row]


def test_draws_follow_the_distribution(cuda: torch.device) -> None:
    count, vocab_size = 20_000, 64
    logits_1V = torch.randn(1, vocab_size, generator=generator(4)) * 0.6
    draws = draws_of(count, UNFILTERED, 0.8, NO_TOP_K, 1.0, 0.0)
    tokens_S = gpu_choose(logits_1V.expand(count, -1).contiguous(), draws)[0].cpu()
    expected_V = torch.softmax(logits_1V[0].double() / 0.8, -1) * count
    observed_V = torch.bincount(tokens_S, minlength=vocab_size)
    chi_square = ((observed_V - expected_V) ** 2 / expected_V).sum().item()
    assert 31 < chi_square < 106  # 63 degrees of freedom: p = 0.0005 on either side


EVERYTHING = [
    {"temperature": 0.0},
    {},
    {"top_k": 40, "top_p": 0.9},
    {"repetition_penalty": 1.2, "presence_penalty": 0.4, "frequency_penalty": 0.3},
    {"logit_bias": {7: 5.0, 11: -5.0}},
    {"allowed_token_ids": [5, 6, 8]},
    {"bad_words_token_ids": [[4], [3, 9, 2]]},
    {"min_tokens": 40, "stop_token_ids": [12]},
    {"temperature": 0.0, "logprobs": 0},
    {"logprobs": 5},
    {"logprobs": -1, "top_k": 3},
]


def test_nothing_waits_and_the_host_sees_the_same(no_waiting: None, cuda: torch.device) -> None:
    """Every feature but logits processors, which are the caller's own code; beside the same on the CPU."""
    vocab_size, count = 3000, len(EVERYTHING)
    logits_SV = torch.randn(count, vocab_size, generator=generator(5)) * 4
    logits_SV[1, 17] = torch.nan
    results = []
    for device in (cuda, CPU):
        torch.cuda.set_sync_debug_mode("default")
        local_SV = logits_SV.to(device)
        table = make_table(count, vocab_size, device)
        sampler = Sampler(num_rows=count, vocab_size=vocab_size, device=device)
        torch.cuda.set_sync_debug_mode("error")
        for row, settings in enumerate(EVERYTHING):
            sampler.add_row(row, SamplingParams(**settings), row * 17, [1], [1, 2], 2)
        pending = sampler.sample(local_SV, range(count), table)
        plain = sampler.sample(local_SV[:3], range(3), table)
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        results.append((pending.finish(), plain.finish()))
    (there, plain_there), (here, plain_here) = results
    assert there.token_ids == here.token_ids
    assert there.failed == here.failed and list(there.failed) == [1]
    assert (plain_there.token_ids, plain_there.failed) == (plain_here.token_ids, plain_here.failed)
    assert there.logprobs.keys() == here.logprobs.keys() == {8, 9, 10}
    for row, found in there.logprobs.items():
        assert (found.token_ids, found.rank) == (here.logprobs[row].token_ids, here.logprobs[row].rank)
        assert found.logprobs == pytest.approx(here.logprobs[row].logprobs, abs=1e-4)


def test_a_captured_choice_replays_with_other_numbers(cuda: torch.device) -> None:
    count, vocab_size = 16, 32000
    logits_SV = torch.zeros(count, vocab_size, dtype=torch.bfloat16, device=cuda)
    example = draws_of(count, FILTERED, 0.9, 30, 0.9, 0.0)
    draws = Draws(
        settings=example.settings.to(cuda),
        rows_S=example.rows_S.to(cuda),
        positions_S=example.positions_S.to(cuda),
        unfiltered=[],
        filtered=list(range(count)),
    )
    choose = choose_tokens.on(cuda)
    choose(logits_SV, draws)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        chosen_2S = choose(logits_SV, draws)
    for seed in (6, 7):
        logits_SV.copy_(torch.randn(count, vocab_size, generator=generator(seed)))
        draws.positions_S.copy_(torch.arange(count) + seed)
        graph.replay()
        assert torch.equal(chosen_2S, choose(logits_SV, draws))
