"""Who computes a model and who does not; checkpoints that bring code, or do not fit themselves."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from octavo import LLM, SamplingParams
from octavo.base.errors import ModelFileError
from octavo.cli.main import main
from octavo.config.model import ModelConfig
from octavo.models.account import account_of
from octavo.models.table import ModelPath, choose_path
from octavo.weights.checkpoint import open_checkpoint
from tests.models.test_fallback_refused import config_of
from tests.tiny import save_model

LLAMA, ARCEE, OTHER = ({"architectures": [f"{name}ForCausalLM"]} for name in ("Llama", "Arcee", "Other"))


@pytest.fixture
def arcee(tmp_path: Path) -> Path:
    """A folder that a test may spoil."""
    return save_model(tmp_path / "arcee", "arcee")


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def generate(folder: Path) -> list[int]:
    with LLM(str(folder), max_model_len=64) as llm:
        params = SamplingParams(temperature=0, max_tokens=5, ignore_eos=True)
        return list(llm.generate([[5, 6, 7]], params, use_tqdm=False)[0].outputs[0].token_ids)


# --- who ------------------------------------------------------------------------------------------------


def test_ours_where_we_have_it_else_transformers() -> None:
    assert choose_path(LLAMA) is choose_path(LLAMA, "octavo") is ModelPath.OCTAVO
    assert choose_path(ARCEE) is choose_path(ARCEE, "transformers") is ModelPath.TRANSFORMERS
    assert choose_path(LLAMA, "transformers") is ModelPath.TRANSFORMERS


@pytest.mark.parametrize(
    ("config", "wish", "words"),
    [
        (OTHER, "auto", "OtherForCausalLM. It is neither"),
        (OTHER, "octavo", "no model of its own for the architecture OtherForCausalLM"),
        (OTHER, "transformers", "Another version of it may have one"),
        (ARCEE, "octavo", "Leave model_impl out"),
        (
            {"architectures": ["T5ForConditionalGeneration"]},
            "auto",
            "T5ForConditionalGeneration. It is neither",
        ),
        ({**OTHER, "auto_map": {"AutoModel": "x.Y"}}, "auto", "Code that the checkpoint brings is never run"),
        ({}, "auto", "none stated"),
    ],
)
def test_nobody_has_it(config: dict[str, Any], wish: str, words: str) -> None:
    with pytest.raises(ModelFileError) as error:
        choose_path(config, wish)
    assert words in error.value.message


def test_accounts() -> None:
    ours = account_of(config_of("llama"), ModelConfig())
    assert ours.path is ModelPath.OCTAVO and "octavo/models/llama.py" in ours.reason
    theirs = account_of(config_of("cohere2", num_hidden_layers=4), ModelConfig())
    assert theirs.path is ModelPath.TRANSFORMERS
    assert "4 times a step, 3 of them with a window; it declares a plan" in theirs.reason
    renamed = account_of(
        config_of("gpt_bigcode", n_layer=2, num_hidden_layers=..., head_dim=...), ModelConfig()
    )
    assert renamed.sizes["num_hidden_layers"] == 2 and renamed.sizes["num_key_value_heads"] == 1
    assert "declares no plan" in renamed.reason
    refused = account_of(config_of("llama4_text"), ModelConfig())
    assert refused.path is None and "chunked_attention" in refused.reason


def test_explain_says_who_and_why(arcee: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(arcee), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)["model"]
    assert (report["is_supported"], report["computed_by"]) == (True, "transformers")
    assert report["kv_bytes_per_token"] == 2 * 3 * 2 * 12 * 4
    assert main(["explain", str(arcee), "--model-impl", "vllm"]) == 1
    assert "nobody: Octavo has no model of its own" in capsys.readouterr().out


def test_explain_of_a_model_without_positions_says_why_it_does_not_run(
    arcee: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_config(arcee, architectures=["RwkvForCausalLM"], model_type="rwkv", max_position_embeddings=None)
    assert main(["explain", str(arcee)]) != 0
    assert "a state of its own" in capsys.readouterr().err


def test_plan_knows_sizes_that_a_config_spells_in_its_own_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_model(tmp_path, "gpt_bigcode", n_head=4, head_dim=..., num_attention_heads=...)
    assert main(["plan", str(folder), "--load-format", "dummy", "--gpu", "h100", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["is_supported"]
    assert report["memory"]["kv_bytes_per_token"] == 2 * 3 * 1 * 12 * 2


@pytest.mark.parametrize("family", ["arcee", "olmoe", "gpt_bigcode"])
def test_dummy_weights_have_the_names_and_shapes_of_real_ones(family: str, tmp_path: Path) -> None:
    overrides = {"num_experts": 5, "num_experts_per_tok": 2} if family == "olmoe" else {}
    folder = save_model(tmp_path, family, **overrides, head_dim=8)
    checkpoint = open_checkpoint(folder, "dummy")
    with safe_open(folder / "model.safetensors", framework="pt") as stored:
        names = set(stored.keys())
        assert set(checkpoint.tensor_names()) == names
        for name in names:
            assert list(checkpoint.shape(name)) == stored.get_slice(name).get_shape()


# --- what a checkpoint brings ---------------------------------------------------------------------------


def test_code_of_a_checkpoint_is_not_run(arcee: Path) -> None:
    expected = generate(arcee)
    code = "from pathlib import Path\n(Path(__file__).parent / 'ran').touch()\nclass Model: pass\n"
    for name in ("evil.py", "modeling_arcee.py", "__init__.py"):
        (arcee / name).write_text(code)
    change_config(
        arcee,
        auto_map={
            "AutoModelForCausalLM": "evil.Model",
            "AutoConfig": "evil.Model",
            "AutoTokenizer": "evil.Model",
        },
        attn_implementation="someone/kernel",
        _attn_implementation="someone/kernel",
        experts_implementation="someone/kernel",
        _experts_implementation_internal="someone/kernel",
    )
    assert generate(arcee) == expected
    assert not (arcee / "ran").exists()


def test_trust_is_refused_before_anything_is_loaded(arcee: Path) -> None:
    with pytest.raises(Exception, match="trust_remote_code is not available"):
        LLM(str(arcee), trust_remote_code=True)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"),
            ["model.layers.1.mlp.up_proj.weight"],
        ),
        (
            lambda tensors: tensors.update({"model.norm.weight": tensors["model.norm.weight"][:40].clone()}),
            ["model.norm.weight", "[40]", "[48]"],
        ),
    ],
    ids=["a missing tensor", "a wrong shape"],
)
def test_weights_that_do_not_fit_their_config(arcee: Path, spoil: Any, words: list[str]) -> None:
    tensors = load_file(arcee / "model.safetensors")
    spoil(tensors)
    save_file(tensors, arcee / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelFileError) as error:
        LLM(str(arcee), max_model_len=64)
    assert all(word in error.value.message for word in words)


def test_a_config_that_its_class_refuses(arcee: Path) -> None:
    change_config(arcee, hidden_act="no such function")
    with pytest.raises(ModelFileError, match=r"ArceeForCausalLM of transformers .*no such function"):
        LLM(str(arcee), max_model_len=64)


def test_a_tokenizer_larger_than_the_embedding(tmp_path: Path) -> None:
    folder = save_model(tmp_path, vocab_size=250, eos_token_id=None)
    with pytest.raises(ModelFileError, match=r"has 256 tokens, but the embedding of .* has 250 rows"):
        LLM(str(folder), max_model_len=64)
    with LLM(str(folder), max_model_len=64, skip_tokenizer_init=True) as llm:
        assert llm.generate([[5, 6, 7]], SamplingParams(max_tokens=1), use_tqdm=False)


def test_added_tokens_may_lie_beyond_the_embedding(tmp_path: Path) -> None:
    from octavo.engine.load import _check_vocabulary
    from octavo.tokens.source import TokenizerSource
    from octavo.tokens.tokenizer import load_tokenizer

    folder = save_model(tmp_path, vocab_size=256, eos_token_id=None)
    tokenizer = load_tokenizer(TokenizerSource(folder=folder))
    assert (tokenizer.vocab_size, tokenizer.num_plain_tokens) == (259, 256)
    facts = SimpleNamespace(name="tiny", vocab_size=256)
    _check_vocabulary(tokenizer, facts)  # type: ignore[arg-type]
