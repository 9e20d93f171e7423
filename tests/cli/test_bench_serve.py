import json
import sys

import pytest

from octavo.base.errors import EngineError
from octavo.cli.bench.client import _TimedStream
from octavo.cli.main import main


def run(server, *words):
    return main(
        [
            "bench",
            "serve",
            "--base-url",
            server.url,
            "--num-prompts",
            "12",
            "--random-output-len",
            "4",
            *words,
        ]
    )


def test_completions_end_to_end(fake_server, tmp_path, capsys):
    path = tmp_path / "result.json"
    words = ["--max-concurrency", "3", "--save-result", str(path), "--save-detailed", "--label", "first"]
    assert run(fake_server, *words, "--api-key", "hush", "--goodput", "ttft:60000") == 0
    table = capsys.readouterr().out
    for name in ("TTFT", "TPOT", "ITL", "E2E", "p50", "p90", "p99", "Goodput", "fake-model"):
        assert name in table
    assert fake_server.most_at_once <= 3
    assert len(fake_server.bodies) == 13  # one warm-up
    body = fake_server.bodies[-1]
    assert body["stream_options"] == {"include_usage": True}
    assert body["ignore_eos"] is True
    assert len(body["prompt"]) == 128
    assert fake_server.headers[0]["authorization"] == "Bearer hush"

    text = path.read_text()
    assert "hush" not in text
    result = json.loads(text)
    summary = result["summary"]
    assert summary["num_requests"] == 12
    assert summary["num_failed"] == 0
    assert summary["output_tokens"] == 48
    assert summary["prompt_tokens"] == 84
    assert summary["cached_tokens"] == 36
    assert summary["goodput"] == pytest.approx(summary["request_throughput"])
    assert summary["ttft_ms"]["p50"] <= summary["e2el_ms"]["p99"]
    assert result["label"] == "first"
    assert result["machine"]["python"]
    assert result["arguments"]["max_concurrency"] == 3
    assert len(result["requests"]) == 12
    assert len(result["requests"][0]["gaps_s"]) == 3


def test_chat_and_open_loop(fake_server):
    words = ["--backend", "openai-chat", "--request-rate", "500", "--burstiness", "2", "--num-warmups", "2"]
    assert run(fake_server, *words) == 0
    assert len(fake_server.bodies) == 14
    assert fake_server.bodies[0]["messages"][0]["role"] == "user"


def test_the_warm_up_does_not_fill_the_prefix_cache(fake_server):
    assert run(fake_server, "--num-warmups", "3") == 0
    first = [tuple(body["prompt"][:16]) for body in fake_server.bodies]
    assert len(set(first)) == len(first) == 15


def test_custom_data_keeps_the_models_own_end(fake_server, tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text('{"prompt": "hello", "output_len": 2}\n')
    assert run(fake_server, "--dataset-name", "custom", "--dataset-path", str(path)) == 0
    assert "ignore_eos" not in fake_server.bodies[0]
    assert fake_server.bodies[0]["prompt"] == "hello"


def test_failures_are_counted_and_shown(fake_server, capsys):
    fake_server.fail_after = 5
    assert run(fake_server) == 1
    captured = capsys.readouterr()
    assert "8 failed: HTTP 500: out of luck" in captured.err
    assert "Requests failed" in captured.out


def test_a_first_failure_stops_everything(fake_server, capsys):
    fake_server.cut = True
    assert run(fake_server) == 1
    assert "nothing was measured: The stream ended early" in capsys.readouterr().err
    assert len(fake_server.bodies) == 1


def test_wrong_key(fake_server, capsys):
    fake_server.key = "right"
    assert run(fake_server, "--api-key", "wrong") == 1
    assert "OCTAVO_API_KEY" in capsys.readouterr().err
    assert run(fake_server, "--api-key", "right") == 0


def test_no_server(capsys):
    assert main(["bench", "serve", "--base-url", "127.0.0.1:9"]) == 1
    assert "No server answers at http://127.0.0.1:9" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--plot", "x.txt"],
        ["--save-result", "/no/such/folder/x.json"],
        ["--goodput", "ttft"],
        ["--request-rate", "0"],
        ["--port", "1"],
    ],
)
def test_refused_before_anything_is_sent(fake_server, words):
    assert run(fake_server, *words) == 2
    assert not fake_server.bodies


