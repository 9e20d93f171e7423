"""Model folders: shards, links, pipes, pickle; what is opened as what; configs that lie; dummy weights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from octavo.base.errors import ModelFileError
from octavo.config.model import ModelConfig
from octavo.weights.checkpoint import checkpoint_facts, open_checkpoint
from octavo.weights.config_json import context_length, read_config
from octavo.weights.sources.find import find_model
from tests.weights.crafted import LLAMA_KEYS, TINY_CONFIG, VOCAB, llama_tensors, write_config, write_gguf
from tests.weights.lies import CONFIGS, NO_CONFIGS

Weights = dict[str, torch.Tensor]


def refused(path: Path, *words: str, load_format: str = "auto") -> None:
    with pytest.raises(ModelFileError) as caught:
        open_checkpoint(path, load_format)
    for word in words:
        assert word in caught.value.message


def shard(
    folder: Path, weights: Weights, file_names: tuple[str, str] = ("a.safetensors", "b.safetensors")
) -> None:
    """Replace the folder's one file by two and an index."""
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    halves = {file_names[0]: names[::2], file_names[1]: names[1::2]}
    for file_name, half in halves.items():
        save_file({name: weights[name] for name in half}, folder / Path(file_name).name)
    write_index(folder, {name: file_name for file_name, half in halves.items() for name in half})


def write_index(folder: Path, weight_map: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_one_file(tiny_folder: Path, tiny_weights: Weights) -> None:
    (tiny_folder / "generation_config.json").write_text('{"temperature": 0.6, "eos_token_id": [1, 2]}')
    checkpoint = open_checkpoint(tiny_folder)
    assert (checkpoint.name, checkpoint.format, checkpoint.stored_dtype) == (
        "tiny-llama",
        "safetensors",
        "float32",
    )
    assert checkpoint.config == TINY_CONFIG
    assert checkpoint.generation_config == {"temperature": 0.6, "eos_token_id": [1, 2]}
    assert checkpoint.tokenizer_source().folder == tiny_folder
    facts = checkpoint_facts(checkpoint, ModelConfig())
    assert (facts.architecture, facts.model_max_len, facts.vocab_size) == ("LlamaForCausalLM", 128, VOCAB)
    assert set(checkpoint.tensor_names()) == set(tiny_weights)
    for name, tensor in tiny_weights.items():
        assert checkpoint.shape(name) == tuple(tensor.shape)
        assert torch.equal(checkpoint.load(name), tensor)
        assert torch.equal(checkpoint.load(name, torch.bfloat16), tensor.bfloat16())
    kept = checkpoint.load("model.norm.weight", torch.float32)
    assert kept.data_ptr() == checkpoint.load("model.norm.weight").data_ptr()
    checkpoint.close()
    assert torch.equal(kept, tiny_weights["model.norm.weight"])
    with pytest.raises(ModelFileError, match=r"model\.norm"):
        checkpoint.load("model.norm.weight")


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.float8_e4m3fn])
def test_numbers_that_nobody_computes_with_count_as_float32(
    tiny_folder: Path, tiny_weights: Weights, dtype: torch.dtype
) -> None:
    """Not as packed, which native kernels would take as it is, with narrower keys and values."""
    save_file(
        {name: weight.to(dtype) for name, weight in tiny_weights.items()}, tiny_folder / "model.safetensors"
    )
    assert open_checkpoint(tiny_folder).stored_dtype == "float32"
    write_config(tiny_folder, dtype=str(dtype).removeprefix("torch."))
    assert open_checkpoint(tiny_folder, "dummy").stored_dtype == "float32"


def test_shards(tiny_folder: Path, tiny_weights: Weights) -> None:
    shard(tiny_folder, tiny_weights)
    checkpoint = open_checkpoint(tiny_folder)
    assert set(checkpoint.tensor_names()) == set(tiny_weights)
    for name, tensor in tiny_weights.items():
        assert torch.equal(checkpoint.load(name), tensor)


