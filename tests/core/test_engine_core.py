"""EngineCore on the fake executor: what each rule of the design promises, one by one."""

from __future__ import annotations

import pytest

from octavo.base.errors import ConfigError, EngineError, ErrorCode, RequestError
from octavo.core.in_flight import StepRecord
from octavo.core.ledger import check_ledger
from octavo.core.request import State
from octavo.executor.fake import FULL, StepLost, expected_tokens, sliding
from octavo.messages.result import FinishReason, StepOutput

PROMPTS = {"a": [1, 2, 3, 4, 5], "b": [6, 7], "c": list(range(10, 31)), "d": [1, 2, 3, 4, 9, 9]}


def right(prompt, count: int, layers=(FULL, FULL), **options) -> list[int]:
    return expected_tokens(prompt, count, key=5, vocab_size=1000, layers=layers, **options)


@pytest.mark.parametrize("layers", [(FULL,), (sliding(5), sliding(5)), (FULL, sliding(3), sliding(3))])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"budget": 3}, {"caching": False}, {"blocks": 45}, {"seqs": 1}])
def test_tokens_do_not_depend_on_how_they_are_scheduled(bench, request_for, layers, depth, options) -> None:
    b = bench(layers=layers, depth=depth, **options)
    for name, prompt in PROMPTS.items():
        b.core.add(request_for(name, prompt, 12))
    b.run()
    assert b.tokens == {name: right(prompt, 12, layers) for name, prompt in PROMPTS.items()}
    assert b.executor.num_rows == 0
    assert b.core.stats().num_free_blocks == b.core.stats().num_blocks


def test_request_that_can_never_fit_is_refused_with_both_numbers(bench, request_for) -> None:
    b = bench(blocks=6)
    assert b.core.max_request_tokens == 20
    with pytest.raises(RequestError, match=r"15 tokens .* 6: 21 .* 20") as caught:
        b.core.add(request_for("a", [1] * 15, 6))
    assert caught.value.code is ErrorCode.CONTEXT_LENGTH
    b.core.add(request_for("a", [1] * 15, 5))
    b.run()
    assert len(b.tokens["a"]) == 5


@pytest.mark.parametrize("prompt", [[], [-1], [2**32], ["x"]])
def test_malformed_prompts_are_refused(bench, request_for, prompt) -> None:
    with pytest.raises(RequestError) as caught:
        bench().core.add(request_for("a", prompt))
    assert caught.value.param == "prompt"


def test_zero_max_tokens_and_a_used_id_are_refused(bench, request_for) -> None:
    core = bench().core
    with pytest.raises(RequestError, match="max_tokens"):
        core.add(request_for("a", [1], 0))
    core.add(request_for("a", [1]))
    with pytest.raises(AssertionError, match="in use"):
        core.add(request_for("a", [1]))


def test_whole_prompts_need_a_budget_for_the_longest(bench) -> None:
    with pytest.raises(ConfigError, match="max_num_batched_tokens is 32"):
        bench(schedule={"enable_chunked_prefill": False})


def test_prompt_is_computed_in_chunks_under_the_budget(bench, request_for) -> None:
    b = bench(budget=8)
    b.core.add(request_for("a", range(20), 2))
    b.run()
    assert [step.num_tokens for step in b.executor.steps] == [[8], [8], [4], [1], []]


def test_whole_prompts_are_not_cut(bench, request_for) -> None:
    b = bench(budget=20, max_len=20, schedule={"enable_chunked_prefill": False})
    b.core.add(request_for("a", range(12), 2))
    b.core.add(request_for("b", range(50, 62), 2))
    b.run()
    assert [step.num_tokens for step in b.executor.steps] == [[12], [1, 12], [1], []]


def test_long_chunk_leaves_a_token_for_everybody_behind(bench, request_for) -> None:
    b = bench(budget=8, schedule={"scheduling_policy": "priority"})
    for name in ("x", "y"):
        b.core.add(request_for(name, [1, 2], 9, priority=1))
    b.step()
    b.core.add(request_for("urgent", range(30), 2, priority=0))
    b.step()
    b.step()
    assert b.executor.steps[-1].num_tokens == [6, 1, 1]


