"""octavo run-batch on a tiny random model: answers, bad lines, resuming, refusals before the model loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import save_model

from octavo.cli.main import main
from tests.conformance.pooled import save_pooled


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model(tmp_path_factory.mktemp("models") / "tiny-llama"))


def line(custom_id: Any, url: str = "/v1/completions", **body: Any) -> dict[str, Any]:
    if url == "/v1/completions":
        body = {"prompt": f"Say {custom_id}", "max_tokens": 4, "temperature": 0, **body}
    else:
        body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "temperature": 0, **body}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(f"{x if isinstance(x, str) else json.dumps(x)}\n" for x in lines))
    return path


def read(path: Path) -> dict[str, dict[str, Any]]:
    entries = [json.loads(text) for text in path.read_text().splitlines()]
    by_key = {entry["custom_id"] or entry["id"]: entry for entry in entries}
    assert len(by_key) == len(entries)
    return by_key


def test_every_line_gets_an_entry_and_errors_show(model, tmp_path, capsys):
    good = [line(f"c{i}") for i in range(5)] + [line("chat", "/v1/chat/completions")]
    bad = [
        "{",
        line("far", url="http://elsewhere/v1/completions"),
        line("hot", temperature=-1),
        line("c0"),
        {},
    ]
    source, target = write(tmp_path / "in.jsonl", [*good[:3], *bad, *good[3:]]), tmp_path / "out.jsonl"
    assert main(["run-batch", "-i", str(source), "-o", str(target), model, "--max-num-seqs", "4"]) == 1
    said = capsys.readouterr()
    assert "11 lines executed, 5 of them with an error" in said.err and said.out == ""
    texts = target.read_text().splitlines()
    entries = [json.loads(text) for text in texts]
    assert len(entries) == 11
    by_id = {entry["id"]: entry for entry in entries}
    assert {key: entry["error"]["code"] for key, entry in by_id.items() if entry["error"]} == {
        "batch_req_000004": "json_invalid",
        "batch_req_000005": "invalid_value",
        "batch_req_000007": "invalid_value",
        "batch_req_000008": "invalid_value",
    }
    assert by_id["batch_req_000006"]["response"]["status_code"] == 400
    chat = by_id["batch_req_000011"]["response"]
    assert chat["status_code"] == 200 and chat["body"]["choices"][0]["message"]["role"] == "assistant"
    assert by_id["batch_req_000001"]["response"]["body"]["usage"]["completion_tokens"] <= 4


def test_resume_runs_only_what_is_missing(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OCTAVO_API_KEY", "secret")  # Needed by nobody here, and no obstacle.
    source, target = write(tmp_path / "in.jsonl", [line(f"c{i}") for i in range(6)]), tmp_path / "out.jsonl"
    words = ["run-batch", "-i", str(source), "-o", str(target), model, "--concurrency", "2"]
    assert main(words) == 0
    whole = read(target)
    kept = target.read_text().splitlines(keepends=True)[:3]
    target.write_text("".join(kept) + '{"id": "batch_req_0000')
    assert main(words) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0
    assert "3 lines executed, 0 of them with an error, 3 were done before" in capsys.readouterr().err
    again = read(target)
    assert target.read_text().startswith("".join(kept))
    text = {key: entry["response"]["body"]["choices"][0]["text"] for key, entry in whole.items()}
    assert text == {key: entry["response"]["body"]["choices"][0]["text"] for key, entry in again.items()}
    assert "secret" not in target.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--input-file is missing"),
        (["-i", "IN"], "--output-file is missing"),
        (["-i", "https://example.com/in.jsonl", "-o", "OUT"], "URL"),
        (["-i", "IN", "-o", "http://example.com/out"], "URL"),
        (["-i", "/no/such", "-o", "OUT"], "no file"),
        (["-i", "IN", "-o", "/no/such/folder/out"], "Cannot write"),
        (["-i", "IN", "-o", "IN"], "same file"),
        (["-i", "IN", "-o", "IN", "--overwrite"], "same file"),
        (["-i", "IN", "-o", "OLD"], "--overwrite"),
        (["-i", "IN", "-o", "OLD", "--resume"], "not written by run-batch"),
        (["-i", "IN", "-o", "CUT", "--resume"], "not written by run-batch"),
        (["-i", "IN", "-o", "OUT", "--concurrency", "0"], "--concurrency"),
        (["-i", "IN", "-o", "/"], "folder"),
        (["-i", "IN", "-o", "/", "--overwrite"], "folder"),
        (["-i", "IN", "-o", "OLD", "--overwrite", "--resume"], "contradict"),
        (["-i", "~nobody-of-this-name/in", "-o", "OUT"], "no file"),
    ],
)
def test_refusals_come_before_the_model_loads(words, message, tmp_path, capsys):
    write(tmp_path / "in.jsonl", [line("a")])
    write(tmp_path / "old.jsonl", ["precious"])
    (tmp_path / "cut.jsonl").write_text("precious without an end")
    names = {name.upper(): str(tmp_path / f"{name}.jsonl") for name in ("in", "out", "old", "cut")}
    words = [names.get(word, word) for word in words]
    assert main(["run-batch", "/no/model", *words]) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "old.jsonl").read_text() == "precious\n"
    assert (tmp_path / "cut.jsonl").read_text() == "precious without an end"


def test_an_input_that_may_not_be_read(tmp_path, capsys, monkeypatch):
    source = write(tmp_path / "in.jsonl", [line("a")])
    real = Path.open

    def refuse(path: Path, *rest: Any, **named: Any) -> Any:
        if path == source:
            raise PermissionError(13, "Permission denied")
        return real(path, *rest, **named)

    monkeypatch.setattr(Path, "open", refuse)
    assert main(["run-batch", "-i", str(source), "-o", str(tmp_path / "out.jsonl"), "/no/model"]) == 2
    assert "Permission denied" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


def test_resuming_does_not_hide_earlier_errors(model, tmp_path, capsys):
    source = write(tmp_path / "in.jsonl", [line("a"), line("hot", temperature=-1), "{"])
    words = ["run-batch", "-i", str(source), "-o", str(tmp_path / "out.jsonl"), model]
    assert main(words) == 1
    assert main([*words, "--resume"]) == 1
    assert (
        "0 lines executed, 0 of them with an error, 3 were done before, 2 with an error"
        in capsys.readouterr().err
    )


def test_resuming_tells_a_line_from_a_later_one_with_its_id(model, tmp_path):
    """The refusal of the second may be recorded before the answer of the first, and the run end between."""
    source, target = write(tmp_path / "in.jsonl", [line("a"), line("a"), line("b")]), tmp_path / "out.jsonl"
    words = ["run-batch", "-i", str(source), "-o", str(target), model, "--concurrency", "1"]
    assert main(words) == 1
    by_id = {json.loads(text)["id"]: text for text in target.read_text().splitlines(keepends=True)}
    assert len(by_id) == 3
    for kept in ("batch_req_000001", "batch_req_000002"):
        target.write_text(by_id[kept])
        assert main([*words, "--resume"]) == 1
        entries = [json.loads(text) for text in target.read_text().splitlines()]
        assert sorted(entry["id"] for entry in entries) == sorted(by_id)
        assert [entry["id"] for entry in entries if entry["error"]] == ["batch_req_000002"]


def test_a_model_that_is_not_there(tmp_path, capsys):
    source = write(tmp_path / "in.jsonl", [line("a")])
    words = ["run-batch", "-i", str(source), "-o", str(tmp_path / "out.jsonl"), "/no/model"]
    assert main(words) == 1
    assert capsys.readouterr().err.startswith("octavo: error: ")


def test_embeddings_of_a_model_that_embeds(tmp_path):
    folder = save_pooled(tmp_path / "bert", "bert", max_position_embeddings=64)
    inputs = ["one", ["two", "three"], "x" * 100]
    lines = [
        {"custom_id": f"c{i}", "method": "POST", "url": "/v1/embeddings", "body": {"input": given}}
        for i, given in enumerate(inputs)
    ]
    lines.append(line("chat", "/v1/chat/completions"))
    source, target = write(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    options = ["--scheduling-policy", "priority"]
    assert main(["run-batch", "-i", str(source), "-o", str(target), str(folder), *options]) == 1
    answers = {key: entry["response"] for key, entry in read(target).items()}
    assert {key: answer["status_code"] for key, answer in answers.items()} == {
        "c0": 200, "c1": 200, "c2": 400, "chat": 400
    }  # fmt: skip
    assert [len(one["embedding"]) for one in answers["c1"]["body"]["data"]] == [48, 48]
    assert "makes embeddings" in answers["chat"]["body"]["error"]["message"]
