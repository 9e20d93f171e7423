"""Turns of tenants: shares follow weights, nobody starves, nobody saves up turns."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.core.fair_queue import OUTPUT_COST, FairQueue, ShareMeter
from octavo.core.kv.block import Holding
from octavo.core.request import Request
from octavo.messages.params import SamplingParams
from octavo.messages.request import EngineRequest, Terms
from octavo.messages.result import FinishReason


def request_of(tenant: str, number: int, length: int = 10, weight: float = 1.0) -> Request:
    message = EngineRequest(
        request_id=f"{tenant}{number}",
        prompt_token_ids=[1] * length,
        params=SamplingParams(max_tokens=4),
        max_tokens=4,
        eos_token_ids=[],
        random_key=5,
        arrival_time=0.0,
        terms=Terms(tenant, weight),
    )
    return Request(message, (0, number), Holding(message.request_id, b""))


def serve(queue: FairQueue, meter: ShareMeter) -> Request:
    """Admit the next request and compute its prompt."""
    request = queue.peek()
    assert request is not None
    queue.remove(request)
    request.num_computed = request.num_prompt
    meter.commit(request, request.num_prompt)
    return request


def test_a_single_request_does_not_wait_for_a_crowd() -> None:
    queue = FairQueue()
    for number in range(1000):
        queue.push(request_of("heavy", number))
    served = [serve(queue, ShareMeter()) for _ in range(3)]
    queue.push(request_of("light", 5000))
    assert serve(queue, ShareMeter()).request_id == "light5000"
    assert [request.request_id for request in served] == ["heavy0", "heavy1", "heavy2"]
    assert len(queue) == 997 and sum(1 for _ in queue) == 997


def test_shares_follow_weights() -> None:
    queue = FairQueue()
    for number in range(400):
        for tenant, weight in (("a", 1.0), ("b", 3.0)):
            queue.push(request_of(tenant, number, weight=weight))
    turns = Counter(serve(queue, ShareMeter()).message.terms.tenant for _ in range(400))
    assert turns["b"] == pytest.approx(300, abs=2)


def test_long_prompts_cost_more_turns() -> None:
    queue = FairQueue()
    for number in range(200):
        queue.push(request_of("long", number, length=100))
        queue.push(request_of("short", number, length=10))
    turns = Counter(serve(queue, ShareMeter()).message.terms.tenant for _ in range(110))
    assert turns["short"] == pytest.approx(100, abs=2)


def test_output_tokens_cost_more_than_prompt_tokens() -> None:
    queue, meter = FairQueue(), ShareMeter()
    queue.push(request_of("a", 0))
    request = serve(queue, meter)
    share = request.share
    assert share is not None and share.served == 10
    request.num_computed += 1
    meter.commit(request, 1)
    assert share.served == 10 + OUTPUT_COST


def test_nobody_saves_up_turns() -> None:
    queue = FairQueue()
    queue.push(request_of("idle", 0))
    serve(queue, ShareMeter())
    for number in range(300):
        queue.push(request_of("busy", number))
    for _ in range(200):
        serve(queue, ShareMeter())
    for number in range(50):
        queue.push(request_of("idle", 1000 + number))
    turns = Counter(serve(queue, ShareMeter()).message.terms.tenant for _ in range(40))
    assert turns["idle"] == pytest.approx(20, abs=1)


TENANTS = st.sampled_from("abc")
ARRIVALS = st.lists(st.tuples(TENANTS, st.integers(1, 40), st.sampled_from([0.5, 1.0, 4.0])), max_size=60)


@settings(max_examples=60, deadline=None)
@given(st.lists(ARRIVALS, max_size=8))
def test_nobody_starves(rounds: list[list[tuple[str, int, float]]]) -> None:
    """While a tenant waits, any other gets at most one request ahead of it, by weight, whatever arrives."""
    queue, meter, number = FairQueue(), ShareMeter(), 0
    at_begin: dict[str, dict[str, float]] = {}
    largest = 40 / 0.5
    for arrivals in [*rounds, *[[]] * 200]:
        for tenant, length, weight in arrivals:
            number += 1
            queue.push(request_of(tenant, number, length, weight))
            at_begin.setdefault(tenant, {name: share.served for name, share in queue._shares.items()})
        if not len(queue):
            continue
        tenant = serve(queue, meter).message.terms.tenant
        at_begin.pop(tenant, None)  # It got its turn: its wait begins anew.
        if any(request.message.terms.tenant == tenant for request in queue):
            at_begin[tenant] = {name: share.served for name, share in queue._shares.items()}
        for waiting, before in at_begin.items():
            own = queue._shares[waiting].served
            for other, share in queue._shares.items():
                ahead = share.served - max(own, before.get(other, 0.0))
                assert ahead <= largest, (waiting, other)
    assert not len(queue)


def run_beside_a_crowd(bench, request_for, policy: str) -> int:
    """In which step a light tenant's request gets its first token, behind 40 of another tenant."""
    b = bench(blocks=400, seqs=4, budget=16, caching=False, schedule={"scheduling_policy": policy})
    for number in range(40):
        b.core.add(request_for(f"h{number}", [number] * 12, 6, terms=Terms("heavy")))
    for _ in range(5):
        b.step()
    b.core.add(request_for("light", [7] * 12, 6, terms=Terms("light")))
    while "light" not in b.tokens:
        b.step()
    step = len(b.executor.steps)
    b.run()
    assert all(delta.finish_reason is FinishReason.LENGTH for delta in b.last.values())
    assert len(b.last) == 41
    return step


def test_the_core_lets_the_light_tenant_in(bench, request_for) -> None:
    fair, fcfs = (run_beside_a_crowd(bench, request_for, policy) for policy in ("fair", "fcfs"))
    assert 5 * fair < fcfs


def test_terms_cross_the_wire(request_for) -> None:
    import msgspec

    message = request_for("r", [1], terms=Terms("a", 2.0, 7.5))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=EngineRequest) == message