def test_what_transformers_saves(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**TINY_CONFIG | {"tie_word_embeddings": False}))
    model.save_pretrained(tmp_path / "saved", max_shard_size="20KB")
    checkpoint = open_checkpoint(tmp_path / "saved")
    for name, tensor in model.state_dict().items():
        assert torch.equal(checkpoint.load(name), tensor)
    assert checkpoint_facts(checkpoint, ModelConfig()).model_max_len == 128
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert set(again.state_dict()) == set(checkpoint.tensor_names())


@pytest.mark.parametrize(
    "name",
    [
        "../outside.safetensors",
        "/etc/x.safetensors",
        "sub/a.safetensors",
        "a\\b.safetensors",
        "n\0.safetensors",
    ],
)
def test_shard_names_stay_in_the_folder(tiny_folder: Path, tiny_weights: Weights, name: str) -> None:
    shutil.copy(tiny_folder / "model.safetensors", tiny_folder.parent / "outside.safetensors")
    (tiny_folder / "model.safetensors").unlink()
    write_index(tiny_folder, dict.fromkeys(tiny_weights, name))
    refused(tiny_folder, "plain name")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "model.pkl"])
def test_pickle_is_refused(tiny_folder: Path, tiny_weights: Weights, name: str) -> None:
    (tiny_folder / "model.safetensors").rename(tiny_folder / name)
    refused(tiny_folder, name, "safetensors: cd ")
    refused(tiny_folder / name, name, "safetensors: cd ")
    write_index(tiny_folder, dict.fromkeys(tiny_weights, name))
    refused(tiny_folder, name, "safetensors")


@pytest.mark.parametrize(
    "names", [["pytorch_model.bin"], ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]]
)
def test_the_command_for_pickles_converts_them(
    tiny_folder: Path, tiny_weights: Weights, names: list[str]
) -> None:
    """It is taken from the message and run as it stands."""
    folder = tiny_folder.rename(tiny_folder.parent / "it's a model")
    (folder / "model.safetensors").unlink()
    keys = sorted(tiny_weights)
    for index, name in enumerate(names):
        torch.save({key: tiny_weights[key] for key in keys[index :: len(names)]}, folder / name)
    torch.save({"lr": 1.0}, folder / "training_args.bin")
    with pytest.raises(ModelFileError) as caught:
        open_checkpoint(folder)
    command = caught.value.message.partition("safetensors: ")[2].replace("python -c", f"{sys.executable} -c")
    subprocess.run(command, shell=True, check=True, timeout=120)
    checkpoint = open_checkpoint(folder)
    assert sorted(checkpoint.tensor_names()) == keys
    for key in keys:
        assert torch.equal(checkpoint.load(key), tiny_weights[key])


def test_the_command_for_pickles_runs_no_code(tiny_folder: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tiny_folder / "this code ran"),))

    (tiny_folder / "model.safetensors").unlink()
    torch.save({"weight": Evil()}, tiny_folder / "pytorch_model.bin")
    with pytest.raises(ModelFileError) as caught:
        open_checkpoint(tiny_folder)
    command = caught.value.message.partition("safetensors: ")[2].replace("python -c", f"{sys.executable} -c")
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0 and "weights_only" in done.stderr
    assert not (tiny_folder / "this code ran").exists()


def test_index_lies(tiny_folder: Path, tiny_weights: Weights) -> None:
    shard(tiny_folder, tiny_weights)
    names = sorted(tiny_weights)
    write_index(tiny_folder, dict.fromkeys(names, "a.safetensors"))
    refused(tiny_folder, names[1])
    write_index(tiny_folder, dict.fromkeys(names, "gone.safetensors"))
    refused(tiny_folder, "gone.safetensors")
    write_index(tiny_folder, dict.fromkeys(names, 3))
    refused(tiny_folder, "weight_map")
    write_index(tiny_folder, {})
    refused(tiny_folder, "weight_map")
    (tiny_folder / "model.safetensors.index.json").write_text("[1]")
    refused(tiny_folder, "index.json")
    (tiny_folder / "model.safetensors.index.json").unlink()
    refused(tiny_folder, "index.json", "2")


