"""Stream several answers at once inside an asyncio program: python examples/streaming.py [MODEL]"""

import asyncio
import sys

from octavo import AsyncLLM, RequestOutputKind, SamplingParams
from octavo.config.root import EngineConfig

PARAMS = SamplingParams(temperature=0, max_tokens=24, output_kind=RequestOutputKind.DELTA)


async def answer(engine: AsyncLLM, prompt: str) -> None:
    parts = [output.outputs[0].text async for output in engine.generate(prompt, PARAMS)]
    print(f"{prompt!r} came in {len(parts)} parts: {''.join(parts)!r}")


async def main() -> None:
    options = {"model": sys.argv[1]} if len(sys.argv) > 1 else {}
    engine = await AsyncLLM.start(EngineConfig.from_options(options))
    await asyncio.gather(*(answer(engine, prompt) for prompt in ("One, two,", "The sea is", "def add(")))
    await engine.shutdown()


asyncio.run(main())
