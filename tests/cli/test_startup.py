import re

from octavo.cli.startup import base_url, memory_table, print_ready, time_line, what_to_try
from octavo.cli.units import show_bytes, show_count
from octavo.config.facts import CheckpointFacts
from octavo.config.root import EngineConfig
from octavo.config.server import ServerConfig
from octavo.messages.kv import KVGroup, KVKind, KVPlan, KVSpec
from octavo.messages.start import CoreReady

SPEC = KVSpec(kind=KVKind.FULL, num_kv_heads=2, head_dim=8, dtype_bytes=4)
READY = CoreReady(
    plan=KVPlan(
        block_size=16, num_blocks=100, groups=[KVGroup(spec=SPEC, layers=[0, 1])], page_bytes=16 * 128
    ),
    max_request_tokens=400,
    vocab_size=10,
    hidden_size=4,
    memory_bytes={"weights": 2**20, "rows": 2**30},
    seconds={"weights": 1.25, "import_torch": 0.75, "nothing": 0.0},
)

FACTS = CheckpointFacts(
    name="tiny", architecture="Tiny", model_max_len=400, vocab_size=10, stored_dtype="float32"
)


def test_the_time_line_adds_up():
    line = time_line(READY.seconds, 3.0)
    assert line.startswith("Ready in 3.00 s = ")
    assert "import torch 0.75" in line
    assert "nothing" not in line
    parts = [float(number) for number in re.findall(r"\d+\.\d+", line)]
    assert abs(parts[0] - sum(parts[1:])) < 0.02


def test_a_clock_that_disagrees_never_shows_less_than_its_parts():
    assert time_line({"a": 2.0}, 1.0).startswith("Ready in 2.00 s")


def test_memory_is_listed_largest_first_with_what_the_cache_holds():
    lines = memory_table(READY)
    assert "rows" in lines[1]
    assert "1.0 GiB" in lines[1]
    assert "weights" in lines[2]
    assert "100 blocks of 16 tokens, about 1,600 tokens (4.0 requests of 400)" in lines[-1]


def test_addresses():
    assert base_url(ServerConfig()) == "http://127.0.0.1:8000"
    assert base_url(ServerConfig(host="0.0.0.0", port=1, ssl_certfile="c")) == "https://127.0.0.1:1"
    assert base_url(ServerConfig(host="::1", root_path="/llm/")) == "http://[::1]:8000", "a proxy strips it"


def test_what_to_try_names_the_model_and_hides_keys(monkeypatch):
    monkeypatch.delenv("OCTAVO_API_KEY", raising=False)
    text = "\n".join(what_to_try(ServerConfig(api_key=["secret"]), "m"))
    assert "octavo chat --url http://127.0.0.1:8000" in text
    assert '"model": "m"' in text
    assert "$OCTAVO_API_KEY" in text
    assert "secret" not in text
    assert "$OCTAVO_API_KEY" in "\n".join(what_to_try(ServerConfig(api_key_file="keys.toml"), "m"))
    assert "OCTAVO_API_KEY" not in "\n".join(what_to_try(ServerConfig(), "m"))


def test_a_page_that_needs_a_key_is_not_shown_to_browsers(monkeypatch):
    monkeypatch.delenv("OCTAVO_API_KEY", raising=False)
    assert "/docs" in "\n".join(what_to_try(ServerConfig(), "m"))
    assert "/docs" not in "\n".join(what_to_try(ServerConfig(api_key=["secret"]), "m"))


def test_what_to_try_of_a_model_that_embeds():
    text = "\n".join(what_to_try(ServerConfig(), "m", "embed"))
    assert "/v1/embeddings" in text
    assert 'client.embeddings.create(model="m", input="Hello!")' in text
    assert "chat" not in text


def test_unix_socket():
    assert "--unix-socket /tmp/o.sock" in "\n".join(what_to_try(ServerConfig(uds="/tmp/o.sock"), "m"))


def test_the_whole_report(capsys):
    class Engine:
        config = EngineConfig.from_options({"served_model_name": ["tiny"]})
        ready = READY
        facts = FACTS

    print_ready(Engine())
    text = capsys.readouterr().out
    assert "Ready in" in text
    assert "interpreter and server" in text
    assert 'model="tiny"' in text


def test_units():
    assert show_bytes(0) == "0 B"
    assert show_bytes(1536) == "1.5 KiB"
    assert show_bytes(5 * 2**40) == "5.0 TiB"
    assert show_count(134_515_008) == "134.5 M"
    assert show_count(1234) == "1,234"
