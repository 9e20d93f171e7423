"""Arena: the server that is attacked, as a user starts it, and what shows whether it is well.

`octavo serve` with a tiny random model: real worker, real scheduler, the core a process of its own, keys set,
the administrative listener on. Everything here is blocking; rows that need many clients open many sockets.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from tests.attacks.streams import StreamResult, read_stream
from tests.end_to_end.server_process import ServerProcess, serving
from tests.tiny import save_model

KEY = "sk-attacker-0123456789"
CONTEXT = 512
VOCAB = 259
HEADER_TIMEOUT_S, SEND_TIMEOUT_S = 3.0, 2.0
MAX_BODY_BYTES = 16 * 2**20
FLAGS = (
    *("--max-model-len", str(CONTEXT), "--num-blocks", "200", "--max-num-seqs", "8"),
    *("--header-timeout", str(HEADER_TIMEOUT_S), "--send-timeout", str(SEND_TIMEOUT_S)),
)


@dataclass(frozen=True)
class Setting:
    """How the server of a group of rows is started. Groups with equal settings share one."""

    flags: tuple[str, ...] = ()
    key_file: str | None = None
    """Content of --api-key-file; without it the one key is KEY, and the administrative listener has none."""
    key: str = KEY
    admin_key: str | None = None
    num_descriptors: int | None = None
    """RLIMIT_NOFILE of the server, soft and hard."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


CANARY = {"prompt": "canary", "max_tokens": 8, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
VICTIM = {**CANARY, "prompt": "a stream that somebody else reads", "max_tokens": 200, "stream": True}


@dataclass
class Arena:
    """A running server. Clients of the checks keep one connection each; attackers open their own."""

    server: ServerProcess
    model: Path
    log: Path
    admin_url: str
    setting: Setting
    is_full: bool
    """Whether heavy rows are sent at full size, as `make attacks` does."""
    public: httpx.Client = field(init=False)
    admin: httpx.Client = field(init=False)
    opened: list[Any] = field(default_factory=list)
    """What rows left open for the runner to close: sockets, clients."""

    def __post_init__(self) -> None:
        self.public = httpx.Client(base_url=self.url, headers=self.auth, timeout=60)
        admin_key = self.setting.admin_key
        headers = {"authorization": f"Bearer {admin_key}"} if admin_key else {}
        self.admin = httpx.Client(base_url=self.admin_url, headers=headers, timeout=60)

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def auth(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.setting.key}"}

    def many(self, full: int, short: int) -> int:
        """How many of something: the list's number under `make attacks`, a few in the ordinary suite."""
        return full if self.is_full else short

    def client(self, **options: Any) -> httpx.Client:
        """An attacker with the key, without patience for keep-alive. Closed after the row."""
        options = {"base_url": self.url, "headers": self.auth, "timeout": 60, **options}
        client = httpx.Client(limits=httpx.Limits(max_keepalive_connections=0), **options)
        self.opened.append(client)
        return client

    def connect(self, timeout: float = 20) -> socket.socket:
        """A raw connection. Closed after the row."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        self.opened.append(connection)
        return connection

    def connect_many(self, number: int) -> list[socket.socket]:
        """So many raw connections, opened side by side. Closed after the row."""
        connections = []
        for _ in range(number):
            connection = socket.socket()
            connection.setblocking(False)
            connection.connect_ex(("127.0.0.1", self.port))
            connections.append(connection)
        self.opened += connections
        return connections

    def close_opened(self) -> None:
        while self.opened:
            self.opened.pop().close()

    def close(self) -> None:
        self.close_opened()
        self.public.close()
        self.admin.close()

    def account(self) -> dict[str, Any]:
        """What the server says that it holds. Resets its longest lag."""
        reply = self.admin.get("/accounting")
        assert reply.status_code == 200, reply.text
        account: dict[str, Any] = reply.json()
        return account

    def canary(self) -> list[int]:
        """Tokens of a greedy request."""
        reply = self.public.post("/v1/completions", json=CANARY)
        assert reply.status_code == 200, f"the canary got {reply.status_code} {reply.text}"
        ids: list[int] = reply.json()["choices"][0]["token_ids"]
        return ids

    def victim(self) -> StreamResult:
        """The stream of a client that has nothing to do with the attack."""
        with httpx.Client(base_url=self.url, headers=self.auth, timeout=60) as client:
            return read_stream(client, VICTIM)

    @cached_property
    def golden(self) -> list[int]:
        return self.canary()

    @cached_property
    def golden_victim(self) -> list[int]:
        return self.victim().token_ids

    def warm_up(self) -> None:
        """Have all that is made once be made, so that what is there afterwards is a baseline."""
        assert self.golden and len(self.golden_victim) == VICTIM["max_tokens"]
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
        self.public.post("/v1/chat/completions", json={
            "messages": [{"role": "user", "content": "x"}], "max_tokens": 4, "response_format": form
        })  # fmt: skip
        self.public.get("/v1/files")  # opens the store
        message = {"role": "user", "content": "x"}
        for template in (
            "x",
            "{% for a in range(10**9) %}{% endfor %}",
        ):  # starts helpers, where it is allowed
            wish = {"messages": [message], "max_tokens": 1, "chat_template": template}
            self.public.post("/v1/chat/completions", json=wish)
        crowd = [threading.Thread(target=self.victim) for _ in range(4)]
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()


@contextmanager
def arena(folder: Path, setting: Setting, *, is_full: bool = False) -> Iterator[Arena]:
    """Start a server in `folder`, warmed up; end it."""
    model = folder / "tiny"
    if not model.exists():
        save_model(model)
    port = free_port()
    limit = setting.num_descriptors
    before = ["prlimit", f"--nofile={limit}:{limit}"] if limit else []
    with serving(model, *_flags(folder, setting, port), log=folder / "log", before=before) as server:
        built = Arena(server, model, folder / "log", f"http://127.0.0.1:{port}", setting, is_full)
        try:
            built.warm_up()
            yield built
        finally:
            built.close()


def _flags(folder: Path, setting: Setting, admin_port: int) -> Sequence[str]:
    flags = [*FLAGS, "--admin-port", str(admin_port), *setting.flags]
    if setting.admin_key:
        flags += ["--admin-api-key", setting.admin_key]
    if setting.key_file is None:
        return [*flags, "--api-key", setting.key]
    file = folder / "keys.toml"
    file.write_text(setting.key_file)
    return [*flags, "--api-key-file", str(file)]
