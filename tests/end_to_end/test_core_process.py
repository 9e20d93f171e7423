"""The core in a process of its own: it serves, it dies with its parent, its death is noticed and typed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest
import zmq

from octavo import AsyncLLM, ConfigError, EngineError, ModelFileError, RequestError, SamplingParams
from octavo.config.root import EngineConfig
from octavo.engine.core_process import ProcessCore
from octavo.engine.load import load_front
from octavo.messages.start import StartCore
from octavo.messages.wire import Alive, Ping, Shutdown

GREEDY = SamplingParams(temperature=0, max_tokens=16, ignore_eos=True)


def config(model: Path, **options: object) -> EngineConfig:
    return EngineConfig.from_options(
        {"model": str(model), "max_model_len": 256, "num_blocks": 200, **options}
    )


def core_pids() -> list[int]:
    """Cores that this process started itself: those of servers that other tests keep are not its children."""
    children = psutil.Process().children()
    return [child.pid for child in children if "octavo.engine.core_main" in " ".join(child.cmdline())]


async def final(engine: AsyncLLM, prompt: str, params: SamplingParams = GREEDY) -> list[int]:
    tokens: list[int] = []
    async for output in engine.generate(prompt, params):
        tokens = output.outputs[0].token_ids
    return tokens


async def test_process_and_thread_give_the_same_tokens(tiny_llama: Path) -> None:
    prompts = [f"prompt number {i}" for i in range(6)]
    results = []
    for in_process in (False, True):
        engine = await AsyncLLM.start(config(tiny_llama), in_process=in_process)
        results.append(await asyncio.gather(*(final(engine, prompt) for prompt in prompts)))
        await engine.shutdown()
    assert results[0] == results[1]
    assert not core_pids()


async def test_answers_go_on_in_the_next_core(tiny_llama: Path) -> None:
    """Sampled ones too: their random numbers are counted. One runs, one waits; the caller sees nothing."""
    sampling = SamplingParams(temperature=1.0, max_tokens=120, ignore_eos=True, logprobs=1)
    engine = await AsyncLLM.start(config(tiny_llama, max_num_seqs=1, enable_prefix_caching=False))
    seeded = [SamplingParams(**{**msgspec.structs.asdict(sampling), "seed": n}) for n in range(2)]
    right = [await final(engine, "hello", each) for each in seeded]
    stream = engine.generate("hello", seeded[0])
    await anext(stream)
    waiting = asyncio.create_task(final(engine, "hello", seeded[1]))
    (pid,) = core_pids()
    os.kill(pid, signal.SIGKILL)
    outputs = [output.outputs[0] async for output in stream]
    assert [outputs[-1].token_ids, await waiting] == right
    assert outputs[-1].logprobs is not None and len(outputs[-1].logprobs) == 120
    assert core_pids() != [pid] and engine.stats().core_restarts == 1
    await engine.check_health()
    await engine.shutdown()
    assert not core_pids()


async def test_signals_that_are_meant_for_the_server_do_not_concern_its_core(tiny_llama: Path) -> None:
    engine = await AsyncLLM.start(config(tiny_llama))
    (pid,) = core_pids()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(pid, number)
    assert len(await final(engine, "hello")) == 16
    assert core_pids() == [pid]
    await engine.shutdown()


async def test_without_restarts_a_killed_core_is_noticed_and_typed(tiny_llama: Path) -> None:
    """Also by requests that are sent between a core's death and the moment it is noticed."""
    unhandled: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    engine = await AsyncLLM.start(config(tiny_llama, max_core_restarts=0))
    (core,) = (psutil.Process(pid) for pid in core_pids())
    core.kill()
    # Not core.wait(): it would take the exit status, which is the engine's to read.
    with contextlib.suppress(psutil.NoSuchProcess):
        while core.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
    with pytest.raises(EngineError, match="signal 9"):
        await anext(engine.generate("hello", GREEDY))
    with pytest.raises(EngineError):
        await engine.check_health()
    with pytest.raises(EngineError):
        engine.generate("hello", GREEDY)
    await engine.shutdown()
    gc.collect()
    await asyncio.sleep(0)
    assert not unhandled