def test_links_must_stay_inside(tiny_folder: Path) -> None:
    outside = tiny_folder.parent / "elsewhere.safetensors"
    (tiny_folder / "model.safetensors").rename(outside)
    (tiny_folder / "model.safetensors").symlink_to(outside)
    refused(tiny_folder, "model.safetensors", "link")
    (tiny_folder / "model.safetensors").unlink()
    outside.rename(tiny_folder / "real.safetensors")
    (tiny_folder / "model.safetensors").symlink_to("real.safetensors")
    assert open_checkpoint(tiny_folder).tensor_names()
    (tiny_folder / "config.json").rename(tiny_folder.parent / "config.json")
    (tiny_folder / "config.json").symlink_to("../config.json")
    refused(tiny_folder, "config.json", "link")
    (tiny_folder / "config.json").unlink()
    (tiny_folder / "config.json").symlink_to("config.json")
    refused(tiny_folder, "config.json")


def test_hugging_face_cache_layout(tiny_folder: Path) -> None:
    entry = tiny_folder.parent / "models--org--Tiny-Llama"
    snapshot = entry / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (entry / "blobs").mkdir()
    for index, name in enumerate(("config.json", "model.safetensors")):
        shutil.copy(tiny_folder / name, entry / "blobs" / str(index))
        (snapshot / name).symlink_to(f"../../blobs/{index}")
    checkpoint = open_checkpoint(snapshot)
    assert checkpoint.name == "Tiny-Llama"
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to(tiny_folder / "model.safetensors")
    refused(snapshot, "link")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "generation_config.json"])
def test_pipes_and_folders_do_not_block(tiny_folder: Path, name: str) -> None:
    path = tiny_folder / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    refused(tiny_folder, name, "regular")
    path.unlink()
    path.mkdir()
    refused(tiny_folder, name, "regular")


def test_a_pipe_as_gguf(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.gguf")
    refused(tmp_path / "model.gguf", "regular")
    refused(tmp_path / "gone.gguf", "gone.gguf")
    (tmp_path / "empty.gguf").touch()
    refused(tmp_path / "empty.gguf", "empty")


def test_what_is_opened_as_what(tiny_folder: Path, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf")
    assert open_checkpoint(file).format == "gguf"
    assert open_checkpoint(tiny_folder, "safetensors").format == "safetensors"
    assert open_checkpoint(tiny_folder, "dummy").format == "dummy"
    assert open_checkpoint(file, "dummy").format == "dummy"
    refused(file, "folder", load_format="safetensors")
    refused(tiny_folder, ".gguf", load_format="gguf")
    refused(tiny_folder / "model.safetensors", "folder")
    refused(tiny_folder, "pickle", load_format="pickle")
    shutil.copy(file, tiny_folder / "one.gguf")
    assert open_checkpoint(tiny_folder).format == "safetensors"
    assert open_checkpoint(tiny_folder, "gguf").format == "gguf"
    (tiny_folder / "model.safetensors").unlink()
    assert open_checkpoint(tiny_folder).format == "gguf"
    shutil.copy(file, tiny_folder / "two.gguf")
    refused(tiny_folder, "one.gguf", "two.gguf")
    for name in ("one.gguf", "two.gguf"):
        (tiny_folder / name).unlink()
    refused(tiny_folder, "no weights")
    (tiny_folder / "config.json").unlink()
    refused(tiny_folder, "config.json", load_format="dummy")


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("Qwen2.5-0.5B-Instruct-Q4_K_M", "Qwen2.5-0.5B-Instruct"),
        ("Llama-3.2-1B.IQ4_XS", "Llama-3.2-1B"),
        ("bitnet-TQ1_0", "bitnet"),
        ("tiny-bf16", "tiny"),
        ("tiny_fp16", "tiny"),
        ("SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct"),
    ],
)
def test_names_of_gguf_files(tmp_path: Path, name: str, kept: str) -> None:
    assert open_checkpoint(write_gguf(tmp_path / f"{name}.gguf")).name == kept


