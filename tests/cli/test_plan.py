"""octavo plan: sums that add up, GPUs by name and size, and what is advised where a model does not fit."""

import json
import re
import subprocess
import sys

import pytest

from octavo.base.errors import ConfigError
from octavo.cli import plan as plan_module
from octavo.cli import targets
from octavo.cli.main import main
from octavo.cli.targets import GPUS, find_target
from octavo.config.facts import DeviceFacts

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}
LLAMA_8B_PARAMETERS = 8_030_261_248
KV_BYTES = 2 * 32 * 8 * 128 * 2


@pytest.fixture
def llama8b(tmp_path):
    """A config alone: enough for a plan."""
    folder = tmp_path / "llama8b"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return str(folder)


def planned(capsys, *words):
    assert main(["plan", *words, "--load-format", "dummy", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def shown(capsys, *words):
    assert main(["plan", *words, "--load-format", "dummy"]) == 0
    return capsys.readouterr().out


def test_recurrent_state_is_planned_for(tmp_path, capsys):
    """Granite 4.0 H tiny in outline: 4 of 40 layers attend, the others keep a state of fixed size."""
    config = {
        **CONFIG,
        "architectures": ["GraniteMoeHybridForCausalLM"],
        "model_type": "granitemoehybrid",
        "hidden_size": 1536,
        "num_hidden_layers": 40,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "layer_types": (["mamba"] * 9 + ["attention"]) * 4,
        "mamba_n_heads": 48,
        "mamba_d_state": 128,
        "num_local_experts": 0,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    memory = planned(capsys, str(tmp_path), "--gpu", "h100", "--max-num-seqs", "100")["memory"]
    window = 3 * (3072 + 2 * 128)
    assert memory["state_bytes"] == 100 * 36 * 4 * (48 * 64 * 128 + window)
    assert memory["kv_bytes_per_token"] == 2 * 4 * 4 * 128 * 2
    assert "recurrent, of 100 requests" in shown(
        capsys, str(tmp_path), "--gpu", "h100", "--max-num-seqs", "100"
    )
    parts = ("weights_bytes", "step_bytes", "graph_bytes", "runtime_bytes", "state_bytes", "cache_bytes")
    assert sum(memory[part] for part in parts) <= memory["memory_bytes"]


def test_an_8b_model_on_an_h100(llama8b, capsys):
    report = planned(capsys, llama8b, "--gpu", "h100")
    memory = report["memory"]
    assert report["num_parameters"] == LLAMA_8B_PARAMETERS
    assert memory["weights_bytes"] == 2 * LLAMA_8B_PARAMETERS
    assert memory["kv_bytes_per_token"] == KV_BYTES
    assert memory["dtype"] == "bfloat16"
    parts = ("weights_bytes", "step_bytes", "graph_bytes", "runtime_bytes", "cache_bytes")
    assert sum(memory[part] for part in parts) <= memory["memory_bytes"] == (79 * 2**30)
    assert report["cache_tokens"] == memory["cache_bytes"] // (16 * KV_BYTES) * 16
    assert report["fits"]
    assert report["advice"] == []
    assert [users["context"] for users in report["users"]] == [1024, 4096, 16384, 65536, 131072]
    assert report["users"][0]["at_once"] == (report["cache_tokens"] - 16) // 1024


def test_the_share_of_memory_counts(llama8b, capsys):
    full, half = (
        planned(capsys, llama8b, "--gpu", "h100", "--gpu-memory-utilization", share)["memory"]
        for share in ("1.0", "0.5")
    )
    taken = full["step_bytes"] + full["graph_bytes"]
    free = full["memory_bytes"] - full["weights_bytes"] - full["runtime_bytes"]
    assert half["cache_bytes"] == free // 2 - taken
    # Even a share of 1 leaves some: what is planned must not be too much on the day.
    assert full["cache_bytes"] == free - taken - 2**29


def test_a_cache_as_wished(llama8b, capsys):
    report = planned(capsys, llama8b, "--gpu", "h100", "--num-blocks", "100", "--context", "100", "112")
    assert report["cache_tokens"] == 1600
    # 7 blocks each, and block 0 holds nothing.
    assert report["users"] == [{"context": 100, "at_once": 14}, {"context": 112, "at_once": 14}]
    report = planned(capsys, llama8b, "--gpu", "h100", "--kv-cache-memory-bytes", "500G")
    assert report["memory"]["cache_bytes"] < 79 * 2**30


@pytest.mark.parametrize("flag", ["--num-blocks", "--kv-cache-memory-bytes"])
def test_a_bound_that_is_too_small_is_named(llama8b, capsys, flag):
    text = shown(capsys, llama8b, "--gpu", "h100", "--context", "4K", flag, "100")
    assert f"without {flag}: 106 requests of 4,096 tokens" in text
    assert "No change of options" not in text


def test_more_users_than_slots(llama8b, capsys):
    text = shown(capsys, llama8b, "--gpu", "h100", "--max-num-seqs", "8", "--context", "1K")
    assert "More than 8 at once need a larger --max-num-seqs" in text


def test_eager_serving_keeps_no_graphs(llama8b, capsys):
    assert planned(capsys, llama8b, "--gpu", "h100")["memory"]["graph_bytes"] > 0
    assert planned(capsys, llama8b, "--gpu", "h100", "--enforce-eager")["memory"]["graph_bytes"] == 0


def test_a_context_that_is_too_long_here(llama8b, capsys):
    text = shown(capsys, llama8b, "--gpu", "a10")
    longest = int(re.search(r"at most ([\d,]+)", text)[1].replace(",", ""))
    assert f"--max-model-len {longest}: a shorter context" in text
    assert "--gpu a100-40 (A100 40GB): 1 request of 131,072 tokens" in text
    report = planned(capsys, llama8b, "--gpu", "a10", "--max-model-len", str(longest))
    assert report["fits"]
    assert report["users"][-1] == {"context": longest, "at_once": 1}
    assert not planned(capsys, llama8b, "--gpu", "a10", "--max-model-len", str(longest + 16))["fits"]


def test_weights_that_are_too_large(llama8b, capsys):
    text = shown(capsys, llama8b, "--gpu", "l4", "--dtype", "float32", "--max-model-len", "8192")
    assert "Does NOT fit: " in text
    assert re.search(r"--dtype bfloat16: \d+ requests? of 8,192 tokens", text)
    assert "KV cache " not in text.split("Does NOT fit")[0]
    text = shown(capsys, llama8b, "--gpu", "4GiB")
    assert "--gpu a100-40" in text
    assert "--dtype" not in text


def test_a_step_that_is_too_large(llama8b, capsys):
    """Weights fit, but not beside the logits of 1,024 requests and a step of 8,192 tokens."""
    advice = planned(capsys, llama8b, "--gpu", "18GiB", "--max-model-len", "1024")["advice"]
    [line] = [line for line in advice if line.startswith("--max-num-seqs")]
    flags = line.partition(":")[0].split()
    assert planned(capsys, llama8b, "--gpu", "18GiB", "--max-model-len", "1024", *flags)["fits"]


def test_nothing_helps(llama8b, capsys, monkeypatch):
    monkeypatch.setattr("octavo.cli.targets.machine.memory_bytes", lambda: (2**30, 2**30))
    text = shown(capsys, llama8b, "--device", "cpu", "--max-num-seqs", "1")
    assert "No change of options makes it fit" in text


def test_gpus_before_ampere_are_not_advised(llama8b, capsys):
    text = shown(capsys, llama8b, "--gpu", "16GB", "--dtype", "float16", "--context", "32K")
    assert "--gpu" in text and "v100" not in text


def test_a_gpu_without_bfloat16(llama8b, capsys):
    assert (
        planned(capsys, llama8b, "--gpu", "v100-32", "--max-model-len", "1024")["memory"]["dtype"]
        == "float16"
    )
    assert main(["plan", llama8b, "--load-format", "dummy", "--gpu", "t4", "--dtype", "bfloat16"]) == 2
    assert "Tesla T4 does not compute" in capsys.readouterr().err


def test_gpus_before_ampere_are_named_as_such(llama8b, capsys):
    text = shown(capsys, llama8b, "--gpu", "v100-32", "--max-model-len", "1024")
    assert "before Ampere: Triton" in text and "nothing was tested" in text
    assert "Ampere" in planned(capsys, llama8b, "--gpu", "t4", "--max-model-len", "1024")["caveat"]
    for gpu in ("a10", "80GiB"):
        assert planned(capsys, llama8b, "--gpu", gpu)["caveat"] is None
    assert "Ampere" not in shown(capsys, llama8b, "--gpu", "a10")


def test_on_this_cpu(llama8b, capsys, monkeypatch):
    monkeypatch.setattr("octavo.cli.targets.machine.memory_bytes", lambda: (2**38, 2**37))
    memory = planned(capsys, llama8b, "--device", "cpu")["memory"]
    assert memory["dtype"] == "float32"
    assert (memory["graph_bytes"], memory["runtime_bytes"]) == (0, 0)
    free = 2**37 - 4 * LLAMA_8B_PARAMETERS
    assert memory["cache_bytes"] == int(free * 0.9 * 0.5) - memory["step_bytes"]


def test_on_this_machines_gpu(monkeypatch):
    from octavo.base.gpus import GPU

    gpu = GPU(name="NVIDIA X", memory_bytes=123, capability=(7, 5), multiprocessors=1)
    monkeypatch.setattr(targets, "visible_gpus", lambda: (gpu,))
    target = targets.local_target("cuda")
    assert (target.name, target.memory_bytes, target.has_bfloat16) == ("NVIDIA X", 123, False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gpu", "h1000"], "There is no GPU 'h1000' in the list; there are a10, "),
        (["--gpu", "h1000"], "b200, and without promise, before Ampere, t4, v100-16, v100-32. Others"),
        (["--gpu", "h100", "--context", "131073"], "context is 131073; 1 to max_model_len 131072"),
        (["--gpu", "h100", "--context", "0"], "context is 0"),
        (["--gpu", "h100", "--context", "many"], "whole number"),
        (["--gpu", "h100", "--device", "cpu"], "contradict"),
        (["--gpu", "0GB"], "such as 80GiB"),
        (["--gpu", "9" * 400 + "GB"], "such as 80GiB"),
    ],
)
def test_refusals(llama8b, capsys, words, message):
    assert main(["plan", llama8b, "--load-format", "dummy", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wish", "gib"),
    [
        ("h100", 79.0),
        ("H100", 79.0),
        ("NVIDIA A100-80", 79.0),
        ("80GiB", 80.0),
        ("80G", 80.0),
        ("1.5 gib", 1.5),
    ],
)
def test_gpu_names(wish, gib):
    assert find_target(wish).memory_bytes == int(gib * 2**30)


def test_sizes_in_decimal_and_wrong_ones():
    assert find_target("24GB").memory_bytes == 24 * 10**9
    for wish in ("", "80", "80TiB", "-5GiB"):
        with pytest.raises(ConfigError, match="such as 80GiB"):
            find_target(wish)


def test_the_list_is_sorted():
    sizes = [gpu.memory_bytes for gpu in GPUS.values()]
    assert sizes == sorted(sizes), "advice names the smallest that fit"


def test_no_torch_is_imported(llama8b):
    code = (
        "import sys; from octavo.cli.main import main; "
        f"assert main(['plan', {llama8b!r}, '--load-format', 'dummy', '--gpu', 'h100']) == 0; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_a_gpu_that_is_not_here_has_to_be_named(llama8b, capsys, monkeypatch):
    local = DeviceFacts(kind="cpu", has_fast_bfloat16=False, why="no GPU was found")
    monkeypatch.setattr(plan_module, "local_device", lambda: local)
    assert main(["plan", llama8b, "--load-format", "dummy", "--device", "cuda"]) == 2
    error = capsys.readouterr().err
    assert "no GPU was found" in error and "--gpu" in error