def test_equal_prompts_share_blocks_in_the_same_step(bench, request_for) -> None:
    b = bench()
    for name in ("a", "b"):
        b.core.add(request_for(name, range(9), 3))
    b.step()
    first, second = b.executor.steps[0].new_rows
    assert second.num_computed_tokens == 8
    assert second.block_ids[0][:2] == first.block_ids[0][:2]
    b.run()
    assert b.tokens["a"] == b.tokens["b"] == right(range(9), 3)
    assert (b.last["a"].num_cached_tokens, b.last["b"].num_cached_tokens) == (0, 8)
    stats = b.core.stats()
    assert (stats.prefix_queries_tokens, stats.prefix_hits_tokens) == (18, 8)


def test_answer_is_cached_too_at_any_depth(bench, request_for) -> None:
    for depth in (1, 2):
        b = bench(depth=depth)
        b.core.add(request_for("a", range(6), 11))
        b.run()
        b.core.add(request_for("b", [*range(6), *b.tokens["a"], 1], 1))
        b.run()
        assert b.last["b"].num_cached_tokens == 16


def test_new_row_does_not_alias_what_the_core_goes_on_changing(bench, request_for) -> None:
    b = bench()
    b.core.add(request_for("a", range(4), 8))
    b.run()
    new = b.executor.steps[0].new_rows[0]
    assert new.token_ids == list(range(4)) and len(new.block_ids[0]) == 1


def test_preemption_takes_the_least_important_and_it_comes_back_first(bench, request_for) -> None:
    b = bench(blocks=8, caching=False)
    for name in ("a", "b", "late"):
        b.core.add(request_for(name, [1, 2, 3], 17))
    while b.core.stats().num_preemptions == 0:
        b.step()
    assert [request.request_id for request in b.core._scheduler.running] == ["a", "b"]
    assert not b.executor.steps[-1].new_rows
    assert next(iter(b.core._scheduler.waiting)).state is State.PREEMPTED
    b.run()
    assert b.tokens == dict.fromkeys(("a", "b", "late"), right([1, 2, 3], 17))
    assert b.last["a"].num_preemptions == 0
    assert b.last["b"].num_preemptions + b.last["late"].num_preemptions > 0


def test_nobody_enters_in_a_step_that_preempts(bench, request_for) -> None:
    b = bench(blocks=8, seqs=2, caching=False, schedule={"scheduling_policy": "priority"})
    for name in ("a", "b"):
        b.core.add(request_for(name, [1, 2, 3], 17))
    b.step()
    b.core.add(request_for("urgent", [1], 2, priority=-1))
    while b.core.stats().num_preemptions == 0:
        b.step()
    assert not b.executor.steps[-1].new_rows
    b.step()
    assert [new.request_id for new in b.executor.steps[-1].new_rows] == ["urgent"]


def test_priority_decides_who_enters_and_who_is_thrown_out(bench, request_for) -> None:
    b = bench(blocks=8, caching=False, schedule={"scheduling_policy": "priority"})
    b.core.add(request_for("low", [1, 2, 3], 17, priority=9))
    b.core.add(request_for("high", [1, 2, 3], 17, priority=-1))
    b.step()
    assert [new.request_id for new in b.executor.steps[0].new_rows] == ["high", "low"]
    b.run()
    assert b.last["high"].num_preemptions == 0 and b.last["low"].num_preemptions > 0


def test_priority_numbers_mean_nothing_under_fcfs(bench, request_for) -> None:
    b = bench()
    b.core.add(request_for("a", [1], priority=9))
    b.core.add(request_for("b", [1], priority=0))
    b.step()
    assert [new.request_id for new in b.executor.steps[0].new_rows] == ["a", "b"]