@pytest.mark.parametrize(("changes", "words"), CONFIGS)
def test_config_lies(tiny_folder: Path, changes: dict[str, Any], words: list[str]) -> None:
    write_config(tiny_folder, **changes)
    refused(tiny_folder, *words)


@pytest.mark.parametrize("text", NO_CONFIGS)
def test_configs_that_are_not_json_objects(tiny_folder: Path, text: str) -> None:
    (tiny_folder / "config.json").write_text(text)
    refused(tiny_folder, "config.json")


def below(tiny_folder: Path) -> Path:
    """A folder with the model in 0_Transformer, as modules.json says."""
    whole = tiny_folder.parent / "whole"
    whole.mkdir()
    tiny_folder.rename(whole / "0_Transformer")
    modules = [{"path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}]
    (whole / "modules.json").write_text(json.dumps(modules))
    return whole


@pytest.mark.parametrize("load_format", ["auto", "safetensors", "dummy"])
def test_a_transformer_in_a_folder_of_its_own(
    tiny_folder: Path, tiny_weights: Weights, load_format: str
) -> None:
    folder = below(tiny_folder)
    (folder / "0_Transformer/generation_config.json").write_text('{"temperature": 0.6}')
    assert find_model(str(folder)) == folder
    checkpoint = open_checkpoint(folder, load_format)
    assert (checkpoint.name, checkpoint.path) == ("whole", folder)
    assert set(checkpoint.tensor_names()) == set(tiny_weights)
    assert checkpoint.generation_config == {"temperature": 0.6}
    assert checkpoint.tokenizer_source().folder == folder / "0_Transformer"


def test_a_folder_of_its_own_that_is_not_there(tiny_folder: Path) -> None:
    folder = below(tiny_folder)
    for path, words in (("../whole", "plain name"), ("gone", "no file 'gone'")):
        modules = [{"path": path, "type": "sentence_transformers.models.Transformer"}]
        (folder / "modules.json").write_text(json.dumps(modules))
        refused(folder, words)
        with pytest.raises(ModelFileError, match=words):
            find_model(str(folder))
    (folder / "modules.json").write_text('[{"path": "0_Transformer", "type": "custom.Transformer"}]')
    with pytest.raises(ModelFileError, match="holds no model"):
        find_model(str(folder))


def test_links_of_a_cached_transformer_in_a_folder_of_its_own(tiny_folder: Path) -> None:
    folder = below(tiny_folder)
    entry = folder.parent / "models--org--Tiny"
    snapshot = entry / "snapshots" / "0123abc"
    (snapshot / "0_Transformer").mkdir(parents=True)
    (entry / "blobs").mkdir()
    names = ("modules.json", "0_Transformer/config.json", "0_Transformer/model.safetensors")
    for index, name in enumerate(names):
        shutil.copy(folder / name, entry / "blobs" / str(index))
        (snapshot / name).symlink_to(entry / "blobs" / str(index))
    assert open_checkpoint(snapshot).name == "Tiny"
    (snapshot / "0_Transformer/config.json").unlink()
    (snapshot / "0_Transformer/config.json").symlink_to(folder / "0_Transformer/config.json")
    refused(snapshot, "link")


def test_code_named_by_a_config_is_not_run(tiny_folder: Path) -> None:
    (tiny_folder / "evil.py").write_text("raise SystemExit('this code ran')")
    write_config(tiny_folder, auto_map={"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"})
    assert open_checkpoint(tiny_folder).tensor_names()


def test_nested_config(tiny_folder: Path) -> None:
    outer = {"model_type": "some_vlm", "architectures": ["SomeVLM"], "text_config": TINY_CONFIG}
    (tiny_folder / "config.json").write_text(json.dumps(outer))
    checkpoint = open_checkpoint(tiny_folder)
    assert checkpoint.config == outer
    facts = checkpoint_facts(checkpoint, ModelConfig())
    assert (facts.architecture, facts.vocab_size, facts.model_max_len) == ("SomeVLM", VOCAB, 128)
    outer["text_config"] = TINY_CONFIG | {"vocab_size": 99}
    (tiny_folder / "config.json").write_text(json.dumps(outer))
    refused(tiny_folder, "99", "40")


@pytest.mark.parametrize(
    ("changes", "length"),
    [
        ({}, 128),
        ({"rope_scaling": None}, 128),
        ({"rope_scaling": {"rope_type": "default"}}, 128),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, 512),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, 256),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}}, 256),
        (
            {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 16}},
            128,
        ),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 8.0}}, 128),
        ({"model_type": "gemma3_text", "rope_scaling": {"rope_type": "linear", "factor": 8.0}}, 128),
    ],
)
def test_context_length(tmp_path: Path, changes: dict[str, Any], length: int) -> None:
    write_config(tmp_path, **changes)
    assert context_length(read_config(tmp_path)) == length


