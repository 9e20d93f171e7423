"""A server whose core computes hashes instead of a model: all of Octavo but the worker, at full speed.

    python -m tests.chaos.fake_server serve FOLDER --port PORT [--step-ms 0] [flags of `octavo serve`]

FOLDER holds a tokenizer. The core is a process of its own, as it is with a model.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import signal
import sys
from pathlib import Path

from octavo.config.facts import CheckpointFacts, local_device
from octavo.config.resolve import Resolved, resolve
from octavo.config.root import EngineConfig
from octavo.core.loop import EngineCore
from octavo.engine.async_llm import AsyncLLM
from octavo.engine.core_main import main as core_main
from octavo.engine.core_process import ProcessCore
from octavo.engine.core_start import core_on
from octavo.engine.load import Loaded
from octavo.engine.supervised_core import SupervisedCore
from octavo.executor.fake import FakeExecutor
from octavo.messages.start import CoreReady, StartCore
from octavo.observe.log import set_up_logging
from octavo.server.listen import inherited_listener, listen
from octavo.server.run import serve
from octavo.tokens.source import TokenizerSource
from octavo.tokens.tokenizer import load_tokenizer
from tests.chaos.watched import tell_holdings
from tests.tiny import VOCAB_SIZE

MAX_LEN = 512
EOS = 258


FACTS = CheckpointFacts(
    name="fake", architecture="Fake", model_max_len=MAX_LEN, vocab_size=VOCAB_SIZE, stored_dtype="float32"
)


def resolved(options: argparse.Namespace) -> Resolved:
    wishes = EngineConfig.from_options(
        {
            "port": options.port,
            "max_model_len": MAX_LEN,
            "num_blocks": 1000,
            "max_num_seqs": options.max_num_seqs,
            "max_predicted_ttft": options.max_predicted_ttft,
            "log_requests": False,
        }
    )
    return resolve(wishes, FACTS, local_device())


def run_server(options: argparse.Namespace) -> int:
    signal.signal(signal.SIGRTMIN, tell_holdings)
    found = resolved(options)
    config = found.config
    set_up_logging(config.observe.log_format, config.observe.log_level)
    tokenizer = load_tokenizer(TokenizerSource(folder=options.folder))
    entry = ["-m", "tests.chaos.fake_server", "core", "--step-ms", str(options.step_ms)]

    async def start() -> AsyncLLM:
        core = SupervisedCore(lambda: ProcessCore(entry))
        await core.launch()
        ready = await core.start(StartCore(config=config, path="fake"))
        loaded = Loaded(
            config=config,
            reasons=found.reasons,
            path=options.folder,
            checkpoint_name="fake",
            facts=FACTS,
            tokenizer=tokenizer,
            eos_token_ids=[EOS],
            default_sampling={},
        )
        return AsyncLLM(loaded, ready, core)

    inherited = inherited_listener()
    listener = inherited or listen(config.server)
    ready = functools.partial(print, "Ready in no time", flush=True)
    return asyncio.run(
        serve(start, config, listener, on_ready=lambda _: ready(), hands_over=inherited is not None)
    )


def run_core(options: argparse.Namespace) -> int:
    def start(message: StartCore) -> tuple[EngineCore, CoreReady]:
        executor = FakeExecutor(vocab_size=VOCAB_SIZE, step_seconds=options.step_ms / 1000)
        return core_on(executor, message.config)

    core_main(options.address, start, prepare=lambda: None)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    kinds = parser.add_subparsers(required=True)
    for name, run in (("serve", run_server), ("core", run_core)):
        kind = kinds.add_parser(name)
        kind.set_defaults(run=run)
        kind.add_argument("--step-ms", type=float, default=0.0)
    server = kinds.choices["serve"]
    server.add_argument("folder", type=Path)
    server.add_argument("--port", type=int, default=0)
    server.add_argument("--max-num-seqs", type=int, default=16)
    server.add_argument("--max-predicted-ttft", type=float, default=600.0)
    kinds.choices["core"].add_argument("address")
    options = parser.parse_args()
    return int(options.run(options))


if __name__ == "__main__":
    sys.exit(main())