@pytest.mark.parametrize("depth", [1, 2])
def test_abort_at_any_moment_frees_at_once_and_tells_the_workers(bench, request_for, depth) -> None:
    b = bench(seqs=1, depth=depth)
    for name in ("running", "waiting"):
        b.core.add(request_for(name, range(10), 9))
    b.step()
    deltas = b.core.abort(["running", "waiting", "running", "unknown"])
    b.core.check()
    assert [(d.request_id, d.finish_reason) for d in deltas] == [
        ("running", FinishReason.ABORT),
        ("waiting", FinishReason.ABORT),
    ]
    assert deltas[0].timing is not None and deltas[0].timing.first_scheduled is not None
    assert b.core.stats().num_free_blocks == b.core.stats().num_blocks
    assert b.core.has_work()
    b.run()
    assert b.executor.num_rows == 0
    assert any(step.ended_rows and not step.rows for step in b.executor.steps)
    assert b.core.step() == [] and not b.core.has_work()


def test_stop_token_ends_and_is_reported(bench, request_for) -> None:
    tokens = right([1, 2], 6)
    b = bench()
    b.core.add(request_for("stop", [1, 2], 6, stop_token_ids=[tokens[3]]))
    b.core.add(request_for("eos", [1, 2], 6, eos_token_ids=[tokens[2]]))
    b.core.add(request_for("length", [1, 2], 6, eos_token_ids=[tokens[2]], ignore_eos=True))
    b.run()
    assert b.tokens == {"stop": tokens[:4], "eos": tokens[:3], "length": tokens}
    assert {n: (d.finish_reason, d.stop_token_id) for n, d in b.last.items()} == {
        "stop": (FinishReason.STOP, tokens[3]),
        "eos": (FinishReason.STOP, None),
        "length": (FinishReason.LENGTH, None),
    }


def test_overlapping_steps_drop_what_comes_after_the_end(bench, request_for) -> None:
    tokens = right([1, 2], 6)
    b = bench(depth=2)
    b.core.add(request_for("stop", [1, 2], 6, stop_token_ids=[tokens[3]]))
    b.core.add(request_for("length", [1, 2, 3], 3))
    b.run()
    assert b.tokens == {"stop": tokens[:4], "length": right([1, 2, 3], 3)}
    computed = {row: 0 for step in b.executor.steps for row in step.rows}
    for step in b.executor.steps:
        for row, count in zip(step.rows, step.num_tokens, strict=True):
            computed[row] += count
    assert sorted(computed.values()) == [3 + 2, 2 + 3 + 1]


def test_first_delta_carries_times_and_prompt_logprobs(bench, request_for) -> None:
    b = bench(budget=4)
    b.core.add(request_for("a", range(1, 8), 2, prompt_logprobs=1, logprobs=2, arrival_time=-1.0))
    assert b.step() == []
    (first,) = b.step()
    assert [entry.logprobs[0] for entry in first.prompt_logprobs] == [-float(p) for p in range(1, 7)]
    assert (first.timing.arrival, first.timing.first_scheduled, first.timing.first_token) == (-1.0, 0.0, 2.0)
    assert first.logprobs[0].token_ids[0] == first.token_ids[0] and len(first.logprobs[0].token_ids) == 3
    (last,) = b.step()
    assert last.prompt_logprobs is None and last.timing.last_token == 3.0


def test_prompt_logprobs_do_not_read_the_cache_but_feed_it(bench, request_for) -> None:
    b = bench()
    for name, options in (("a", {}), ("b", {"prompt_logprobs": 0}), ("c", {})):
        b.core.add(request_for(name, range(12), 1, **options))
        b.run()
    assert [b.last[name].num_cached_tokens for name in "abc"] == [0, 0, 8]
    assert len(b.last["b"].prompt_logprobs) == 11


def test_failed_row_ends_alone_and_whoever_read_its_blocks_starts_again(bench, request_for) -> None:
    b = bench(fail=lambda step: {step.rows[0]: "not finite"} if step.step == 1 else {})
    for name in ("bad", "reader"):
        b.core.add(request_for(name, range(9), 3))
    b.core.add(request_for("other", [7, 8], 3))
    b.run()
    assert (b.last["bad"].finish_reason, b.last["bad"].error) == (FinishReason.ERROR, "not finite")
    assert b.tokens["reader"] == right(range(9), 3)
    assert b.tokens["other"] == right([7, 8], 3)
    assert b.last["other"].num_preemptions == 0