def test_context_length_must_be_known_and_sane(tmp_path: Path) -> None:
    write_config(tmp_path, rope_scaling={"type": "linear", "factor": 1e9})
    with pytest.raises(ModelFileError, match="positions"):
        context_length(read_config(tmp_path))
    with pytest.raises(ModelFileError, match="max_position_embeddings"):
        context_length({})


def test_falcons_first_configs_do_not_say_their_length() -> None:
    assert context_length({"model_type": "falcon", "alibi": False, "hidden_size": 4544}) == 2048


def test_dummy_weights(tmp_path: Path) -> None:
    write_config(tmp_path)
    first, second = (open_checkpoint(tmp_path, "dummy") for _ in range(2))
    model = LlamaForCausalLM(LlamaConfig(**TINY_CONFIG))
    shapes = {
        name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name != "lm_head.weight"
    }
    assert {name: first.shape(name) for name in first.tensor_names()} == shapes
    for name, shape in shapes.items():
        tensor = first.load(name, torch.bfloat16)
        assert (tensor.shape, tensor.dtype) == (shape, torch.bfloat16)
        assert torch.equal(tensor, second.load(name, torch.bfloat16))
    assert first.load("model.norm.weight").unique().tolist() == [1.0]
    query = [first.load(f"model.layers.{index}.self_attn.q_proj.weight") for index in range(2)]
    assert not torch.equal(*query)
    assert 0.015 < query[0].std().item() < 0.025
    assert first.stored_dtype == "float32"
    refused(tmp_path, "weights")
    with pytest.raises(ModelFileError, match="other"):
        first.load("other")
    write_config(tmp_path, model_type="mamba")
    with pytest.raises(
        ModelFileError, match="'mamba', which is not that of its architecture LlamaForCausalLM"
    ):
        open_checkpoint(tmp_path, "dummy").tensor_names()
    write_config(tmp_path, model_type="unheard_of", architectures=["UnheardOf"])
    with pytest.raises(ModelFileError, match="unheard_of"):
        open_checkpoint(tmp_path, "dummy").tensor_names()


def test_dummy_weights_of_a_gguf(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", LLAMA_KEYS, llama_tensors())
    dummy, real = open_checkpoint(path, "dummy"), open_checkpoint(path)
    assert dummy.tensor_names() == real.tensor_names()
    assert dummy.config == real.config
    assert dummy.tokenizer_source() == real.tokenizer_source()
    name = "model.layers.0.self_attn.k_proj.weight"
    assert dummy.load(name).shape == real.load(name).shape
    assert not torch.equal(dummy.load(name), real.load(name))
