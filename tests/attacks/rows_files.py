"""Rows 2.8: files. None may get further than its refusal, whoever loads it; the arena's server serves on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.attacks.after import slowness
from tests.attacks.arena import FLAGS, Arena
from tests.attacks.hostile_models import (
    Lie,
    configs_that_lie,
    files_that_are_elsewhere,
    gguf_files_that_lie,
    headers_of_wrong_length,
    headers_that_lie,
    honest_folder,
    name_code,
)
from tests.attacks.own_server import launched, lives
from tests.attacks.row import Attack, NotThere, Row
from tests.end_to_end.server_process import ServerProcess, serving
from tests.tiny import save_model
from tests.weights import lies
from tests.weights.crafted import LLAMA_KEYS, gguf_bytes, llama_tensors, safetensors_bytes

REFUSED_WITHIN_S = 5.0
LEAST_MEMORY = 32 * 2**20
"""What importing and allocating in strides takes beside twice the file."""
BODY = {"prompt": "hello", "max_tokens": 8, "temperature": 0, "ignore_eos": True, "return_token_ids": True}


def refuses_all(lies_in: Callable[[Path], Iterator[Lie]], short: int) -> Attack:
    """Every file is refused by what a server runs at start: in time, in little memory, naming the culprit.
    Under `make attacks` one of them is given to `octavo serve` itself, too.
    """

    def attack(arena: Arena) -> None:
        with _folder() as folder:
            all_lies = list(lies_in(folder))
            stride = 1 if arena.is_full else max(1, len(all_lies) // short)
            chosen = all_lies[::stride]
            for (path, words), result in zip(chosen, _load([path for path, _ in chosen]), strict=True):
                _check_refusal(path, words, result)
            if arena.is_full:
                path, words = chosen[len(chosen) // 2]
                check_serve_refuses(path, words)

    return attack


def _load(paths: list[Path]) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "tests.attacks.load_files", "load", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"the loader ended with {done.returncode}: {done.stderr[-500:]}"
    return [json.loads(line) for line in done.stdout.splitlines()]


def _check_refusal(path: Path, words: list[str], result: dict[str, Any]) -> None:
    where = f"{path.name} ({words}): {result}"
    assert result["error"] == "ModelFileError" and "is_crash" not in result, where
    assert all(word in result["message"] for word in words), where
    assert result["seconds"] < REFUSED_WITHIN_S * slowness(), where
    assert result["grown_bytes"] <= 2 * _size(path) + LEAST_MEMORY, where


def _size(path: Path) -> int:
    return (
        sum(file.stat().st_size for file in path.iterdir() if file.is_file())
        if path.is_dir()
        else (path.stat().st_size)
    )


def check_serve_refuses(path: Path, words: list[str]) -> None:
    """`octavo serve`: exit status 1, the reason as its last line, no traceback, nothing left behind."""
    began = time.monotonic()
    with launched(model=path) as server:
        children = []
        while server.process.poll() is None and not children:
            children = server.children
            time.sleep(0.02)
        assert server.exit_status() == 1, server.log[-500:]
        last = server.log.strip().splitlines()[-1]
        assert last.startswith("octavo: error: ") and "Traceback" not in server.log, server.log[-1000:]
        assert all(word in last for word in words), f"{words} in {last}"
        assert time.monotonic() - began < REFUSED_WITHIN_S * slowness(), "too late"
        assert not any(lives(child) for child in children), "a child lives on"
        left = list(server.temporary.iterdir())
        assert not left, f"left behind: {left}"


def damage(arena: Arena) -> None:
    """F03. A damaged file that is taken holds the same tensors, or lacks one, which is refused later."""
    keys = LLAMA_KEYS | {"llama.block_count": 1, "tokenizer.ggml.tokens": ["a", "b"]}
    with _folder() as folder:
        (folder / "small.safetensors").write_bytes(safetensors_bytes(lies.SMALL, bytes(range(22))))
        (folder / "small.gguf").write_bytes(gguf_bytes(keys, llama_tensors(layers=1)))
        for name, stride in (("small.safetensors", arena.many(1, 7)), ("small.gguf", arena.many(3, 301))):
            command = [
                sys.executable,
                "-m",
                "tests.attacks.load_files",
                "damage",
                str(folder / name),
                str(stride),
            ]
            done = subprocess.run(command, capture_output=True, text=True, timeout=600)
            assert done.returncode == 0, f"the reader ended with {done.returncode}: {done.stderr[-500:]}"
            counts = json.loads(done.stdout)
            assert counts["refused"] and counts["equal"] and not counts["different"], counts


def runs_no_code(make: Callable[[Path], Path], how: str) -> Attack:
    """F08. An audit hook in the process that loads the model sees no code of its folder being touched."""

    def attack(_: Arena) -> None:
        with _folder() as folder:
            model = make(folder / "model")
            command = [sys.executable, "-m", "tests.attacks.watch_code", str(model)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stderr[-1000:]
            result = json.loads(done.stdout.splitlines()[-1])
            assert not result["seen"] and not result["ran"], result
            assert result["how"].startswith(how), result

    return attack


def _own_family(folder: Path) -> Path:
    name_code(honest_folder(folder))
    return folder


def _fallback_family(folder: Path) -> Path:
    name_code(save_model(folder, "arcee"))
    return folder


def _unknown_family(folder: Path) -> Path:
    _own_family(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "architectures": ["Evil"]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _older_tokenizer(folder: Path) -> Path:
    _own_family(folder)
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("[UNK]\nhello\n")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["tokenizer_class"] = "Evil"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def broken_numbers(_: Arena) -> None:
    """F10. A warning at load that names the tensor; requests fail typed; nothing dies of it."""
    import torch
    from safetensors.torch import load_file, save_file

    with _folder() as folder:
        model = save_model(folder / "tiny")
        weights = load_file(model / "model.safetensors")
        name = "model.layers.1.mlp.up_proj.weight"
        weights[name][3, 5] = torch.nan
        save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
        with serving(model, *FLAGS, log=folder / "log") as server:
            for _ in range(5):
                reply = httpx.post(server.url + "/v1/completions", json=BODY, timeout=60)
                error = reply.json()["error"]
                assert reply.status_code == 500 and error["code"] == "engine_failed", reply.text
                assert "not finite" in error["message"], error
            assert httpx.get(server.url + "/readyz").status_code == 200
            assert server.stop() == 0
        text = (folder / "log").read_text()
        warning = next((line for line in text.splitlines() if "NaN or infinite numbers" in line), "")
        assert name in warning and "WARNING" in warning, text[-1000:]
        assert "core is lost" not in text, text[-1000:]


def file_changes_while_serving(arena: Arena) -> None:
    """F12. Truncated, overwritten, replaced: answers stay golden, the core stays the same process."""
    changes: list[Callable[[Path], None]] = [_truncate, _overwrite, _replace]
    for change in changes if arena.is_full else changes[:1]:
        with _folder() as folder:
            model = save_model(folder / "tiny")
            with serving(model, *FLAGS, log=folder / "log") as server:
                golden = _ask(server)
                change(model / "model.safetensors")
                assert [_ask(server) for _ in range(3)] == [golden] * 3, change.__name__
                assert server.stop() == 0
            assert "core is lost" not in (folder / "log").read_text()


def _ask(server: ServerProcess) -> list[int]:
    reply = httpx.post(server.url + "/v1/completions", json=BODY, timeout=60)
    assert reply.status_code == 200, reply.text
    ids: list[int] = reply.json()["choices"][0]["token_ids"]
    return ids


def _truncate(file: Path) -> None:
    os.truncate(file, 100)


def _overwrite(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.write(os.urandom(file.stat().st_size))


def _replace(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"something else")
    other.rename(file)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="attack-") as folder:
        yield Path(folder)


REFUSAL = "refused within 5 s and in twice the file's memory, naming what is wrong"
NO_CODE = "no file with code is opened, compiled or imported"

ROWS: tuple[Row, ...] = (
    Row(
        id="F01",
        name="safetensors: header lengths, a million tensors",
        expected=REFUSAL,
        attack=refuses_all(headers_of_wrong_length, 8),
        budget_ms=20_000,
    ),
    Row(
        id="F01",
        name="safetensors: headers that are no JSON, odd names, keys twice; F02: offsets, types, shapes",
        expected=REFUSAL,
        attack=refuses_all(headers_that_lie, 30),
        budget_ms=20_000,
        with_victim=True,
    ),
    Row(
        id="F02",
        name="safetensors with a lie, before octavo serve",
        expected="exit status 1, the tensor named in the last line, nothing left behind",
        attack=lambda _: _serve_one(headers_that_lie, 21),
        budget_ms=20_000,
    ),
    Row(
        id="F03",
        name="every cut and every damaged header byte",
        expected="refused, or the same tensors",
        attack=damage,
        budget_ms=600_000,
    ),
    Row(
        id="F05",
        name="GGUF: counts, dimensions, alignments, offsets, types, values that lie",
        expected=REFUSAL,
        attack=refuses_all(gguf_files_that_lie, 12),
        budget_ms=60_000,
    ),
    Row(
        id="F06",
        name="configs and metadata that contradict the tensors or all reason",
        expected=REFUSAL + ", with both numbers",
        attack=refuses_all(configs_that_lie, 16),
        budget_ms=60_000,
    ),
    Row(
        id="F07",
        name="pickles, paths and links that lead away, pipes",
        expected=REFUSAL,
        attack=refuses_all(files_that_are_elsewhere, 20),
        budget_ms=60_000,
    ),
    Row(
        id="F08",
        name="auto_map everywhere, a family of ours",
        expected=NO_CODE,
        attack=runs_no_code(_own_family, "answered"),
        budget_ms=30_000,
        only_full=True,
    ),
    Row(
        id="F08",
        name="auto_map everywhere, computed by transformers",
        expected=NO_CODE,
        attack=runs_no_code(_fallback_family, "answered"),
        budget_ms=60_000,
        only_full=True,
    ),
    Row(
        id="F08",
        name="auto_map everywhere, an unknown family",
        expected=NO_CODE + ", and refused",
        attack=runs_no_code(_unknown_family, "ModelFileError"),
        budget_ms=30_000,
        only_full=True,
    ),
    Row(
        id="F08",
        name="auto_map everywhere, a tokenizer with a class of its own",
        expected=NO_CODE + ", and refused",
        attack=runs_no_code(_older_tokenizer, "ModelFileError"),
        budget_ms=30_000,
        only_full=True,
    ),
    Row(
        id="F10",
        name="weights with NaN",
        expected="named at load; requests get engine_failed; the engine stays",
        attack=broken_numbers,
        budget_ms=30_000,
        only_full=True,
    ),
    Row(
        id="F12",
        name="the file is truncated, overwritten or replaced while it is served",
        expected="answers stay golden in the same core",
        attack=file_changes_while_serving,
        budget_ms=60_000,
        only_full=True,
    ),
)

NOT_THERE = (
    NotThere(id="F11", name="adapters", reason="LoRA is not there yet (issue 8)"),
    NotThere(id="F13", name="saved KV", reason="KV is not saved to files yet"),
)


def _serve_one(lies_in: Callable[[Path], Iterator[Lie]], number: int) -> None:
    with _folder() as folder:
        check_serve_refuses(*list(lies_in(folder))[number])