def test_failed_row_leaves_nothing_in_the_cache(bench, request_for) -> None:
    b = bench(budget=8, fail=lambda step: {step.rows[0]: "not finite"} if step.step == 2 else {})
    b.core.add(request_for("bad", range(14), 3))
    b.run()
    assert b.core.stats().num_cached_blocks == 0


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("error", [RuntimeError("cuda"), StepLost("gone"), EngineError("Out of memory.")])
def test_a_step_that_failed_once_costs_nobody_a_token(bench, request_for, depth, error) -> None:
    def fail(step):
        if step.step == 3:
            raise error
        return {}

    b = bench(depth=depth, fail=fail)
    for name in ("a", "b"):
        b.core.add(request_for(name, PROMPTS[name], 9))
    b.step()
    b.step()
    b.core.add(request_for("late", range(9), 9))
    b.run()
    for name, prompt in (("a", PROMPTS["a"]), ("b", PROMPTS["b"]), ("late", range(9))):
        assert b.tokens[name] == right(prompt, 9)
    assert b.executor.num_rows == 0


@pytest.mark.parametrize("error", [RuntimeError("cuda"), EngineError("It cannot be.")])
def test_one_alone_whose_step_fails_ends_with_what_may_be_told(bench, request_for, error) -> None:
    def fail(step):
        if step.step == 3:
            raise error
        return {}

    b = bench(fail=fail)
    b.core.add(request_for("a", PROMPTS["a"], 9))
    b.run()
    assert b.last["a"].finish_reason is FinishReason.ERROR
    assert "Send the request again" in b.last["a"].error and "cuda" not in b.last["a"].error
    assert ("It cannot be" in b.last["a"].error) == isinstance(error, EngineError)
    assert b.tokens["a"] == right(PROMPTS["a"], 9)[:2]


def test_what_follows_a_failed_step_is_repeated(bench, request_for) -> None:
    def fail(step):
        if step.step == 1:
            raise RuntimeError("broken")
        return {}

    b = bench(depth=2, fail=fail)
    b.core.add(request_for("dies", range(9), 4))
    b.step()
    b.core.add(request_for("lives", range(9), 4))
    b.step()
    assert b.last["dies"].finish_reason is FinishReason.ERROR
    b.run()
    assert b.tokens["lives"] == right(range(9), 4)
    assert b.last["lives"].num_preemptions == 1


def test_failing_submit_counts_as_a_failed_step(bench, request_for) -> None:
    b = bench()
    b.core.add(request_for("a", [1, 2], 4))
    b.step()
    submit, b.executor.submit = b.executor.submit, lambda step: (_ for _ in ()).throw(OSError("pipe"))
    (delta,) = b.step()
    assert delta.finish_reason is FinishReason.ERROR
    b.executor.submit = submit
    b.core.add(request_for("b", [1, 2], 4))
    b.run()
    assert b.tokens["b"] == right([1, 2], 4)


@pytest.mark.parametrize(
    "change",
    [
        {"step": 99},
        {"rows": [], "token_ids": []},
        {"rows": [0, 5], "token_ids": [1, 1]},
        {"rows": [0, 0], "token_ids": [1, 1]},
        {"token_ids": []},
        {"failed": {7: "who?"}},
        {"prompt_logprobs": {7: []}},
    ],
)
def test_answer_that_does_not_fit_the_step_is_an_error_not_a_hang(
    bench, request_for, lying_executor, change
) -> None:
    def lie(output: StepOutput) -> StepOutput:
        fields = {name: getattr(output, name) for name in ("step", "rows", "token_ids")}
        return StepOutput(**{**fields, **change})

    lying_executor.answer = staticmethod(lie)
    b = bench(executor=lying_executor)
    b.core.add(request_for("a", [1, 2], 4))
    (delta,) = b.step()
    assert delta.finish_reason is FinishReason.ERROR and "worker" in delta.error.lower()


