from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from octavo.base.errors import ConfigError
from octavo.observe import log_filters
from octavo.observe.log import log_fields, set_up_logging
from octavo.observe.log_filters import RateLimit, warn_once
from octavo.observe.log_queue import QueuedHandler
from octavo.observe.request_context import set_request_id

logger = logging.getLogger("octavo.test")


@pytest.fixture(autouse=True)
def clean_loggers() -> Iterator[None]:
    yield
    for name in ("octavo", "uvicorn"):
        owned = logging.getLogger(name)
        for handler in list(owned.handlers):
            owned.removeHandler(handler)
            handler.close()
        owned.propagate = True
        owned.setLevel(logging.NOTSET)
    set_request_id("-")


def written(log_format: str, level: str | None = None) -> tuple[io.StringIO, QueuedHandler]:
    stream = io.StringIO()
    return stream, set_up_logging(log_format, level, stream)


def test_text_lines_carry_request_and_fields() -> None:
    stream, handler = written("text")
    set_request_id("abc")
    log_fields(logger, logging.INFO, "request", status=200, handler="/x y", seconds=0.25)
    handler.close()
    line = stream.getvalue()
    assert line.endswith(' INFO octavo.test [abc] request status=200 handler="/x y" seconds=0.25\n')


def test_json_lines_are_json() -> None:
    stream, handler = written("json")
    set_request_id("abc")
    log_fields(logger, logging.INFO, "request", status=200)
    try:
        raise ValueError("boom")
    except ValueError:
        logger.exception("it failed")
    handler.close()
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["request_id"] == "abc" and first["status"] == 200 and first["level"] == "info"
    assert "ValueError: boom" in second["traceback"]


def test_a_message_cannot_forge_a_line() -> None:
    stream, handler = written("text")
    logger.info("one\n2026-01-01 ERROR forged \x1b[31m")
    log_fields(logger, logging.INFO, "x", id="a\nb")
    handler.close()
    assert len(stream.getvalue().splitlines()) == 2
    assert "\x1b" not in stream.getvalue()


def test_levels() -> None:
    stream, handler = written("text", "warning")
    logger.info("quiet")
    logger.warning("loud")
    handler.close()
    assert "quiet" not in stream.getvalue() and "loud" in stream.getvalue()
    with pytest.raises(ConfigError, match="one of DEBUG"):
        set_up_logging("text", "chatty")


def test_a_place_that_shouts_is_quietened_and_says_so() -> None:
    now = 0.0
    limit = RateLimit(burst=3, window_s=10.0, clock=lambda: now)

    def record(line: int) -> logging.LogRecord:
        return logging.LogRecord("x", logging.ERROR, "file", line, "failed %s", ("once",), None)

    shown = sum(limit.filter(record(1)) for _ in range(1000))
    assert shown == 3
    assert limit.filter(record(2)), "another place is not affected"
    now = 11.0
    later = record(1)
    assert limit.filter(later)
    assert later.getMessage() == "failed once (997 like it were suppressed)"


def test_places_are_bounded() -> None:
    limit = RateLimit(burst=1)
    for line in range(5000):
        limit.filter(logging.LogRecord("x", logging.ERROR, "file", line, "m", (), None))
    assert len(limit._places) <= log_filters.MAX_KNOWN + 1


def test_warn_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_filters, "_said", set())
    for _ in range(3):
        warn_once(logger, "field", "Ignoring field")
    assert len(caplog.records) == 1
    for number in range(5000):
        warn_once(logger, str(number), "x")
    assert len(log_filters._said) <= log_filters.MAX_KNOWN


def test_a_blocked_reader_never_blocks_us() -> None:
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w")
    handler = QueuedHandler(stream, max_waiting=10)
    for number in range(100_000):
        handler.emit(logging.LogRecord("x", logging.INFO, "f", 1, "%d " + "y" * 1000, (number,), None))
        if handler.num_dropped > 500:
            break
    assert handler.num_dropped > 500
    os.close(reading)  # the writer's blocked write fails now, and the test can end
    handler.close()
    with contextlib.suppress(OSError):  # what the stream still holds has nowhere to go
        stream.close()


def test_observe_stays_light() -> None:
    heavy = "{'torch', 'numpy', 'fastapi', 'transformers', 'starlette'}"
    code = (
        "import sys, octavo.observe.metrics, octavo.observe.log, octavo.observe.latency;"
        f"sys.exit(len({heavy} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
