"""The golden list of routes with the key that each asks for, on both listeners, and that they do ask.

A new route appears here with what it asks for: `python tests/server/test_routes_and_keys.py` writes the list.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from server_fakes import FakeEngine, fake_config
from test_admin_routes import AdminEngine

from octavo.server.admin.app import create_admin_app
from octavo.server.app import create_app
from octavo.server.lifecycle import Lifecycle
from octavo.server.tenants.access import Access, admin_access, client_access

GOLDEN = Path(__file__).with_name("routes_and_keys.txt")
KEYS = "".join(
    f"[[keys]]\nname = '{name}'\nkey = 'sk-{name}'\nscopes = ['{name}']\n" for name in ("inference", "admin")
)


def apps(**options: Any) -> dict[str, Any]:
    config = fake_config(**options)
    return {
        "clients": create_app(FakeEngine(config), config.server, config.observe),
        "admin": create_admin_app(AdminEngine(config), config, Lifecycle()),
    }


def rows(**options: Any) -> list[tuple[str, str, str, str]]:
    """(listener, path, method, access) of every route there is."""
    access = {"clients": client_access, "admin": admin_access}
    return sorted(
        (listener, route.path, method, access[listener](route.path).value)
        for listener, app in apps(**options).items()
        for route in app.routes
        for method in route.methods
    )


def listed() -> str:
    return "".join(f"{listener:8}{method:8}{path:42}{access}\n" for listener, path, method, access in rows())


def test_the_list_is_the_golden_one() -> None:
    assert listed() == GOLDEN.read_text(), "a route or its key has changed; see this file's first lines"


@pytest.mark.parametrize("key", [None, "sk-unknown", "sk-inference", "sk-admin"])
async def test_each_route_asks_for_its_key(tmp_path: Path, key: str | None) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(KEYS)
    served = apps(api_key_file=str(file), admin_port=1)
    opened_by = {
        Access.OPEN: {None, "sk-unknown", "sk-inference", "sk-admin"},
        Access.ANY_KEY: {"sk-inference", "sk-admin"},
        Access.INFERENCE: {"sk-inference"},
        Access.ADMIN: {"sk-admin"},
    }
    headers = {} if key is None else {"x-api-key": key}
    for listener, path, method, access in rows():
        transport = httpx.ASGITransport(served[listener])
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
            status = (await client.request(method, path.replace("{model:path}", "fake"))).status_code
        shut = 403 if key in ("sk-inference", "sk-admin") else 401
        assert (status == shut) == (key not in opened_by[Access(access)]), (listener, method, path, status)


if __name__ == "__main__":
    GOLDEN.write_text(listed())