def test_messages_need_the_chat_endpoint(fake_server, tmp_path, capsys):
    path = tmp_path / "data.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "hi"}]}\n')
    words = ["--dataset-name", "custom", "--dataset-path", str(path)]
    assert run(fake_server, *words) == 2
    assert "--backend openai-chat" in capsys.readouterr().err
    assert run(fake_server, *words, "--backend", "openai-chat") == 0


def test_plot(fake_server, tmp_path):
    pytest.importorskip("matplotlib")
    for suffix in ("png", "svg"):
        path = tmp_path / f"plot.{suffix}"
        assert run(fake_server, "--plot", str(path)) == 0
        assert path.stat().st_size > 1000


def test_plot_without_matplotlib_says_what_to_install(fake_server, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("octavo.cli.bench.plot.find_spec", lambda name: None)
    assert run(fake_server, "--plot", str(tmp_path / "x.png")) == 2
    assert "octavo[bench]" in capsys.readouterr().err
    assert not fake_server.bodies


def test_events_may_be_cut_anywhere():
    events = (
        b'data: {"choices":[{"index":0,"text":""}]}\n\n'
        b': a comment\r\n\r\ndata: {"choices":[{"index":0,"text":"\xc3\xa4b"}]}\r\n\r\n'
        b'data:{"choices":[{"text":"c"}]}\n\n'
        b'data: {"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":9}}\n\ndata: [DONE]\n\n'
    )
    for size in (1, 2, 7, 1000):
        stream = _TimedStream()
        for start in range(0, len(events), size):
            stream.feed(events[start : start + size])
        outcome = stream.ended()
        assert outcome.error is None
        assert (outcome.num_prompt_tokens, outcome.num_output_tokens) == (4, 9)
        assert len(outcome.gaps) == 1


def test_an_error_inside_a_stream_is_a_failure():
    stream = _TimedStream()
    stream.feed(b'data: {"error": {"message": "engine died"}}\n\ndata: [DONE]\n\n')
    assert stream.ended().error == "engine died"


def test_a_stream_without_usage_is_a_failure():
    stream = _TimedStream()
    stream.feed(b'data: {"choices":[{"text":"c"}]}\n\ndata: [DONE]\n\n')
    assert "no usage" in (stream.ended().error or "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--request-timeout", "nan"], "--request-timeout"),
        (["--request-timeout", "-1"], "--request-timeout"),
        (["--num-warmups", "-2"], "--num-warmups"),
        (["--temperature", "nan"], "finite"),
        (["--api-key", "\u043a\u043b\u044e\u0447"], "printable ASCII"),
        (["--save-result", "/"], "folder"),
        (["--save-result", "~nobody-of-this-name/result.json"], "no such folder"),
    ],
)
def test_values_that_cannot_be_meant(fake_server, capsys, words, message):
    assert run(fake_server, *words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not fake_server.bodies


def test_a_path_without_its_slash(fake_server):
    assert run(fake_server, "--endpoint", "v1/completions") == 0


@pytest.mark.parametrize(
    ("words", "url"),
    [
        (["--host", "::1"], "http://[::1]:8000"),
        (["--host", "[::1]", "--port", "9"], "http://[::1]:9"),
        (["--port", "9"], "http://127.0.0.1:9"),
    ],
)
def test_a_host_may_be_an_ipv6_address(monkeypatch, words, url):
    asked = []

    def served(root, key):
        asked.append(root)
        raise EngineError("Nobody.")

    monkeypatch.setattr("octavo.cli.http.served_model", served)
    assert main(["bench", "serve", *words]) == 1
    assert asked == [url]


def test_port_0_is_no_servers(capsys):
    assert main(["bench", "serve", "--port", "0"]) == 2
    assert "not an address" in capsys.readouterr().err


def test_a_plot_in_the_home_folder(fake_server, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run(fake_server, "--plot", "~/plot.svg") == 0
    assert (tmp_path / "plot.svg").stat().st_size


@pytest.mark.parametrize("words", [["--save-detailed"], ["--label", "first"]])
def test_what_only_the_file_holds_needs_a_file(fake_server, capsys, words):
    assert main(["bench", "serve", "--url", fake_server.url, *words]) == 2
    assert f"{words[0]} is for the JSON file: give --save-result" in capsys.readouterr().err
    assert not fake_server.bodies
