"""generate, explain, chat and the offline benchmarks on a tiny random model."""

import io
import json
import re
import shutil
from pathlib import Path

import pytest
from tiny import VOCAB_SIZE, save_model, save_tokenizer

from octavo.cli.main import main
from tests.conformance.pooled import save_pooled


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_model(tmp_path_factory.mktemp("models") / "tiny-llama"))


def test_generate_prints_one_answer_per_prompt(model, capsys):
    words = ["--prompt", "Hello", "--prompt", "World", "--max-tokens", "4", "--temperature", "0"]
    assert main(["generate", model, *words]) == 0
    assert capsys.readouterr().out.count("\n---\n") == 1


def test_generate_jsonl_keeps_order_ids_and_own_sampling(model, tmp_path, monkeypatch):
    lines = [
        {"id": "a", "prompt": "Hello", "max_tokens": 3},
        {"prompt_token_ids": [1, 2, 3], "n": 2},
        {"messages": [{"role": "user", "content": "Hi"}], "temperature": 0.0},
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(map(json.dumps, lines)) + "\n\n"))
    out = tmp_path / "out.jsonl"
    words = ["--jsonl", "--output", str(out), "--max-tokens", "5", "--no-progress"]
    assert main(["generate", model, *words]) == 0
    results = [json.loads(line) for line in out.read_text().splitlines()]
    assert [result["id"] for result in results] == ["a", 1, 2]
    assert results[0]["usage"]["completion_tokens"] <= 3
    assert results[1]["usage"]["prompt_tokens"] == 3
    assert len(results[1]["outputs"]) == 2
    assert results[2]["usage"]["prompt_tokens"] > len("Hi")


def test_a_prompt_may_hold_every_separator_but_a_line_feed(model, tmp_path):
    text = "one\u2028two\u2029three\x85four\x0cfive"
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps({"prompt": text.replace("\x0c", "")}, ensure_ascii=False) + "\r\n")
    words = ["--input", str(source), "--output", str(out), "--max-tokens", "1", "--no-progress"]
    assert main(["generate", model, "--jsonl", *words]) == 0
    assert len(out.read_text().strip().split("\n")) == 1
    source.write_text(text + "\n")
    assert main(["generate", model, *words]) == 0
    assert "---" not in out.read_text()


def test_greedy_answers_repeat(model, tmp_path, capsys):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("one\n\ntwo\n")
    words = ["--input", str(prompts), "--max-tokens", "6", "--temperature", "0", "--chat"]
    assert main(["generate", model, *words]) == 0
    first = capsys.readouterr().out
    assert main(["generate", model, *words]) == 0
    assert capsys.readouterr().out == first


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1"),
        ("[]", "line 1"),
        ("{}", "exactly one of"),
        ('{"prompt": 5}', "line 1"),
        ('{"prompt": "a", "messages": []}', "exactly one of"),
        ('{"prompt": "a", "tempo": 1}', "tempo"),
        ('{"prompt": "a", "temperature": "hot"}', "temperature"),
    ],
)
def test_bad_lines_are_refused_before_the_model_loads(line, message, tmp_path, capsys):
    path = tmp_path / "in.jsonl"
    path.write_text(line)
    assert main(["generate", "/no/model", "--jsonl", "--input", str(path)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--input", "/no/file"],
        ["--prompt", "a", "--input", "b"],
        ["--prompt", "a", "--output", "/no/x/y"],
        ["--prompt", "a", "--output", "~nobody-of-this-name/x"],
        ["--input", "~nobody-of-this-name/x"],
    ],
)
def test_bad_files_are_refused_before_the_model_loads(words):
    assert main(["generate", "/no/model", *words]) == 2


