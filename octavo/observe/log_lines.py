"""How a log line looks: text for people, JSON for machines. One record is always one line."""

from __future__ import annotations

import logging
import time
from typing import Any

import msgspec

FIELDS = "octavo_fields"
"""Attribute of a log record that holds its extra fields."""

_BREAKS = str.maketrans(
    {char: f"\\x{ord(char):02x}" for char in map(chr, (*range(32), 127)) if char not in "\t\n"}
)


class TextLines(logging.Formatter):
    """`2026-01-31 12:00:00.123 INFO octavo.server [id] message key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        request = getattr(record, "request_id", "-")
        where = "" if request == "-" else f" [{request}]"
        fields = "".join(f" {name}={_text(value)}" for name, value in fields_of(record).items())
        message = record.getMessage().translate(_BREAKS).replace("\n", "\\n")
        line = f"{stamp}.{record.msecs:03.0f} {record.levelname} {record.name}{where} {message}{fields}"
        return line + "\n" + self.formatException(record.exc_info) if record.exc_info else line


class JsonLines(logging.Formatter):
    """One JSON object per line, tracebacks included as a field."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": round(record.created, 6),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        request = getattr(record, "request_id", "-")
        if request != "-":
            line["request_id"] = request
        line.update(fields_of(record))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """The extra fields of a record."""
    fields: dict[str, Any] = getattr(record, FIELDS, {})
    return fields


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value).translate(_BREAKS).replace("\n", "\\n")
    return f'"{text}"' if " " in text or not text else text
