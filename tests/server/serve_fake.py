"""A server process around the fake engine, for tests of its life. Prints its port, then READY."""

from __future__ import annotations

import asyncio
import json
import sys

from server_fakes import FakeEngine, fake_config

from octavo.server.listen import inherited_listener, listen
from octavo.server.run import serve


def main() -> int:
    wishes = json.loads(sys.argv[1])
    config = fake_config(port=0, **wishes.get("config", {}))
    inherited = inherited_listener()
    listener = inherited or listen(config.server)
    say(listener.getsockname()[1])

    async def start() -> FakeEngine:
        await asyncio.sleep(wishes.get("start_s", 0))
        if wishes.get("fails"):
            raise RuntimeError("the model is broken")
        return FakeEngine(config, **wishes.get("engine", {}))

    status = asyncio.run(
        serve(start, config, listener, on_ready=lambda _: say("READY"), hands_over=inherited is not None)
    )
    say("STOPPED")
    return status


def say(word: object) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
