import io
import json
from collections.abc import Generator

import pytest
from rich.console import Console

from octavo.base.errors import EngineError, ErrorCode, RequestError
from octavo.cli.chat import command as chat_command
from octavo.cli.chat.partners import Answer
from octavo.cli.chat.session import Session
from octavo.cli.main import main
from octavo.server.parsing.events import ContentDelta, ReasoningDelta


class Echo:
    """Answers with the last message in capitals; 'fail' fails, 'stop' is interrupted after one piece,
    'think' thinks first."""

    name = "echo"

    def __init__(self):
        self.seen = []
        self.is_closed = False

    def stream(
        self, messages, sampling, answer: Answer
    ) -> Generator[ContentDelta | ReasoningDelta, None, None]:
        self.seen.append(([dict(message) for message in messages], dict(sampling)))
        text = messages[-1]["content"]
        if text == "fail":
            raise RequestError("too long", code=ErrorCode.CONTEXT_LENGTH)
        if text.startswith("think"):
            yield from [ReasoningDelta("[b]Hm\x1b "), ReasoningDelta(":x:")]
        try:
            for word in text.upper().split():
                answer.saw_text()
                answer.output_tokens += 1
                yield ContentDelta(word + " ")
                if text.startswith("stop"):
                    raise KeyboardInterrupt
        finally:
            self.is_closed = True

    def close(self):
        return


def chat(monkeypatch, *lines, is_terminal=False, **options):
    """Run a session on these lines; gives the partner, the session and what was shown."""
    waiting = list(lines)

    def read(prompt):
        if not waiting:
            raise EOFError
        line = waiting.pop(0)
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr("builtins.input", read)
    shown = io.StringIO()
    monkeypatch.setattr("sys.stdout", shown)
    partner = Echo()
    console = Console(file=shown, width=200, force_terminal=is_terminal)
    session = Session(partner, system=None, sampling={}, console=console, **options)
    session.loop()
    return partner, session, shown.getvalue()


def test_a_conversation_keeps_its_history(monkeypatch):
    partner, session, shown = chat(monkeypatch, "hello there", "", "again", "/exit", "never")
    assert "HELLO THERE" in shown
    assert "2 tokens" in shown
    assert [message["content"] for message in partner.seen[1][0]] == ["hello there", "HELLO THERE ", "again"]
    assert len(session.messages) == 4


def test_several_lines(monkeypatch):
    partner, _, _ = chat(monkeypatch, '"""first', "second", 'third"""', '"""one"""')
    assert partner.seen[0][0][0]["content"] == "first\nsecond\nthird"
    assert partner.seen[1][0][-1]["content"] == "one"


def test_system_set_and_reset(monkeypatch):
    partner, _session, shown = chat(
        monkeypatch,
        "/system Be brief.",
        "/set temperature 0.7",
        "/set max-tokens 5",
        "/set",
        "a",
        "/reset",
        "/set temperature default",
        "/system",
        "b",
    )
    assert partner.seen[0] == (
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a"}],
        {"temperature": 0.7, "max_tokens": 5},
    )
    assert partner.seen[1] == ([{"role": "user", "content": "b"}], {"max_tokens": 5})
    assert "temperature 0.7, max_tokens 5" in shown


def test_save_and_tokens(monkeypatch, tmp_path):
    path = tmp_path / "chat.json"
    _, session, shown = chat(monkeypatch, "/tokens", "a b", "/tokens", f"/save {path}", "/save /no/such/x")
    assert json.loads(path.read_text())["messages"] == session.messages
    assert "2 tokens: 0 before the last answer, 2 in it" in shown
    assert "Cannot write /no/such/x" in shown


def test_a_failed_message_is_taken_back_and_the_chat_goes_on(monkeypatch):
    _, session, shown = chat(monkeypatch, "fail", "/set speed 1", "/set top_k x", "/nonsense", "/help", "ok")
    assert "too long /reset starts over." in shown
    assert "nothing called 'speed'" in shown
    assert "top_k must be a whole number" in shown
    assert "There is no command /nonsense" in shown
    assert "Ctrl-D" in shown
    assert [message["content"] for message in session.messages] == ["ok", "OK "]


def test_interrupt_stops_the_answer_and_keeps_what_was_said(monkeypatch):
    partner, session, shown = chat(monkeypatch, "stop here", KeyboardInterrupt(), "go on")
    assert "(stopped)" in shown
    assert partner.is_closed
    assert [message["content"] for message in session.messages] == ["stop here", "STOP ", "go on", "GO ON "]


def test_control_characters_never_reach_the_terminal(monkeypatch):
    _, session, shown = chat(monkeypatch, "a\x1b[31m\x9b\x07\u00e9\u200d")
    assert "A[31M\u00c9\u200d" in shown
    assert "\x1b" not in shown
    assert "\x1b" in session.messages[1]["content"]  # what is sent back is what was said


def test_thoughts_are_shown_before_the_answer_and_not_kept(monkeypatch):
    _, session, shown = chat(monkeypatch, "think")
    assert "[b]Hm :x:\n\nTHINK \n" in shown and "\x1b" not in shown
    assert [message["content"] for message in session.messages] == ["think", "THINK "]


def test_thoughts_are_dimmed_on_a_terminal(monkeypatch):
    _, _, shown = chat(monkeypatch, "think", is_terminal=True)
    assert "\x1b[2m[b]Hm \x1b[0m\x1b[2m:x:\x1b[0m\n\nTHINK \n" in shown


def test_thoughts_can_be_hidden(monkeypatch):
    _, _, shown = chat(monkeypatch, "think", shows_reasoning=False)
    assert "Hm" not in shown and ".\nTHINK \n" in shown


