"""The conversation itself: what was said, the /commands, reading lines and printing answers."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text

from octavo.base.errors import OctavoError, RequestError
from octavo.cli.chat.partners import Answer, Message, Partner, Piece
from octavo.cli.sampling import known_names, parse_sampling
from octavo.cli.streams import user_path
from octavo.server.parsing.events import ReasoningDelta

HELP = """\
  /help               this list
  /reset              forget the conversation (the system message stays)
  /system TEXT        set the system message; without TEXT, drop it
  /set NAME VALUE     sampling: temperature, top_p, max_tokens, seed, stop ...; VALUE default forgets it
  /set                show what is set
  /tokens             show how many tokens the conversation took
  /save FILE          write the conversation as JSON
  /exit               leave (also Ctrl-D)
  \"\"\"                 begins and ends a message of several lines
  Ctrl-C              stops the answer"""

_QUOTES = '"""'
_UNSAFE = dict.fromkeys(code for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t")


class Session:
    """One chat. `ask` answers one message; `loop` reads messages until the user leaves."""

    def __init__(
        self,
        partner: Partner,
        *,
        system: str | None,
        sampling: dict[str, Any],
        console: Console,
        shows_reasoning: bool = True,
    ) -> None:
        """console: where all goes that is no answer, thinking too; dimmed where it is a terminal."""
        self._partner = partner
        self._system = system
        self._sampling = sampling
        self._console = console
        self._shows_reasoning = shows_reasoning
        self._messages: list[Message] = []
        self._last: Answer | None = None
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": self._help,
            "/reset": self._reset,
            "/system": self._set_system,
            "/set": self._set,
            "/tokens": self._tokens,
            "/save": self._save,
        }

    @property
    def messages(self) -> list[Message]:
        """The conversation as the API takes it."""
        system = [] if self._system is None else [{"role": "system", "content": self._system}]
        return system + self._messages

    def loop(self) -> None:
        """Read, answer, repeat. An error is shown and the chat goes on."""
        self._say(f"Chatting with {self._partner.name}. /help lists commands, Ctrl-D leaves.")
        while (text := self._read()) is not None:
            command, _, rest = text.partition(" ")
            if command in ("/exit", "/quit", "/bye"):
                return
            try:
                if command in self._commands:
                    self._commands[command](rest.strip())
                elif command.startswith("/") and "/" not in command[1:] and "\n" not in text:
                    self._say(f"There is no command {command}. /help lists them.")
                elif text.strip():
                    self.ask(text)
                    self._say(self._last.describe() if self._last else "")
            except KeyboardInterrupt:
                self._say("(stopped)")
            except OctavoError as error:
                self._complain(error)

    def ask(self, text: str) -> None:
        """Send one message and print the thinking and the answer as they come.

        Thoughts are shown and forgotten. What was written before an error or Ctrl-C stays in the
        conversation; a message without any answer is taken back.
        """
        self._messages.append({"role": "user", "content": text})
        answer = self._last = Answer(sent=0.0)
        written: list[str] = []
        is_thinking = False
        try:
            for piece in self._pieces(answer):
                if isinstance(piece, ReasoningDelta):
                    is_thinking = True
                    self._think(piece.text)
                    continue
                if is_thinking:
                    is_thinking = False
                    self._think("\n\n")
                written.append(piece.text)
                _write(piece.text)
        finally:
            _write("\n")
            if written:
                self._messages.append({"role": "assistant", "content": "".join(written)})
            else:
                self._messages.pop()

    def _pieces(self, answer: Answer) -> Iterator[Piece]:
        answer.sent = time.monotonic()
        stream = self._partner.stream(self.messages, self._sampling, answer)
        with closing(stream):
            yield from stream

    def _think(self, text: str) -> None:
        if self._shows_reasoning:
            self._console.print(Text(_safe(text), style="dim"), end="", soft_wrap=True)

    def _read(self) -> str | None:
        """One message, or None when the user leaves."""
        try:
            line = input(">>> ")
            if not line.startswith(_QUOTES):
                return line
            text = line.removeprefix(_QUOTES)
            while _QUOTES not in text:
                text += "\n" + input("... ")
            return text.partition(_QUOTES)[0].strip("\n")
        except EOFError:
            self._say("")
            return None
        except KeyboardInterrupt:
            self._say("\nCtrl-D or /exit leaves.")
            return ""

    def _help(self, _: str) -> None:
        self._say(HELP)

    def _reset(self, _: str) -> None:
        self._messages.clear()
        self._say("Forgotten.")

    def _set_system(self, text: str) -> None:
        self._system = text or None
        self._say("System message set." if text else "System message dropped.")

    def _set(self, words: str) -> None:
        name, _, value = words.partition(" ")
        if not name:
            shown = ", ".join(f"{key} {value}" for key, value in self._sampling.items())
            self._say(f"Set: {shown or 'nothing'}. Can be set: {', '.join(known_names())}.")
            return
        if not value.strip():
            raise RequestError("Write /set NAME VALUE, for example /set temperature 0.7")
        name, parsed = parse_sampling(name, value.strip())
        self._sampling.pop(name, None)
        if parsed is not None:
            self._sampling[name] = parsed
        self._say(f"{name} is now {'the default' if parsed is None else parsed}.")

    def _tokens(self, _: str) -> None:
        if self._last is None:
            self._say("Nothing was said yet.")
        else:
            total = self._last.prompt_tokens + self._last.output_tokens
            self._say(
                f"{total} tokens: {self._last.prompt_tokens} before the last answer, "
                f"{self._last.output_tokens} in it."
            )

    def _save(self, name: str) -> None:
        if not name:
            raise RequestError("Write /save FILE")
        path = user_path(name)
        content = {"model": self._partner.name, "sampling": self._sampling, "messages": self.messages}
        try:
            path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
        except OSError as error:
            raise RequestError(f"Cannot write {path}: {error.strerror}.") from None
        except UnicodeEncodeError:
            raise RequestError("The conversation holds bytes that are no UTF-8 text.") from None
        self._say(f"Saved to {path}.")

    def _say(self, text: str) -> None:
        self._console.print(text, style="dim", markup=False, highlight=False)

    def _complain(self, error: OctavoError) -> None:
        hint = " /reset starts over." if error.code.value.code == "context_length_exceeded" else ""
        self._console.print(f"{error.message}{hint}", style="red", markup=False, highlight=False)


def _write(piece: str) -> None:
    sys.stdout.write(_safe(piece))
    sys.stdout.flush()


def _safe(text: str) -> str:
    """The model's text as it is, minus control characters that could drive the terminal."""
    return text.translate(_UNSAFE)
