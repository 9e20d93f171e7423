"""What `octavo serve` says when it is ready: where the time went, where memory goes, what to try."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from octavo.base import env
from octavo.cli.streams import give_up_stdout
from octavo.cli.units import show_bytes
from octavo.config.facts import CheckpointFacts
from octavo.config.root import EngineConfig
from octavo.config.server import ServerConfig
from octavo.messages.start import CoreReady

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}
_TOO_SHORT_S = 0.005


class ReadyEngine(Protocol):
    """The part of AsyncLLM that the report reads."""

    @property
    def config(self) -> EngineConfig: ...

    @property
    def ready(self) -> CoreReady: ...

    @property
    def facts(self) -> CheckpointFacts: ...


def print_ready(engine: ReadyEngine) -> None:
    """Print the whole report. Called once, when the server answers."""
    lines = [
        "",
        time_line(engine.ready.seconds, seconds_since_start()),
        "",
        *memory_table(engine.ready),
        "",
        *what_to_try(
            engine.config.server,
            engine.config.model.served_model_name[0],
            "write" if engine.facts.pooling is None else engine.facts.pooling.task,
        ),
        "",
    ]
    try:
        print("\n".join(lines), flush=True)
    except OSError:  # Whoever wanted to read it has gone; others want to be served.
        give_up_stdout()


def seconds_since_start() -> float:
    """Wall time since this process was started, the interpreter's own start included."""
    try:
        # Ticks since boot, to a hundredth of a second; the date of boot is known only to a second.
        started_ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        import psutil

        return max(0.0, time.time() - psutil.Process().create_time())


def time_line(seconds: Mapping[str, float], total_s: float) -> str:
    """One line whose parts add up to `total_s`; what nobody measured is shown as such."""
    parts = [(name.replace("_", " "), value) for name, value in seconds.items() if value >= _TOO_SHORT_S]
    rest = total_s - sum(value for _, value in parts)
    if rest >= _TOO_SHORT_S:
        parts.append(("interpreter and server", rest))
    shown = " + ".join(f"{name} {value:.2f}" for name, value in parts)
    return f"Ready in {max(total_s, sum(value for _, value in parts)):.2f} s = {shown or 'nothing measured'}"


def memory_table(ready: CoreReady) -> list[str]:
    """One line per use of memory, largest first, the KV cache with what it holds."""
    plan = ready.plan
    rows = {name: value for name, value in ready.memory_bytes.items() if value}
    width = max((len(name) for name in rows), default=0)
    lines = ["Memory:"]
    for name, value in sorted(rows.items(), key=lambda row: -row[1]):
        lines.append(f"  {name.replace('_', ' ').ljust(width)}  {show_bytes(value):>10}")
    if not plan.groups:
        return lines
    tokens = plan.num_blocks // len(plan.groups) * plan.block_size
    longest = ready.max_request_tokens
    lines.append(
        f"  The KV cache: {plan.num_blocks:,} blocks of {plan.block_size} tokens, about {tokens:,} tokens "
        f"({tokens / longest:.1f} requests of {longest:,})."
    )
    return lines


def base_url(server: ServerConfig) -> str:
    """Address that a client on this machine uses. root_path is the proxy's: nothing is under it here."""
    scheme = "https" if server.ssl_certfile else "http"
    host = _WILDCARDS.get(server.host, server.host)
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return f"{scheme}://{host}:{server.port}"


class _Example(NamedTuple):
    """A first request to a model of one kind."""

    route: str
    fields: str
    """Of its body, beside the model."""
    call: str | None
    """By the OpenAI client, if that has one."""


_EXAMPLES = {
    "write": _Example(
        "/v1/chat/completions",
        '"messages": [{"role": "user", "content": "Hello!"}]',
        'chat.completions.create(model="{model}", messages=[{{"role": "user", "content": "Hello!"}}])',
    ),
    "embed": _Example(
        "/v1/embeddings", '"input": "Hello!"', 'embeddings.create(model="{model}", input="Hello!")'
    ),
    "classify": _Example("/classify", '"input": "Hello!"', None),
}
"""By what the model does."""


def what_to_try(server: ServerConfig, model: str, task: str = "write") -> list[str]:
    """Ways to get a first answer. Never shows a key. task: a key of the examples."""
    has_key = bool(server.api_key) or server.api_key_file is not None or env.api_key() is not None
    header = ' -H "Authorization: Bearer $OCTAVO_API_KEY"' if has_key else ""
    example = _EXAMPLES[task]
    body = f'{{"model": "{model}", {example.fields}}}'
    if server.uds:
        return [
            f"Listening on {server.uds}. Try:",
            f"  curl --unix-socket {server.uds} http://localhost{example.route}{header} \\",
            f"    -H 'Content-Type: application/json' -d '{body}'",
        ]
    url = base_url(server)
    key = 'os.environ["OCTAVO_API_KEY"]' if has_key else '"none"'
    lines = [
        f"Listening on {url}. Try:",
        *([f"  octavo chat --url {url}"] if task == "write" else []),
        f"  curl {url}{example.route}{header} \\",
        f"    -H 'Content-Type: application/json' -d '{body}'",
    ]
    if example.call is not None:
        lines += [
            "  python: " + ("import os; " if has_key else "") + "from openai import OpenAI",
            f'          client = OpenAI(base_url="{url}/v1", api_key={key})',
            f"          client.{example.call.format(model=model)}",
        ]
    if server.enable_docs and not has_key:  # A browser sends no key.
        lines.append(f"  {url}/docs describes every route")
    return lines
