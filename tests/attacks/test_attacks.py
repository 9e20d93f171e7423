"""All rows of the list of attacks, each followed by the after-check L. Heavy ones are smaller here than under
`make attacks`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attacks.arena import Setting, arena
from tests.attacks.groups import GROUPS
from tests.attacks.row import Row
from tests.attacks.runner import Runner

CASES = [
    pytest.param(group.setting, row, id=f"{row.id} {row.name}")
    for group in GROUPS
    for row in group.rows
    if not row.only_full
]


@pytest.fixture(scope="module")
def runners(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runners]:
    runners = Runners(tmp_path_factory)
    yield runners
    runners.close()


class Runners:
    """One server at a time: rows with equal settings follow each other."""

    def __init__(self, folders: pytest.TempPathFactory) -> None:
        self._folders = folders
        self._open: tuple[Setting, object, Runner] | None = None

    def of(self, setting: Setting) -> Runner:
        if self._open is None or self._open[0] != setting:
            self.close()
            manager = arena(self._folders.mktemp("arena"), setting)
            self._open = (setting, manager, Runner(manager.__enter__()))
        return self._open[2]

    def close(self) -> None:
        if self._open is not None:
            self._open[1].__exit__(None, None, None)  # type: ignore[attr-defined]
            self._open = None


@pytest.mark.parametrize(("setting", "row"), CASES)
def test_row(runners: Runners, setting: Setting, row: Row) -> None:
    outcome = runners.of(setting).run(row)
    assert outcome.passed, f"{row.id} {row.name}: expected {row.expected}\n" + "\n".join(outcome.problems)