def test_no_prompts(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert main(["generate", "/no/model"]) == 2
    assert "no prompts" in capsys.readouterr().err


def test_wrong_sampling_is_a_request_error(model, capsys):
    assert main(["generate", model, "--prompt", "a", "--temperature", "-1"]) == 1
    assert "temperature must be" in capsys.readouterr().err


def test_explain_says_who_chose_what(model, capsys):
    words = ["--max-num-seqs", "4", "--num-blocks", "10", "--api-key", "hush"]
    assert main(["explain", model, *words, "--json"]) == 0
    text = capsys.readouterr().out
    assert "hush" not in text
    report = json.loads(text)
    sources = {row["option"]: row["source"] for row in report["options"]}
    assert sources["max_num_seqs"] == "user"
    assert sources["num_blocks"] == "user"
    assert sources["block_size"] == "default"
    assert sources["dtype"] == "derived"
    assert all(row["reason"] for row in report["options"] if row["source"] == "derived")
    found = report["model"]
    assert found["architecture"] == "LlamaForCausalLM"
    assert found["is_supported"]
    # Native kernels fill matrices up to whole groups of rows.
    assert 4 * found["num_parameters"] <= found["weights_bytes"] < 4.5 * found["num_parameters"]
    assert found["kv_bytes_per_token"] == 2 * 3 * 2 * 12 * 4
    assert found["cache_tokens"] == 160


def test_explain_as_a_table(model, capsys):
    assert main(["explain", model, "--max-model-len", "64"]) == 0
    text = capsys.readouterr().out
    assert "LlamaForCausalLM, supported" in text
    assert re.search(r"^max_model_len +64 +user", text, re.MULTILINE)
    assert re.search(
        r"^served_model_name +tiny-llama +derived +the checkpoint's own name", text, re.MULTILINE
    )


def test_explain_names_what_is_not_supported(model, tmp_path, capsys):
    folder = Path(shutil.copytree(model, tmp_path / "other"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["OtherForCausalLM"]}))
    assert main(["explain", str(folder)]) == 1
    text = capsys.readouterr().out
    assert "OtherForCausalLM, NOT supported" in text
    assert "nobody: The model's architecture is not supported" in text
    assert "cache" not in text
    assert main(["explain", str(folder), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["model"]["is_supported"] is False
    assert "kv_bytes_per_token" not in report["model"] and "options" not in report


def test_explain_and_serve_refuse_an_encoder_in_the_same_words(tmp_path, capsys):
    from transformers import AlbertConfig, AlbertModel

    config = AlbertConfig(
        vocab_size=VOCAB_SIZE,
        embedding_size=8,
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    AlbertModel(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    assert main(["serve", str(tmp_path)]) == 1
    reason = capsys.readouterr().err.partition("octavo: error: ")[2].strip()
    assert "can be pooled: AlbertModel" in reason
    assert main(["explain", str(tmp_path)]) == 1
    text = capsys.readouterr().out
    assert f"nobody: {reason}\n" in text
    assert "cache" not in text


def test_explain_of_an_encoder_that_lacks_something_else_says_what(tmp_path, capsys):
    """Its architecture is not at fault."""
    folder = save_pooled(tmp_path, "bert")
    config = json.loads((folder / "config.json").read_text())
    del config["max_position_embeddings"]
    (folder / "config.json").write_text(json.dumps(config))
    assert main(["explain", str(folder)]) == 1
    assert "does not say how many positions" in capsys.readouterr().err


def test_explain_refuses_impossible_wishes(model, capsys):
    assert main(["explain", model, "--max-model-len", "4096"]) == 2
    assert "max_model_len is 4096" in capsys.readouterr().err


def test_pull_of_a_local_model_says_where_it_is(model, capsys):
    assert main(["pull", model]) == 0
    assert capsys.readouterr().out.startswith(model)


def test_a_model_that_is_not_there(capsys):
    assert main(["pull", "/no/such/folder"]) == 1
    assert capsys.readouterr().err.startswith("octavo: error: ")


def test_pull_lists_known_names(capsys):
    assert main(["pull", "--list"]) == 0
    assert "smollm2-135m-instruct" in capsys.readouterr().out


def test_chat_with_a_model_in_this_process(model, capsys):
    words = ["-q", "Hi", "--temperature", "0", "--max-tokens", "5"]
    assert main(["chat", model, *words]) == 0
    first = capsys.readouterr().out
    assert first.endswith("\n")
    assert main(["chat", model, *words]) == 0
    assert capsys.readouterr().out == first


def test_chat_shows_a_request_error_as_a_sentence(model, capsys):
    assert main(["chat", model, "-q", "x" * 2000]) == 1
    assert "at most 1024 fit together" in capsys.readouterr().err


def test_bench_latency(model, tmp_path, capsys):
    path = tmp_path / "latency.json"
    words = ["--input-len", "8", "--output-len", "4", "--batch-size", "3", "--num-iters", "2"]
    assert (
        main(["bench", "latency", model, *words, "--num-iters-warmup", "1", "--output-json", str(path)]) == 0
    )
    assert "TPOT" in capsys.readouterr().out
    result = json.loads(path.read_text())
    assert len(result["batch_s"]) == 2
    assert result["summary"]["batch_size"] == 3
    assert result["summary"]["output_throughput"] > 0
    assert str(tmp_path) not in json.dumps(result["arguments"].get("save_result", ""))


def test_bench_throughput(model, tmp_path):
    path = tmp_path / "throughput.json"
    words = ["--num-prompts", "5", "--random-input-len", "8", "--random-output-len", "4"]
    words += ["--random-vocab-size", "256", "--max-num-seqs", "2", "--save-result", str(path)]
    assert main(["bench", "throughput", model, *words]) == 0
    result = json.loads(path.read_text())
    assert result["summary"]["output_tokens"] == 20
    assert result["summary"]["prompt_tokens"] == 40
    assert result["arguments"]["max_num_seqs"] == 2


def test_bench_throughput_of_a_file(model, tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text(
        '{"prompt": "hello", "output_len": 3}\n'
        '{"messages": [{"role": "user", "content": "hi"}], "output_len": 2}\n'
    )
    words = ["--dataset-name", "custom", "--dataset-path", str(data), "--num-prompts", "2"]
    assert main(["bench", "throughput", model, *words]) == 0


def test_bench_latency_of_nothing_is_refused():
    assert main(["bench", "latency", "/no/model", "--batch-size", "0"]) == 2


def test_generate_never_writes_over_its_own_input(tmp_path, capsys):
    path = tmp_path / "prompts.txt"
    path.write_text("precious")
    assert (
        main(["generate", "/no/model", "--input", str(path), "--output", str(tmp_path / "." / "prompts.txt")])
        == 2
    )
    assert "same file" in capsys.readouterr().err
    assert path.read_text() == "precious"


def test_earlier_results_stay_until_there_are_new_ones(model, tmp_path):
    out = tmp_path / "out.txt"
    out.write_text("precious\n" * 50)
    words = ["generate", model, "--prompt", "a", "--max-tokens", "2", "--output", str(out)]
    assert main([*words, "--temperature", "-1"]) == 1
    assert main(["generate", "/no/model", *words[2:]]) == 1
    assert out.read_text() == "precious\n" * 50
    assert main(words) == 0
    assert "precious" not in out.read_text()
    assert main([*words[:-1], "/dev/null"]) == 0


def test_piped_bytes_that_are_no_text(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\xff"), encoding="utf-8"))
    assert main(["generate", "/no/model"]) == 2
    assert "not UTF-8" in capsys.readouterr().err


def test_forms_of_a_jsonl_line(model, tmp_path):
    """What is an object in JSON has to become the parameter that it stands for."""
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    line = {"prompt": "a", "structured_outputs": {"choice": ["b"]}, "stop": ["x"], "max_tokens": 8}
    source.write_text(json.dumps(line))
    assert main(["generate", model, "--jsonl", "--input", str(source), "--output", str(out)]) == 0
    assert json.loads(out.read_text())["outputs"][0]["text"] == "b"


def test_a_bias_of_a_jsonl_line(model, tmp_path):
    """Keys of JSON are strings, tokens are numbers."""
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [
        {"prompt_token_ids": [1], "logit_bias": {str(token): 100}, "max_tokens": 1} for token in (50, 60)
    ]
    source.write_text("".join(json.dumps({**line, "temperature": 0}) + "\n" for line in lines))
    assert main(["generate", model, "--jsonl", "--input", str(source), "--output", str(out)]) == 0
    first, second = (json.loads(line)["outputs"][0]["text"] for line in out.read_text().splitlines())
    assert first != second


def test_a_byte_order_mark_is_no_text(model, tmp_path):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(b"\xef\xbb\xbf" + b'{"prompt_token_ids": [1, 2]}\n')
    words = ["--input", str(source), "--output", str(out), "--max-tokens", "1"]
    assert main(["generate", model, "--jsonl", *words]) == 0
    assert json.loads(out.read_text())["usage"]["prompt_tokens"] == 2


def test_negative_warm_ups_are_refused():
    assert main(["bench", "latency", "/no/model", "--num-iters-warmup", "-3"]) == 2


def test_no_key_of_a_config_file_gets_into_a_result(model, tmp_path):
    config, result = tmp_path / "octavo.yaml", tmp_path / "result.json"
    config.write_text("api-key: very-secret\nadmin-api-key: more-secret\n")
    words = ["--num-prompts", "1", "--random-input-len", "4", "--random-output-len", "2"]
    words += ["--config", str(config), "--save-result", str(result), "--random-vocab-size", "120"]
    assert main(["bench", "throughput", model, *words]) == 0
    assert "secret" not in result.read_text()
