"""Model files and folders that lie: each beside the words that its refusal must hold."""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from octavo.weights.shapes import expected_shapes
from tests.tiny import save_tokenizer
from tests.weights import lies
from tests.weights.crafted import (
    LLAMA_KEYS,
    TINY_CONFIG,
    changed,
    gguf_bytes,
    llama_tensors,
    safetensors_bytes,
    write_config,
)

Lie = tuple[Path, list[str]]

CODE_FILES = ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
PICKLES = ("pytorch_model.bin", "model.pt", "model.ckpt")
READ_FILES = (
    "model.safetensors",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "chat_template.jinja",
)


def honest_folder(folder: Path) -> Path:
    """A Llama of zeros with a tokenizer: everything about it is right."""
    folder.mkdir(parents=True)
    write_config(folder, vocab_size=259)
    save_tokenizer(folder)
    shapes = expected_shapes(TINY_CONFIG | {"vocab_size": 259})
    assert shapes is not None
    header, position = {}, 0
    for name, shape in shapes.items():
        end = position + 4 * math.prod(shape)
        header[name] = lies.entry(list(shape), position, end)
        position = end
    (folder / "model.safetensors").write_bytes(safetensors_bytes(header, bytes(position)))
    return folder


def _copies(folder: Path) -> Iterator[Path]:
    """One copy of the honest folder after the other, to be spoilt."""
    first = honest_folder(folder / "honest")
    for number in range(10_000):
        yield Path(shutil.copytree(first, folder / str(number)))


def headers_of_wrong_length(folder: Path) -> Iterator[Lie]:
    copies = _copies(folder)
    for length in lies.HEADER_LENGTHS:
        model = next(copies)
        content = safetensors_bytes(lies.SMALL, bytes(22), length=length)
        (model / "model.safetensors").write_bytes(content)
        yield model, ["model.safetensors"]
    model = next(copies)
    one = json.dumps(lies.entry([0], 0, 0, "U8"))
    header = "{" + ",".join(f'"{index}":{one}' for index in range(10**6)) + "}"
    (model / "model.safetensors").write_bytes(safetensors_bytes(header.encode(), b""))
    yield model, ["1000000"]


def headers_that_lie(folder: Path) -> Iterator[Lie]:
    for model, (header, words) in zip(_copies(folder), lies.SAFETENSORS_HEADERS, strict=False):
        (model / "model.safetensors").write_bytes(safetensors_bytes(header, bytes(22)))
        yield model, words


def gguf_files_that_lie(folder: Path) -> Iterator[Lie]:
    contents: list[tuple[bytes, list[str]]] = [(gguf_bytes(LLAMA_KEYS, llama_tensors(), **change), words)
                                               for change, words in lies.GGUF_HEADERS]  # fmt: skip
    contents += [(_liar(**values), [lies.LIAR, *words]) for values, words in lies.GGUF_TENSORS]
    contents += [(_liar(shape=(16, size)), [lies.LIAR]) for size in lies.SIZES]
    contents += [(_keyed({"a.lie": value}), ["a.lie"]) for value in lies.GGUF_VALUES]
    contents += [
        (_keyed({"general.alignment": struct.pack("<Ii", 5, value) if value == -8 else value}), ["alignment"])
        for value in lies.ALIGNMENTS
    ]
    for number, (content, words) in enumerate(contents):
        path = folder / f"{number}.gguf"
        path.write_bytes(content)
        yield path, words


def _liar(**values: Any) -> bytes:
    return gguf_bytes(LLAMA_KEYS, changed(llama_tensors(), lies.LIAR, **{"data": bytes(2048), **values}))


def _keyed(keys: dict[str, Any]) -> bytes:
    return gguf_bytes(LLAMA_KEYS | keys, llama_tensors())


def configs_that_lie(folder: Path) -> Iterator[Lie]:
    copies = _copies(folder)
    for changes, words in lies.CONFIGS:
        model = next(copies)
        write_config(model, **{"vocab_size": 259, **changes})
        # The honest one has another vocabulary here.
        yield model, [word.replace("40", "259") if "vocab_size" in changes else word for word in words]
    for text in lies.NO_CONFIGS:
        model = next(copies)
        (model / "config.json").write_text(text)
        yield model, ["config.json"]
    for number, (keys, words) in enumerate(lies.GGUF_METADATA):
        path = folder / f"{number}.gguf"
        path.write_bytes(_keyed(keys))
        yield path, words


def files_that_are_elsewhere(folder: Path) -> Iterator[Lie]:
    """Pickles, paths and links that lead out of the folder, pipes."""
    copies = _copies(folder)
    for name in PICKLES:
        model = next(copies)
        (model / "model.safetensors").rename(model / name)
        yield model, [name, "safetensors"]
    weights = "model.safetensors"
    for name in (
        "model.bin",
        "../honest/model.safetensors",
        str(folder / "honest" / weights),
        "a/b.safetensors",
    ):
        model = next(copies)
        (model / weights).rename(model / "other.safetensors")
        (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
        (model / "other.safetensors").unlink()
        yield model, ["model.bin" if name == "model.bin" else "plain name"]
    for name in READ_FILES:
        model = next(copies)
        outside = folder / f"outside-{name}"
        (model / name).rename(outside) if (model / name).exists() else outside.write_text("{}")
        (model / name).symlink_to(outside)
        yield model, [name, "link"]
        model = next(copies)
        (model / name).unlink(missing_ok=True)
        os.mkfifo(model / name)
        # Without a config that is a file nothing shows that this is a model.
        yield model, [name] if name == "config.json" else [name, "regular"]


def name_code(model: Path) -> None:
    """Have every config of a folder name code in it, in all places that are known for that."""
    (model / "evil.py").write_text(f"open({str(model / 'ran')!r}, 'w').close()\nclass Evil: pass\n")
    classes = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoTokenizer", "AutoProcessor",
               "AutoImageProcessor", "AutoFeatureExtractor")  # fmt: skip
    auto_map: dict[str, Any] = dict.fromkeys(classes, "evil.Evil")
    auto_map["AutoTokenizer"] = ["evil.Evil", "evil.Evil"]
    named = {
        "auto_map": auto_map,
        "custom_pipelines": {"x": {"impl": "evil.Evil"}},
        "trust_remote_code": True,
    }
    for name in CODE_FILES:
        path = model / name
        config = json.loads(path.read_text()) if path.exists() else {}
        config |= named
        if name == "config.json":
            config["draft_config"] = {"model_type": "evil", **named}
        path.write_text(json.dumps(config))
