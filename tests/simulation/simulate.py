"""A deterministic simulation of the whole core: random load, tiny caches, failing workers, our own clock.

`run(seed, requests)` draws a scenario from the seed, checks every invariant after every step and every
token at the end. A failing seed replays: `python -m tests.simulation.simulate SEED [REQUESTS]`.
"""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from octavo.base.errors import EngineError, ErrorCode
from octavo.config.cache import CacheConfig
from octavo.core.kv.plan import plan_kv
from octavo.core.loop import EngineCore
from octavo.engine.resume import resumed
from octavo.messages.params import SamplingParams
from octavo.messages.request import EngineRequest, PrefixPin, Terms
from octavo.messages.result import FinishReason, RequestDelta
from tests.simulation.scenario import EOS, VOCAB, draw_scenario, right_tokens
from tests.simulation.simulated_executor import SimulatedExecutor


@dataclass
class Client:
    """What the outside knows of one request."""

    message: EngineRequest
    aborts_at: int | None
    tokens: list[int] = field(default_factory=list)
    reason: FinishReason | None = None
    is_late: bool = False
    """It ended because its deadline passed."""


@dataclass
class Report:
    """What happened, for whoever reads along."""

    seed: int
    requests: int = 0
    steps: int = 0
    preemptions: int = 0
    failures: int = 0
    poisoned: int = 0
    """Steps that failed because of who was in them."""
    forced: int = 0
    """Tokens that came unasked, behind others."""
    restarts: int = 0
    too_large: int = 0
    aborted: int = 0
    errors: int = 0
    late: int = 0
    hit_tokens: int = 0
    computed_tokens: int = 0
    ideal_tokens: int = 0


