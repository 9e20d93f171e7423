"""A leash blames a wish for what it computes, and not for what others have the processor for."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from octavo.base import leash as module
from octavo.base.errors import EngineError, ErrorCode
from octavo.base.leash import Leash, LeashBroken
from tests.child_processes import children_running

EXAMPLES = "leashed_examples"
WALL_S = 0.2


@pytest.fixture
def leash(monkeypatch: pytest.MonkeyPatch) -> Iterator[Leash]:
    monkeypatch.setattr(module, "PATIENCE", 4)
    here = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((here, os.environ.get("PYTHONPATH", ""))))
    leash = Leash(EXAMPLES, wall_s=WALL_S, num_helpers=1)
    assert leash.ask(b"echo").result(timeout=60) == b"echo"
    yield leash
    leash.close()


def test_who_computes_for_too_long_is_to_blame(leash: Leash, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 1000)
    with pytest.raises(LeashBroken):
        leash.ask(b"compute").result(timeout=60)
    assert leash.ask(b"echo").result(timeout=60) == b"echo"


def test_who_does_not_get_the_processor_is_told_to_come_again(leash: Leash) -> None:
    with pytest.raises(EngineError) as caught:
        leash.ask(b"wait").result(timeout=60)
    assert caught.value.code is ErrorCode.OVERLOADED
    assert leash.ask(b"echo").result(timeout=60) == b"echo"


def test_who_gets_it_late_is_answered(leash: Leash, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 1000)
    (helper,) = children_running(EXAMPLES)
    os.kill(helper.pid, signal.SIGSTOP)
    answer = leash.ask(b"late")
    time.sleep(2 * WALL_S)
    os.kill(helper.pid, signal.SIGCONT)
    assert answer.result(timeout=60) == b"late"


def test_who_answers_while_its_time_is_looked_up_is_not_killed() -> None:
    """Its next wish was blamed for that."""
    helper = Mock()
    helper.computed_s.return_value = 0.0
    watch = module._Watch(helper, 0.001, 3)
    helper.computed_s.side_effect = lambda: watch.end() or 1.0
    watch.start()
    watch._thread.join(timeout=60)
    assert helper.computed_s.called and not helper.kill.called and not watch.was_in_vain


def test_who_answered_when_it_was_killed_is_not_asked_again(
    leash: Leash, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system takes a while to end it: until then the next wish went to it, and was blamed for its end."""
    (helper,) = leash._helpers
    monkeypatch.setattr(helper._process, "poll", lambda: None)
    helper.kill()
    assert helper.is_dead
    assert leash.ask(b"echo").result(timeout=60) == b"echo"
