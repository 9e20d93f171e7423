"""An engine whose device answers at once: what is left is the host path. Used by `host_path.py` only.

python benchmarks/null_engine.py server PORT [--step-ms MS] [--depth N] [--profile]   # a real server process
python benchmarks/null_engine.py core ... ADDRESS                                     # its core process
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections import deque
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from sampling_profile import sampled_profile

from octavo.config.cache import CacheConfig
from octavo.config.facts import CheckpointFacts, local_device
from octavo.config.resolve import resolve
from octavo.config.root import EngineConfig
from octavo.core.kv.plan import plan_kv
from octavo.core.loop import EngineCore
from octavo.executor.fake import FULL
from octavo.messages.kv import KVPlan
from octavo.messages.result import StepOutput
from octavo.messages.start import CoreReady, StartCore, WorkerFacts
from octavo.messages.step import SchedulerOutput
from octavo.tokens.source import TokenizerSource
from octavo.tokens.tokenizer import Tokenizer, load_tokenizer

VOCAB_SIZE = 151_936
"""As large as Qwen3's."""
MAX_LEN = 4096
NUM_RANDOM = 1 << 16
NUM_WORDS = 1 << 12
"""Different tokens in answers: text has favourites too."""


class NullExecutor:
    """Answers every sampling row with a made-up token, at once or when a step's time has passed.

    Like a device it works while the host does something else: a step begins when the one before it ends.
    """

    def __init__(self, step_seconds: float = 0.0) -> None:
        self._step_seconds = step_seconds
        self._busy_until = 0.0
        self._submitted: deque[tuple[SchedulerOutput, list[int], float]] = deque()
        self._missing: dict[int, int] = {}
        """Prompt tokens that a row has not computed yet; rows that decode are not in it."""
        source = random.Random(0)
        words = [source.randrange(1000, VOCAB_SIZE - 2000) for _ in range(NUM_WORDS)]
        self._tokens = source.choices(words, k=NUM_RANDOM)
        self.waited_s = 0.0

    def start(self) -> WorkerFacts:
        return WorkerFacts(
            kv_layers=[FULL],
            vocab_size=VOCAB_SIZE,
            hidden_size=1,
            available_bytes=0,
            memory_bytes={},
            seconds={},
        )

    def allocate(self, plan: KVPlan) -> dict[str, float]:  # noqa: ARG002
        """There is no memory behind this."""
        return {}

    def submit(self, step: SchedulerOutput) -> None:
        for new in step.new_rows:
            self._missing[new.row] = len(new.token_ids) - new.num_computed_tokens
        self._busy_until = max(self._busy_until, time.perf_counter()) + self._step_seconds
        rows = self._advance(step) if self._missing else step.rows
        self._submitted.append((step, rows, self._busy_until))

    def _advance(self, step: SchedulerOutput) -> list[int]:
        """Count down what prompts lack; the rows that sample."""
        sampling = []
        for row, count in zip(step.rows, step.num_tokens, strict=True):
            left = self._missing.get(row, 0) - count
            if left > 0:
                self._missing[row] = left
            else:
                self._missing.pop(row, None)
                sampling.append(row)
        return sampling

    def collect(self) -> StepOutput:
        step, rows, ready_at = self._submitted.popleft()
        left = ready_at - time.perf_counter()
        if left > 0:
            time.sleep(left)
            self.waited_s += left
        begin = step.step * 7919 % (NUM_RANDOM - len(rows))
        return StepOutput(step=step.step, rows=rows.copy(), token_ids=self._tokens[begin : begin + len(rows)])

    def shutdown(self) -> None:
        """Nothing to free."""


FACTS = CheckpointFacts(
    name="null", architecture="Null", model_max_len=MAX_LEN, vocab_size=VOCAB_SIZE, stored_dtype="bfloat16"
)