class Simulation:
    """One scenario from the first arrival to the last end."""

    def __init__(self, seed: int, requests: int) -> None:
        self.rng = random.Random(seed)
        self.scenario = draw_scenario(self.rng)
        self.report = Report(seed)
        self.now = 0
        self.clients: dict[str, Client] = {}
        self.live: dict[str, Client] = {}
        self.poison: dict[str, int] = {}
        self.to_come = requests
        self.prefixes = [self._tokens(self.scenario.max_len) for _ in range(3)]
        self.quiet_steps = 0
        self.block_seconds = 0
        """Blocks in use, summed over time."""
        self.charged_seconds = 0.0
        """The same as tenants are charged."""
        self._start_core()

    def run(self) -> Report:
        while self.to_come or self.live or self.core.has_work():
            self.now += 1
            self._arrive()
            self._abort()
            self._step()
            self.core.check()
            stats = self.core.stats()
            self.block_seconds += stats.num_blocks - stats.num_free_blocks
            assert self.executor.surprise is None, self.executor.surprise
        self._check_end()
        return self.report

    def _start_core(self) -> None:
        scenario = self.scenario
        self.executor = SimulatedExecutor(scenario, self.rng, self.poison)
        facts = self.executor.start()
        plan = plan_kv(
            facts.kv_layers,
            block_size=scenario.block_size,
            num_blocks=scenario.num_blocks,
            available_bytes=facts.available_bytes,
            useful_tokens=0,
        )
        self.executor.allocate(plan)
        self.core = EngineCore(
            schedule=scenario.schedule,
            cache=CacheConfig(block_size=scenario.block_size, enable_prefix_caching=scenario.is_caching),
            max_model_len=scenario.max_len,
            plan=plan,
            executor=self.executor,
            clock=lambda: float(self.now),
            depth=scenario.depth,
        )

    def _tokens(self, count: int) -> list[int]:
        return [self.rng.randrange(VOCAB) for _ in range(count)]

    def _arrive(self) -> None:
        expected = self.scenario.arrivals_per_step
        count = int(expected) + (self.rng.random() < expected % 1)
        for _ in range(min(count, self.to_come)):
            self.to_come -= 1
            client = self._make_client(f"r{len(self.clients)}")
            self.clients[client.message.request_id] = self.live[client.message.request_id] = client
            self.core.add(client.message)

    def _make_client(self, request_id: str) -> Client:
        rng = self.rng
        most = self.core.max_request_tokens
        total = rng.randint(max(2, most // 3), most)
        num_prompt = rng.randint(1, total - 1 if rng.random() < 0.4 else max(1, total // 4))
        shared = rng.choice([0, num_prompt, num_prompt, rng.randint(0, num_prompt)])
        max_tokens = total - num_prompt
        message = EngineRequest(
            request_id=request_id,
            prompt_token_ids=rng.choice(self.prefixes)[:shared] + self._tokens(num_prompt - shared),
            params=SamplingParams(
                max_tokens=max_tokens,
                min_tokens=rng.choice([0, 0, rng.randint(0, max_tokens)]),
                ignore_eos=rng.random() < 0.3,
                stop_token_ids=rng.choice([None, None, self._tokens(2)]),
                logprobs=rng.choice([None, None, 2]),
                prompt_logprobs=rng.choice([None, None, None, 1]),
            ),
            max_tokens=max_tokens,
            eos_token_ids=[EOS],
            # Few keys, so that equal prompts also give equal answers and these are shared.
            random_key=rng.randrange(3),
            arrival_time=float(self.now),
            priority=rng.randrange(3),
            cache_salt=rng.choice([None, None, None, None, "tenant", "\ud800"]),
            terms=self._terms(),
            pins=rng.choice([[], [], [PrefixPin(rng.randint(0, num_prompt), rng.choice([9.0, 90.0]))]]),
        )
        aborts = rng.random() < self.scenario.abort_share
        if rng.random() < self.scenario.poison_share:
            self.poison[request_id] = rng.randint(1, total)
        return Client(message, self.now + rng.randrange(40) if aborts else None)

    def _terms(self) -> Terms:
        rng = self.rng
        has_deadline = rng.random() < self.scenario.deadline_share
        return Terms(
            tenant=rng.choice(["heavy", "heavy", "heavy", "light"]),
            weight=rng.choice([1.0, 0.5, 3.0]),
            deadline=self.now + rng.randrange(60) if has_deadline else None,
        )

    def _abort(self) -> None:
        due = [name for name, client in self.live.items() if client.aborts_at == self.now]
        self._take(self.core.abort([*due, "unknown"]))
        if self.rng.random() < 0.003:
            assert self.core.reset_prefix_cache()

    def _step(self) -> None:
        self.report.steps += 1
        if self.rng.random() < self.scenario.core_death_share:
            self._restart_core()
        try:
            deltas = self.core.step()
        except EngineError:
            self._restart_core()
            return
        self._take(deltas)
        for client in self.live.values():
            deadline = client.message.terms.deadline
            assert deadline is None or deadline > self.now, "a deadline passed and nothing happened"
        self.quiet_steps = 0 if deltas or not self.live else self.quiet_steps + 1
        # Somebody has to move: at worst one token a step through the longest request, twice over, and a
        # few times more while the core looks for a size of step that fits.
        scenario = self.scenario
        is_short = scenario.memory_tokens is not None or scenario.memory_fail_share
        is_short = is_short or scenario.poison_share or scenario.core_death_share
        assert self.quiet_steps < (3 * scenario.max_len + 20) * (10 if is_short else 1), "livelock"

    def _restart_core(self) -> None:
        """What a supervisor does: everybody goes on in another core, behind the tokens that came."""
        self.core.check()
        self._account()
        self.report.restarts += 1
        self._start_core()
        for client in self.live.values():
            self.core.add(resumed(client.message, client.tokens))

    def _take(self, deltas: list[RequestDelta]) -> None:
        for delta in deltas:
            client = self.live[delta.request_id]
            if delta.token_ids and not client.tokens:
                self._check_first(client, delta)
            if delta.token_ids and client.message.params.logprobs is not None:
                assert delta.logprobs is not None
                assert [entry.token_ids[0] for entry in delta.logprobs] == delta.token_ids
            client.tokens.extend(delta.token_ids)
            if delta.finish_reason is not None:
                client.reason = delta.finish_reason
                assert delta.timing is not None
                client.is_late = delta.error_code == ErrorCode.DEADLINE_EXCEEDED.name
                began, deadline = delta.timing.first_scheduled, client.message.terms.deadline
                assert began is None or deadline is None or began < deadline, "prefilled after its deadline"
                assert (delta.error is not None) == (delta.finish_reason is FinishReason.ERROR)
                del self.live[delta.request_id]

    def _check_first(self, client: Client, delta: RequestDelta) -> None:
        timing = delta.timing
        assert timing is not None and timing.first_scheduled is not None and timing.first_token == self.now
        assert timing.arrival <= timing.first_scheduled <= timing.first_token
        prompt = client.message.prompt_token_ids
        if client.message.params.prompt_logprobs is None:
            assert delta.prompt_logprobs is None
        else:
            assert delta.prompt_logprobs is not None
            assert [e.token_ids[0] for e in delta.prompt_logprobs] == prompt[1:]
            assert [e.logprobs[0] for e in delta.prompt_logprobs] == [
                -float(p) for p in range(1, len(prompt))
            ]

    def _account(self) -> None:
        stats = self.core.stats()
        self.charged_seconds += sum(self.core.take_block_seconds().values())
        self.report.preemptions += stats.num_preemptions
        self.report.hit_tokens += stats.prefix_hits_tokens
        self.report.failures += self.executor.num_failures
        self.report.poisoned += self.executor.num_poisoned
        self.report.forced += self.executor.num_forced
        self.report.too_large += self.executor.num_too_large
        self.report.computed_tokens += self.executor.num_tokens

    def _check_end(self) -> None:
        self._account()
        stats = self.core.stats()
        assert stats.num_free_blocks == stats.num_blocks, "blocks leaked"
        assert stats.num_running == stats.num_waiting == 0
        if not self.report.restarts:  # Else what the lost cores held is charged to nobody.
            shared = self.charged_seconds - self.block_seconds
            assert shared >= 0 and (self.scenario.is_caching or not shared), "blocks are charged wrongly"
        assert self.executor.num_rows == 0, "rows leaked in the worker"
        for client in self.clients.values():
            self._check_answer(client)

    def _check_answer(self, client: Client) -> None:
        self.report.requests += 1
        message = client.message
        tokens, reason = self._right_answer(message, max(1, len(client.tokens)))
        assert client.tokens == tokens[: len(client.tokens)], (message.request_id, client.tokens, tokens)
        if client.reason is FinishReason.ABORT:
            assert client.aborts_at is not None
            self.report.aborted += 1
        elif client.is_late:
            assert client.reason is FinishReason.ERROR and message.terms.deadline is not None
            self.report.late += 1
        elif client.reason is FinishReason.ERROR:
            is_random = bool(self.scenario.fail_share or self.scenario.row_fail_share)
            assert is_random or message.request_id in self.poison, "nobody asked for an error"
            self.report.errors += 1
        else:
            assert (client.tokens, client.reason) == (tokens, reason), (message.request_id, client, reason)
            spoils_at = self.poison.get(message.request_id, 10**9)
            assert len(message.prompt_token_ids) + len(tokens) - 1 < spoils_at, "it computed what it cannot"
            self.report.ideal_tokens += len(message.prompt_token_ids) + len(tokens) - 1

    def _right_answer(self, message: EngineRequest, count: int) -> tuple[list[int], FinishReason | None]:
        """The stop rules, said once more and differently."""
        params = message.params
        tokens = right_tokens(self.scenario, message.prompt_token_ids, count, message.random_key)
        ends = set(params.stop_token_ids or []) | (set() if params.ignore_eos else {EOS})
        for length in range(1, count + 1):
            if tokens[length - 1] in ends and length >= params.min_tokens:
                return tokens[:length], FinishReason.STOP
        return tokens, FinishReason.LENGTH if count == message.max_tokens else None


def run(seed: int, requests: int) -> Report:
    """Simulate one seed; AssertionError or EngineError when anything is not as it must be."""
    logging.getLogger("octavo.core").setLevel(logging.CRITICAL)
    return Simulation(seed, requests).run()


def main(arguments: Sequence[str]) -> None:
    seed, requests = int(arguments[0]), int(arguments[1]) if len(arguments) > 1 else 50
    logging.basicConfig()
    sys.stdout.write(f"{Simulation(seed, requests).scenario}\n{run(seed, requests)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