async def test_a_stopped_core_says_where_it_is_and_is_replaced(
    tiny_llama: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = await AsyncLLM.start(config(tiny_llama, core_stall_timeout=2.0))
    # Long: it must not have been at its end before it was stopped.
    stream = engine.generate("hello", SamplingParams(temperature=0, max_tokens=200, ignore_eos=True))
    first = await anext(stream)
    (pid,) = core_pids()
    os.kill(pid, signal.SIGSTOP)
    outputs = [output.outputs[0].token_ids async for output in stream]
    assert outputs[-1][: len(first.outputs[0].token_ids)] == first.outputs[0].token_ids
    assert len(outputs[-1]) == 200 and core_pids() != [pid]
    assert "core_serve.py" in capfd.readouterr().err, "the stacks of the one that was stuck"
    await engine.shutdown()


def test_a_core_that_is_dropped_stops_nobody() -> None:
    """The collector came to zmq's context before its socket, and waited for it: for ever."""
    program = (
        "import gc\n"
        "from octavo.engine.core_process import ProcessCore\n"
        "core = ProcessCore()\n"
        "core.ring = core\n"
        "del core\n"
        "gc.collect()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


async def test_causes_cross_the_process_typed(tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="KV cache"):
        await AsyncLLM.start(config(tiny_llama, num_blocks=None, kv_cache_memory_bytes=1))
    assert not core_pids()
    with pytest.raises(ModelFileError):
        await AsyncLLM.start(config(tmp_path / "nothing-here"))


async def test_functions_cannot_cross(tiny_llama: Path) -> None:
    engine = await AsyncLLM.start(config(tiny_llama))
    with pytest.raises(RequestError, match="logits_processors"):
        engine.generate("x", SamplingParams(logits_processors=[lambda ids, logits: logits]))
    await engine.shutdown()


@pytest.mark.parametrize("is_ready", [True, False])
def test_p04_the_core_dies_with_its_parent_and_leaves_nothing(
    tiny_llama: Path, tmp_path: Path, is_ready: bool
) -> None:
    core = "ProcessCore().launch()"
    if is_ready:
        options = {"model": str(tiny_llama), "num_blocks": 64}
        core = f"AsyncLLM.start(EngineConfig.from_options({options!r}))"
    program = (
        "import asyncio\n"
        "from octavo import AsyncLLM\n"
        "from octavo.config.root import EngineConfig\n"
        "from octavo.engine.core_process import ProcessCore\n"
        "async def main():\n"
        f"    kept = await {core}\n"
        "    print('ready', flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", program]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    assert parent.stdout.readline().strip() == "ready"
    children = psutil.Process(parent.pid).children(recursive=True)
    assert children
    folders = list(tmp_path.glob("octavo-*"))
    assert bool(folders) is not is_ready, "the socket's folder goes once both are connected"
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(child.is_running() for child in children):
        time.sleep(0.05)
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    assert not list(tmp_path.glob("octavo-*"))


INTRUDER = """
import os, socket, sys
os.setgid(65534), os.setuid(65534)
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
except PermissionError:
    print("refused")
"""


async def test_strangers_at_the_engines_socket(tiny_llama: Path) -> None:
    """Row P14. Others cannot reach it, what this user's other processes say is not heard, and it goes once
    both ends are connected.
    """
    core = ProcessCore()
    await core.launch()
    while not core._raw.getsockopt(zmq.EVENTS) & zmq.POLLOUT:
        await asyncio.sleep(0.01)
    folder = core._folder
    assert folder.stat().st_mode & 0o777 == 0o700 and folder.stat().st_uid == os.getuid()
    if os.getuid() == 0:
        done = subprocess.run(
            [sys.executable, "-c", INTRUDER, str(folder / "core")], capture_output=True, text=True
        )
        assert done.stdout == "refused\n", done.stderr
    raw = socket.socket(socket.AF_UNIX)
    raw.connect(str(folder / "core"))
    raw.send(b"GET / HTTP/1.1\r\n\r\n" + bytes(1000))
    context = zmq.Context()
    peers = [context.socket(kind) for kind in (zmq.PAIR, zmq.DEALER, zmq.ROUTER, zmq.SUB)]
    for peer in peers:
        peer.linger = 0
        peer.connect(f"ipc://{folder}/core")
        if peer.type in (zmq.PAIR, zmq.DEALER):
            for frame in (b"", b"garbage", msgspec.msgpack.encode(Shutdown()), bytes(1 << 22)):
                with contextlib.suppress(zmq.ZMQError):
                    peer.send(frame, zmq.NOBLOCK)
    loaded = await asyncio.to_thread(load_front, config(tiny_llama))
    await core.start(StartCore(config=loaded.config, path=str(loaded.path)))
    assert not folder.exists()
    core.send(Ping())
    assert any(isinstance(message, Alive) for message in await core.receive())
    for peer in peers:
        peer.close()
    raw.close()
    context.term()
    await core.close()


async def test_frames_that_the_other_end_did_not_seal_are_dropped(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Garbage, a replay and another version on the line itself: the next true message is heard."""
    core = ProcessCore()
    await core.launch()
    loaded = await asyncio.to_thread(load_front, config(tiny_llama))
    close, heard = core._out.close, list[bytes]()
    monkeypatch.setattr(core._out, "close", lambda message: heard.append(close(message)) or heard[-1])
    await core.start(StartCore(config=loaded.config, path=str(loaded.path)))
    for frame in (b"", b"garbage", heard[0], b"OCT\x09" + heard[0][4:], bytes(1 << 20)):
        core._raw.send(frame)
    core.send(Ping())
    assert any(isinstance(message, Alive) for message in await core.receive())
    await core.close()


def test_nothing_listens_on_the_network(tiny_llama: Path) -> None:
    """An engine and its core open no port at all; a server only the ones it is told."""
    code = (
        "import asyncio, psutil, sys\n"
        "from octavo import AsyncLLM\n"
        "from octavo.config.root import EngineConfig\n"
        "async def main():\n"
        "    options = {'model': sys.argv[1], 'max_model_len': 64, 'num_blocks': 20}\n"
        "    engine = await AsyncLLM.start(EngineConfig.from_options(options))\n"
        "    me = psutil.Process()\n"
        "    for process in (me, *me.children(recursive=True)):\n"
        "        print(process.net_connections(kind='inet'))\n"
        "    await engine.shutdown()\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_llama)], capture_output=True, text=True, timeout=100
    )
    assert set(done.stdout.split()) == {"[]"} and len(done.stdout.split()) >= 2, done.stdout + done.stderr