def make_config(max_num_seqs: int, max_tokens: int = 8192) -> EngineConfig:
    wishes = EngineConfig.from_options(
        {
            "served_model_name": ["null"],
            "max_num_seqs": max_num_seqs,
            "max_num_batched_tokens": max_tokens,
            "log_requests": False,
            "log_level": "warning",
        }
    )
    return resolve(wishes, FACTS, local_device()).config


def make_core(config: EngineConfig, executor: NullExecutor, depth: int) -> tuple[EngineCore, CoreReady]:
    num_blocks = 2 + config.schedule.max_num_seqs * (MAX_LEN // 16)
    plan = plan_kv([FULL], block_size=16, num_blocks=num_blocks, available_bytes=0, useful_tokens=0)
    core = EngineCore(
        schedule=config.schedule,
        cache=CacheConfig(block_size=16, enable_prefix_caching=True),
        max_model_len=MAX_LEN,
        plan=plan,
        executor=executor,
        depth=depth,
    )
    ready = CoreReady(
        plan=plan,
        max_request_tokens=core.max_request_tokens,
        vocab_size=VOCAB_SIZE,
        hidden_size=1,
        memory_bytes={},
        seconds={},
    )
    return core, ready


@cache
def make_tokenizer() -> Tokenizer:
    """Byte-level, of the right size, with made-up words: it only has to turn ids into text."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    source = random.Random(1)
    words = dict.fromkeys(sorted(pre_tokenizers.ByteLevel.alphabet()))
    while len(words) < VOCAB_SIZE:
        letters = source.choices("abcdefghijklmnopqrstuvwxyz", k=source.randint(2, 7))
        words[source.choice("Ġ ").strip() + "".join(letters)] = None
    backend = Backend(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    with TemporaryDirectory() as folder:
        backend.save(f"{folder}/tokenizer.json")
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps({"model_max_length": MAX_LEN}))
        return load_tokenizer(TokenizerSource(folder=Path(folder)))


def serve(options: argparse.Namespace) -> None:
    """A server process as `octavo serve` makes it, around a core process of ours."""
    from octavo.engine.async_llm import AsyncLLM
    from octavo.engine.core_process import ProcessCore
    from octavo.engine.load import Loaded
    from octavo.engine.supervised_core import SupervisedCore
    from octavo.observe.log import set_up_logging
    from octavo.server.listen import listen
    from octavo.server.run import serve as run

    config = make_config(256)
    listener = listen(EngineConfig.from_options({"port": int(options.port)}).server)
    set_up_logging(config.observe.log_format, config.observe.log_level)
    entry = [__file__, "core", "--step-ms", str(options.step_ms), "--depth", str(options.depth)]
    entry += ["--profile"] if options.profile else []

    async def start() -> AsyncLLM:
        core = SupervisedCore(lambda: ProcessCore(entry))
        await core.launch()
        ready = await core.start(StartCore(config=config, path="null"))
        loaded = Loaded(
            config=config,
            reasons=[],
            path=Path("null"),
            checkpoint_name="null",
            facts=FACTS,
            tokenizer=tokenizer,
            eos_token_ids=[VOCAB_SIZE - 1],
            default_sampling={},
        )
        return AsyncLLM(loaded, ready, core)

    tokenizer = make_tokenizer()
    with sampled_profile() if options.profile else nullcontext():
        asyncio.run(run(start, config, listener))


def run_core(options: argparse.Namespace) -> None:
    from octavo.engine.core_main import main as core_main

    with sampled_profile() if options.profile else nullcontext():
        core_main(
            options.address,
            lambda start: make_core(start.config, NullExecutor(options.step_ms / 1000), options.depth),
            prepare=lambda: None,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    kinds = parser.add_subparsers(required=True)
    for name, run in (("server", serve), ("core", run_core)):
        kind = kinds.add_parser(name)
        kind.set_defaults(run=run)
        kind.add_argument("--step-ms", type=float, default=0.0)
        kind.add_argument("--depth", type=int, default=2)
        kind.add_argument("--profile", action="store_true")
        kind.add_argument("port" if name == "server" else "address")
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
