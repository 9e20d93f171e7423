"""Rows 2.1: the HTTP layer."""

from __future__ import annotations

from tests.attacks.arena import Setting
from tests.attacks.row import Row
from tests.attacks.send import Refusal, sends, sends_raw

SETTING = Setting()

ROWS: tuple[Row, ...] = (
    Row(
        id="H01",
        name="body is an open brace",
        expected="400 json_invalid",
        attack=sends(b"{", Refusal(400, "json_invalid")),
    ),
    Row(
        id="H08",
        name="temperature is NaN",
        expected="400, temperature named",
        attack=sends(b'{"prompt": "x", "temperature": NaN}', Refusal(400, "invalid_value", "temperature")),
        with_victim=True,
    ),
    Row(
        id="H22",
        name="TLS bytes on the port",
        expected="400 and closed, no traceback",
        attack=sends_raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200, 400),
    ),
)
