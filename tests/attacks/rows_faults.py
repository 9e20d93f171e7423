"""Rows 2.7: errors of our own, raised at one call in a hundred."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tests.attacks.arena import Arena
from tests.attacks.crowd import Answer, ask_all, body, tokens_of
from tests.attacks.own_server import MANY_RESTARTS, started
from tests.attacks.row import Attack, Row

TYPED = {"engine_failed", "engine_restarted", "internal_error"}
"""What a request may end with for which an error of ours was."""


def errors_at(*sites: str, may_fail: bool = True, full: int = 240) -> Attack:
    """One call in a hundred of these raises. Every answer is golden or a typed error; the engine stays."""

    def attack(arena: Arena) -> None:
        with tempfile.TemporaryDirectory(prefix="attack-") as folder:
            armed = Path(folder) / "armed"
            injection = Path(__file__).parent / "injection"
            environment = {
                "ATTACK_FAULTS": ",".join(sites),
                "ATTACK_ARMED": str(armed),
                "PYTHONPATH": f"{injection}{os.pathsep}{os.environ.get('PYTHONPATH', os.getcwd())}",
            }
            with started(*MANY_RESTARTS, environment=environment) as server:
                bodies = [body(f"prompt {n % 8}", 30) for n in range(arena.many(full, 40))]
                right = tokens_of(ask_all(server, bodies[:8])) * (len(bodies) // 8)
                armed.touch()
                answers = ask_all(server, bodies)
                armed.unlink()
                for answer, expected in zip(answers, right, strict=True):
                    _check_golden_or_typed(answer, expected, may_fail)
                assert any(answer.error is None for answer in answers), "all failed"
                server.wait_ready()
                server.canary()
                server.stop()

    return attack


def _check_golden_or_typed(answer: Answer, expected: list[int], may_fail: bool) -> None:
    if answer.error is None:
        assert answer.status == 200 and answer.token_ids == expected, answer
        return
    assert may_fail, f"nobody may notice: {answer.error}"
    assert answer.error["code"] in TYPED and "secret" not in answer.error["message"], answer.error
    assert answer.token_ids == expected[: len(answer.token_ids)], answer


ROWS: tuple[Row, ...] = (
    Row(
        id="P06",
        name="errors in the detokeniser",
        expected="only the request concerned fails",
        attack=errors_at("octavo.engine.sample:Sample.add"),
        budget_ms=60_000,
    ),
    Row(
        id="P06",
        name="errors in tokeniser and serialiser",
        expected="only the request concerned fails",
        attack=errors_at(
            "octavo.tokens.tokenizer:Tokenizer.encode", "octavo.server.stream:ChunkFrames.frame"
        ),
        budget_ms=60_000,
        only_full=True,
    ),
    Row(
        id="P06",
        name="errors in sampler and model step",
        expected="the engine stays, only requests concerned fail",
        attack=errors_at(
            "octavo.worker.sampling.sampler:Sampler.sample", "octavo.worker.forward:Forward.run"
        ),
        budget_ms=120_000,
        only_full=True,
    ),
    Row(
        id="P06",
        name="errors in the scheduler",
        expected="another core goes on",
        attack=errors_at("octavo.core.scheduler:Scheduler.schedule", full=64),
        budget_ms=180_000,
        only_full=True,
    ),
    Row(
        id="P06",
        name="errors in metrics and logger",
        expected="nobody notices",
        attack=errors_at(
            "octavo.observe.metrics:Metrics.step_done",
            "octavo.observe.log_lines:TextLines.format",
            may_fail=False,
        ),
        budget_ms=60_000,
        only_full=True,
    ),
)