def test_thoughts_of_a_server(fake_server, capsys):
    fake_server.thought = "First, "
    assert main(["chat", "--url", fake_server.url, "-q", "hi"]) == 0
    said = capsys.readouterr()
    assert said.out == "one two three four five \n"
    assert said.err == "First, \n\n"
    assert main(["chat", "--url", fake_server.url, "-q", "hi", "--no-show-reasoning"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("names", [["reasoning"], ["reasoning_content"], ["reasoning", "reasoning_content"]])
def test_both_names_of_reasoning_are_read_once(names):
    from octavo.cli.chat.partners import _pieces

    answer = Answer(sent=0.0)
    event = {"choices": [{"delta": dict.fromkeys(names, "Hm")}]}
    assert list(_pieces(json.dumps(event), answer)) == [ReasoningDelta("Hm")]
    assert answer.first_text is not None, "the first token is one of the thinking"


def test_quick_question_to_a_server(fake_server, capsys):
    assert main(["chat", "--url", f"{fake_server.url}/v1", "-q", "hi", "--temperature", "0.5"]) == 0
    assert capsys.readouterr().out == "one two three four five \n"
    body = fake_server.bodies[0]
    assert body["messages"] == [{"role": "user", "content": "hi"}]
    assert body["model"] == "fake-model"
    assert body["temperature"] == 0.5


def test_a_piped_question(fake_server, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("line one\nline two\n"))
    assert main(["chat", "other-model", "--url", fake_server.url, "--system", "Be kind."]) == 0
    assert fake_server.bodies[0]["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "line one\nline two"},
    ]
    assert fake_server.bodies[0]["model"] == "other-model"


def test_an_empty_pipe_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["chat", "--url", "127.0.0.1:9"]) == 2
    assert "no question" in capsys.readouterr().err


def test_a_server_that_listens_by_default_is_used(fake_server, capsys, monkeypatch):
    host, _, port = fake_server.url.removeprefix("http://").partition(":")
    monkeypatch.setattr(chat_command, "_DEFAULT_ADDRESS", (host, int(port)))
    monkeypatch.setattr(chat_command.http, "DEFAULT_URL", fake_server.url)
    assert main(["chat", "-q", "hi"]) == 0
    assert capsys.readouterr().out.startswith("one two")


def test_server_errors_are_sentences(fake_server, capsys):
    fake_server.fail_after = 0
    assert main(["chat", "--url", fake_server.url, "-q", "hi"]) == 1
    assert "HTTP 500: out of luck" in capsys.readouterr().err


@pytest.mark.parametrize(
    "url",
    ["ftp://x", "http://", "", "http://[::1", "http://x:port", "http://x:99999999", "http://x:0"],
)
def test_addresses_that_are_none(url):
    assert main(["chat", "--url", url, "-q", "hi"]) == 2


def test_describe():
    answer = Answer(sent=1.0, first_text=1.5, last_text=2.5, output_tokens=11, finish_reason="length")
    assert answer.describe() == "11 tokens, 10.0 tok/s, first after 0.50 s, cut at the token limit"
    assert Answer(sent=0.0).describe() == ""


def test_an_error_in_the_stream_raises(fake_server):
    from octavo.cli.chat.partners import _pieces

    with pytest.raises(EngineError, match="engine died"):
        list(_pieces('{"error": {"message": "engine died"}}', Answer(sent=0.0)))


def test_options_of_a_model_are_not_dropped_silently(fake_server, capsys, monkeypatch):
    assert main(["chat", "--url", fake_server.url, "-q", "hi", "--dtype", "float32"]) == 2
    assert "--dtype is for a model of this process" in capsys.readouterr().err
    assert not fake_server.bodies


def test_options_of_a_model_mean_a_model_of_our_own(fake_server, monkeypatch):
    host, _, port = fake_server.url.removeprefix("http://").partition(":")
    monkeypatch.setattr(chat_command, "_DEFAULT_ADDRESS", (host, int(port)))
    loaded = []

    def load(config):
        loaded.append(config.cache.num_blocks)
        raise EngineError("Seen.")

    monkeypatch.setattr(chat_command, "InlinePartner", load)
    assert main(["chat", "-q", "hi", "--num-blocks", "64"]) == 1
    assert loaded == [64]


def test_bytes_that_are_no_text_are_a_sentence(fake_server, capsys):
    assert main(["chat", "--url", fake_server.url, "-q", "hi\udcff"]) == 1
    assert "no UTF-8" in capsys.readouterr().err


def test_piped_bytes_that_are_no_text(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff"), encoding="utf-8"))
    assert main(["chat", "--url", "127.0.0.1:9"]) == 2
    assert "not UTF-8" in capsys.readouterr().err


def test_saving_to_a_home_that_is_not_there(monkeypatch):
    _, _, shown = chat(monkeypatch, "hi", "/save ~nobody-of-this-name/x.json", "more")
    assert "Cannot write" in shown
    assert "MORE" in shown


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_numbers_that_json_has_not(monkeypatch, value, capsys):
    _, session, shown = chat(monkeypatch, f"/set temperature {value}")
    assert "finite" in shown and not session._sampling
    assert main(["chat", "--url", "127.0.0.1:9", "-q", "hi", "--temperature", value]) == 2


def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(fake_server, capsys):
    fake_server.cut = True
    assert main(["chat", "--url", fake_server.url, "-q", "hi"]) == 1
    said = capsys.readouterr()
    assert said.out == "one \n"
    assert "broke off" in said.err


def test_a_key_without_a_server(monkeypatch, capsys):
    monkeypatch.setattr(chat_command, "_is_listening", lambda: False)
    assert main(["chat", "-q", "hi", "--api-key", "secret"]) == 2
    said = capsys.readouterr().err
    assert "give its --url" in said and "secret" not in said