@pytest.mark.parametrize(("refused", "code"), [([], None), ([0], "UNSUPPORTED_VALUE")])
def test_rows_that_wished_for_what_cannot_be_done_are_told_so(
    bench, request_for, lying_executor, refused, code
) -> None:
    lying_executor.answer = staticmethod(
        lambda output: StepOutput(
            step=output.step, rows=[], token_ids=[], failed={0: "too large"}, refused=refused
        )
    )
    b = bench(executor=lying_executor)
    b.core.add(request_for("a", [1, 2], 4))
    (delta,) = b.step()
    assert (delta.error, delta.error_code) == ("too large", code)


def test_reset_forgets_prefixes_even_of_running_requests(bench, request_for) -> None:
    b = bench()
    b.core.add(request_for("old", range(9), 20))
    b.step()
    assert b.core.reset_prefix_cache()
    assert b.core.stats().num_cached_blocks == 0
    b.core.add(request_for("new", range(9), 2))
    b.run()
    assert b.last["new"].num_cached_tokens == 0
    assert b.tokens["old"] == right(range(9), 20)


def test_stats_count(bench, request_for) -> None:
    b = bench(seqs=1)
    for name in ("a", "b"):
        b.core.add(request_for(name, [1, 2, 3], 2))
    b.step()
    stats = b.core.stats()
    assert (stats.num_running, stats.num_waiting, stats.step_tokens, stats.steps) == (1, 1, 3, 1)
    assert (stats.num_blocks, stats.num_free_blocks) == (99, 98)
    b.run()
    stats = b.core.stats()
    assert (stats.prompt_tokens, stats.generation_tokens, stats.kv_usage) == (6, 4, 0.0)


def test_limits_commit_what_was_granted(bench, request_for) -> None:
    b = bench(budget=4)
    granted: list[int] = []
    b.core._scheduler._commits.append(lambda request, count: granted.append(count))
    b.core.add(request_for("a", range(6), 2))
    b.run()
    assert granted == [4, 2, 1]


def test_shutdown_reaches_the_executor(bench, request_for) -> None:
    b = bench()
    b.core.add(request_for("a", [1]))
    b.step()
    b.core.shutdown()
    b.core.shutdown()
    assert b.executor.num_rows == 0


class TestLedger:
    """check() has to be able to fail."""

    @pytest.fixture
    def running(self, bench, request_for):
        b = bench(seqs=2)
        for name in ("a", "b", "c"):
            b.core.add(request_for(name, [1, 2, 3], 5))
        b.step()
        return b.core

    def test_lost_request(self, running) -> None:
        running._scheduler.running.pop()
        with pytest.raises(EngineError, match="places"):
            running.check()

    def test_wrong_state(self, running) -> None:
        running._scheduler.running[0].state = State.WAITING
        with pytest.raises(EngineError, match="does not run"):
            running.check()

    def test_waiting_request_that_holds_a_row(self, running) -> None:
        next(iter(running._scheduler.waiting)).row = 1
        with pytest.raises(EngineError, match="still holds"):
            running.check()

    def test_order(self, running) -> None:
        running._scheduler.running.reverse()
        with pytest.raises(EngineError, match="out of order"):
            running.check()

    def test_computed_beyond_known(self, running) -> None:
        running._scheduler.running[0].num_computed = 99
        with pytest.raises(EngineError, match="has computed 99"):
            running.check()

    def test_token_that_nobody_owes(self, running) -> None:
        request = running._scheduler.running[0]
        request.num_known += 1
        with pytest.raises(EngineError, match=r"1 tokens"):
            running.check()
        record = StepRecord(1)
        record.sampling[request.row] = request
        check_ledger(running._requests.by_id, running._scheduler, [record])
        record.forget([request])
        with pytest.raises(EngineError):
            check_ledger(running._requests.by_id, running._scheduler, [record])
