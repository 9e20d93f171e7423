"""Engine, supervisor and one core after the other under a simulated clock, network and processes.

`run(seed, requests)` draws a scenario from the seed. Clients of several tenants come, read at their pace,
leave, give up and set deadlines; cores die in the midst of a step, hang, and die or hang while they start.
Everybody has to get the right tokens, or an end that says why. A failing seed replays:
`python -m tests.simulation.simulate_supervised SEED [REQUESTS]`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
import sys
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from octavo.base.errors import EngineError, ErrorCode
from octavo.config.facts import CheckpointFacts, DeviceFacts
from octavo.config.resolve import Resolved, resolve
from octavo.config.root import EngineConfig
from octavo.engine.async_llm import AsyncLLM
from octavo.engine.load import Loaded
from octavo.engine.supervised_core import SupervisedCore
from octavo.executor.fake import FULL
from octavo.messages.params import RequestOutputKind, SamplingParams
from octavo.messages.request import Terms
from octavo.messages.start import StartCore
from octavo.tokens.no_tokenizer import NoTokenizer
from tests.simulation.operator import Operator
from tests.simulation.scenario import VOCAB, draw_scenario
from tests.simulation.simulated_client import Client
from tests.simulation.simulated_process import Fates, SimulatedProcess
from tests.simulation.simulated_time import SimulatedLoop

MAX_LEN = 64
LOOK_S = 2.0
"""More than a message and a step take together."""
LIMIT_S = 4000.0
"""Simulated. No scenario keeps anybody waiting for so long."""
FACTS = CheckpointFacts(
    name="fake", architecture="Fake", model_max_len=MAX_LEN, vocab_size=VOCAB, stored_dtype="float32"
)


@dataclass
class Report:
    """What happened, for whoever reads along."""

    seed: int
    requests: int = 0
    answers: int = 0
    left: int = 0
    refused: int = 0
    late: int = 0
    errors: int = 0
    broken: int = 0
    """Lost too many cores."""
    rested: int = 0
    """Aborted by the operator, or refused because the engine rested."""
    given_up: int = 0
    """The engine was not started again any more."""
    failures: int = 0
    poisoned: int = 0
    too_large: int = 0
    restarts: int = 0
    """Cores that were killed in the midst of a step."""
    stalls: int = 0
    failed_starts: int = 0


class Simulation:
    """One scenario from the first arrival to the last end."""

    def __init__(self, seed: int, requests: int) -> None:
        self.rng = rng = random.Random(seed)
        self.report = Report(seed)
        self.num_requests = requests
        self.resolved = self._draw_config()
        schedule = self.resolved.config.schedule
        self.scenario = dataclasses.replace(
            draw_scenario(rng), layers=[FULL, FULL], eos_probability=0.0, schedule=schedule
        )
        self.fates = Fates(
            rng,
            death_share=rng.choice([0.0, 0.01, 0.03]),
            stall_share=rng.choice([0.0, 0.0, 0.005]),
            failed_start_share=rng.choice([0.0, 0.2]),
            hanging_start_share=rng.choice([0.0, 0.0, 0.1]),
        )
        self.processes: list[SimulatedProcess] = []
        self.rate = rng.choice([0.5, 5.0, 50.0])
        self.deadline_share = rng.choice([0.0, 0.3])
        self.operator = Operator(rng, is_busy=rng.random() < 0.2)

    def _draw_config(self) -> Resolved:
        rng = self.rng
        wishes = EngineConfig.from_options(
            {
                "max_model_len": MAX_LEN,
                "num_blocks": rng.choice([6, 10, 40]),
                "max_num_seqs": rng.choice([1, 3, 8]),
                "max_num_batched_tokens": rng.choice([8, 64]),
                "scheduling_policy": rng.choice(["fcfs", "fair", "priority"]),
                "max_predicted_ttft": rng.choice([2.0, 600.0]),
                "max_num_queued_reqs": rng.choice([5, 4096]),
                "core_stall_timeout": rng.choice([1.0, 5.0]),
                "max_core_restarts": rng.choice([2, 1000, 1000, 1000]),
                "skip_tokenizer_init": True,
            }
        )
        return resolve(wishes, FACTS, DeviceFacts(kind="cpu", has_fast_bfloat16=False))

    async def run(self) -> Report:
        engine = await self._start()
        clients = [self._client() for _ in range(self.num_requests)]
        looking = asyncio.create_task(self._look_for_forgotten(engine))
        operating = asyncio.create_task(self.operator.work(engine))
        async with asyncio.timeout(LIMIT_S):
            await asyncio.gather(*(self._visit(engine, client) for client in clients))
            self.operator.is_needed = False
            await operating
        looking.cancel()
        for problem in await asyncio.gather(looking, return_exceptions=True):
            if not isinstance(problem, asyncio.CancelledError):
                raise problem or AssertionError("nobody looked")
        await asyncio.sleep(1.0)  # The last aborts are on their way.
        await self._check_end(engine)
        for client in clients:
            self._check_answer(client)
        self._account(engine)
        return self.report

    async def _start(self) -> AsyncLLM:
        config, clock = self.resolved.config, asyncio.get_running_loop().time
        core = SupervisedCore(self._make_process, clock)
        ready = await core.start(StartCore(config=config, path="fake"))
        loaded = Loaded(
            config=config,
            reasons=self.resolved.reasons,
            path=Path("fake"),
            checkpoint_name="fake",
            facts=FACTS,
            tokenizer=NoTokenizer(VOCAB),
            eos_token_ids=[],
            default_sampling={},
        )
        return AsyncLLM(loaded, ready, core, clock)

    def _make_process(self) -> SimulatedProcess:
        self.processes.append(SimulatedProcess(self.scenario, self.fates))
        return self.processes[-1]

    def _client(self) -> Client:
        rng = self.rng
        length = rng.randint(1, MAX_LEN // 2)
        self.arrival = getattr(self, "arrival", 0.0) + rng.expovariate(self.rate)
        prompt = [rng.randrange(VOCAB) for _ in range(length)]
        if rng.random() < self.scenario.poison_share:
            self.fates.poisoned[tuple(prompt)] = rng.randint(1, MAX_LEN)
        deadline = self.arrival + rng.uniform(0.0, 20.0) if rng.random() < self.deadline_share else None
        n = rng.choice([1, 1, 1, 2, 3])
        return Client(
            prompt=prompt,
            params=SamplingParams(
                n=n,
                seed=rng.randrange(3),
                max_tokens=rng.randint(1, MAX_LEN - length),
                ignore_eos=True,
                logprobs=rng.choice([None, None, 1]),
                prompt_logprobs=rng.choice([None, None, None, 1]),
                output_kind=rng.choice(list(RequestOutputKind)),
            ),
            terms=Terms(rng.choice(["heavy", "heavy", "light"]), rng.choice([1.0, 3.0]), deadline),
            arrives_at=self.arrival,
            leaves_after_s=rng.uniform(0.0, 3.0) if rng.random() < 0.2 else None,
            reads_slowly=rng.random() < 0.1,
            tokens=[[] for _ in range(n)],
        )

    async def _visit(self, engine: AsyncLLM, client: Client) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(client.arrives_at - loop.time())
        try:
            async with asyncio.timeout(client.leaves_after_s):
                client.end = await self._read(engine, client)
        except TimeoutError:
            client.end = "left"
        except EngineError as error:
            client.end = error.code.name
            if error.code is ErrorCode.DEADLINE_EXCEEDED:
                assert client.terms.deadline is not None and loop.time() >= client.terms.deadline
            if engine._failure:
                client.end = "given up"

    async def _read(self, engine: AsyncLLM, client: Client) -> str:
        """Returns how it ended."""
        async with aclosing(engine.generate(client.prompt, client.params, terms=client.terms)) as stream:
            async for output in stream:
                client.take(output)
                if client.reads_slowly:
                    await asyncio.sleep(self.rng.uniform(0.0, 0.5))
        assert output.finished
        is_aborted = any(sample.finish_reason == "abort" for sample in output.outputs)
        return "aborted" if is_aborted else "answer"

    async def _look_for_forgotten(self, engine: AsyncLLM) -> None:
        """Whoever waits for a core that works has to be known there, once messages have had their time.

        A request may be on its way there at one look, its end on the way back at the next: no third time.
        """
        missing: dict[str, int] = {}
        process = self.processes[-1]
        while True:
            await asyncio.sleep(LOOK_S)
            before, process = process, self.processes[-1]
            is_new = process is not before
            if engine._core.is_down or process.core is None or process.is_hanging or is_new:
                missing = {}
                continue
            unknown = _open_samples(engine) - process.core._requests.by_id.keys()
            missing = {name: missing.get(name, 0) + 1 for name in unknown}
            assert max(missing.values(), default=0) < 3, "the engine waits for what the core does not know"

    async def _check_end(self, engine: AsyncLLM) -> None:
        assert not list(engine._streams) and not len(engine._streams._processor), "a request is still open"
        assert engine._bound.num_waiting == 0 and not engine._bound._loads, "the queue is not empty"
        async with asyncio.timeout(LIMIT_S):
            while not engine._failure and (engine._core.is_down or self.processes[-1].is_hanging):
                await asyncio.sleep(0.1)
        core = self.processes[-1].core
        if not engine._failure:
            assert core is not None
            stats = core.stats()
            assert not stats.num_running and not stats.num_waiting, "the core still has requests"
            assert stats.num_free_blocks == stats.num_blocks, "blocks leaked"
        await engine.shutdown()
        for surprise in self.fates.surprises:
            raise surprise
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others, f"tasks leaked: {others}"

    def _check_answer(self, client: Client) -> None:
        report, count = self.report, client.params.max_tokens
        assert count is not None
        report.requests += 1
        client.check()
        spoils_at = self.fates.poisoned.get(tuple(client.prompt))
        match client.end:
            case "answer":
                assert all(len(tokens) == count for tokens in client.tokens), (client, count)
                assert (client.prompt_logprobs is None) == (client.params.prompt_logprobs is None)
                num_computed = len(client.prompt) + count - 1
                assert spoils_at is None or num_computed < spoils_at, "it computed what it cannot"
                report.answers += 1
            case "left":
                assert client.leaves_after_s is not None
                report.left += 1
            case "OVERLOADED":
                report.refused += 1
            case "ASLEEP" | "PAUSED" | "aborted":
                assert self.operator.is_busy, "nobody put it to rest"
                report.rested += 1
            case "DEADLINE_EXCEEDED":
                report.late += 1
            case "ENGINE_FAILED":
                is_random = bool(self.scenario.fail_share or self.scenario.row_fail_share)
                assert is_random or spoils_at is not None, "nobody asked for an error"
                report.errors += 1
            case "ENGINE_RESTARTED":
                assert self.fates.num_deaths + self.fates.num_stalls + self.num_core_failures >= 3
                report.broken += 1
            case "given up":
                assert self.resolved.config.supervision.max_core_restarts == 2
                report.given_up += 1
            case other:
                raise AssertionError(f"an end that nobody asked for: {other}")

    @property
    def num_core_failures(self) -> int:
        """Cores that ended themselves after failures of their executor."""
        return sum(process.ended_itself for process in self.processes)

    def _account(self, engine: AsyncLLM) -> None:
        report = self.report
        for process in self.processes:
            report.failures += process.executor.num_failures
            report.poisoned += process.executor.num_poisoned
            report.too_large += process.executor.num_too_large
        report.restarts = self.fates.num_deaths
        report.stalls = self.fates.num_stalls
        report.failed_starts = self.fates.num_failed_starts


def _open_samples(engine: AsyncLLM) -> set[str]:
    """Ids of what the core has been sent and has not ended."""
    return {
        sample.request_id
        for stream in engine._streams
        if not engine._streams._resumption.is_held(stream)
        for index, sample in enumerate(stream.state.prepared.samples)
        if not stream.state.has_ended(index)
    }


def run(seed: int, requests: int) -> Report:
    """Simulate one seed; AssertionError or EngineError when anything is not as it must be."""
    logging.disable(logging.CRITICAL)
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(_in_loop(seed, requests))


async def _in_loop(seed: int, requests: int) -> Report:
    return await Simulation(seed, requests).run()


def main(arguments: Sequence[str]) -> None:
    seed, requests = int(arguments[0]), int(arguments[1]) if len(arguments) > 1 else 50
    sys.stdout.write(f"{run(seed, requests)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
