"""FakeExecutor: an executor without a model, for tests and simulations of everything above it.

Its KV cache is real: pages hold the token ids that were computed into them. The next token is a keyed
hash of all token ids read back through the block tables, so any mix-up of blocks, rows or positions
shows at once as a wrong token, and `expected_tokens` knows the right ones. Pooled requests get that token as
their only number. Never imports torch.
"""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from octavo.base.errors import ConfigError
from octavo.messages.kv import KVGroup, KVKind, KVPlan, KVSpec
from octavo.messages.params import SamplingParams
from octavo.messages.result import Numbers, StepOutput, TokenLogprobs
from octavo.messages.start import WorkerFacts
from octavo.messages.step import NewRow, SchedulerOutput

Fail = Callable[[SchedulerOutput], dict[int, str]]
"""Decides what goes wrong in a step: raise to fail all of it, or return a message for each failed row."""


class StepLost(RuntimeError):
    """Raised by a `Fail`: the step vanishes before the worker has seen any of it."""


GARBAGE = 2**32 - 1
"""Stands in pages where a failed computation or nobody has written."""

FULL = KVSpec(kind=KVKind.FULL, num_kv_heads=1, head_dim=1, dtype_bytes=2)


def sliding(window: int) -> KVSpec:
    return KVSpec(kind=KVKind.SLIDING_WINDOW, num_kv_heads=1, head_dim=1, dtype_bytes=2, window=window)


def expected_tokens(
    prompt: Sequence[int],
    count: int,
    *,
    key: int,
    vocab_size: int,
    layers: Sequence[KVSpec] = (FULL, FULL),
    eos_probability: float = 0.0,
    eos_token_id: int = 0,
) -> list[int]:
    """What a FakeExecutor with these options answers to `prompt` under random key `key`, stop rules aside."""
    known = array("I", prompt)
    windows = {spec.window for spec in layers}
    for _ in range(count):
        seen = {(window or 0, _digest(known if window is None else known[-window:])) for window in windows}
        known.append(_next_token(key, len(known), seen, vocab_size, eos_probability, eos_token_id))
    return list(known[len(prompt) :])


@dataclass(kw_only=True)
class _Row:
    tokens: array[int]
    num_prompt: int
    num_computed: int
    tables: list[list[int]]
    params: SamplingParams
    key: int
    is_pooled: bool


class FakeExecutor:
    """Runs a step when it is collected, in order, as a worker process would."""

    def __init__(
        self,
        *,
        vocab_size: int = 1000,
        hidden_size: int = 4,
        layers: Sequence[KVSpec] = (FULL, FULL),
        available_bytes: int = 1 << 20,
        eos_probability: float = 0.0,
        eos_token_id: int = 0,
        step_seconds: float = 0.0,
        fail: Fail | None = None,
    ) -> None:
        self._vocab_size = vocab_size
        self._hidden_size = hidden_size
        self._layers = list(layers)
        self._available_bytes = available_bytes
        self._eos_probability = eos_probability
        self._eos_token_id = eos_token_id
        self._step_seconds = step_seconds
        self._fail = fail
        self._submitted: deque[SchedulerOutput] = deque()
        self._rows: dict[int, _Row] = {}
        self._plan: KVPlan
        self._groups: list[KVGroup] = []
        self._block_size = 0
        self._foreign: array[int] = array("I")
        self._pages: list[list[array[int]]] = []
        self._written_by: list[int] = []
        """Group that wrote a block last: what it keeps means nothing to another group's layers."""

    def start(self) -> WorkerFacts:
        return WorkerFacts(
            kv_layers=self._layers,
            vocab_size=self._vocab_size,
            hidden_size=self._hidden_size,
            available_bytes=self._available_bytes,
            memory_bytes={"weights": 0, "rows": 0},
            seconds={"weights": 0.0},
        )

    def allocate(self, plan: KVPlan) -> dict[str, float]:
        self._plan = plan
        self._groups = plan.groups
        self._block_size = plan.block_size
        empty = array("I", [GARBAGE]) * plan.block_size
        self._foreign = empty
        self._written_by = [-1] * plan.num_blocks
        self._pages = [[empty[:] for _ in range(plan.num_blocks)] for _ in range(plan.num_tensors)]
        return {}

    def submit(self, step: SchedulerOutput) -> None:
        self._submitted.append(step)

    def collect(self) -> StepOutput:
        step = self._submitted.popleft()
        if self._step_seconds:
            time.sleep(self._step_seconds)
        failed: dict[int, str] = {}
        error: Exception | None = None
        if self._fail is not None:
            try:
                failed = self._fail(step)
            except StepLost:
                raise
            except Exception as injected:
                error = injected
        self._change_rows(step)
        self._compute(step, step.rows if error else failed)
        if error is not None:
            raise error
        return self._sample(step, failed)

    def sleep(self, level: int) -> None:  # noqa: ARG002 (there are no weights)
        assert not self._rows, "nobody sleeps while a request holds a row"
        self._pages.clear()

    def wake_up(self) -> None:
        self.allocate(self._plan)

    def start_profile(self) -> None:
        raise ConfigError("This executor has no profiler.")

    def stop_profile(self, folder: str) -> str:  # noqa: ARG002
        raise ConfigError("This executor has no profiler.")

    def shutdown(self) -> None:
        self._submitted.clear()
        self._rows.clear()
        self._pages.clear()

    @property
    def num_rows(self) -> int:
        """Rows in use, as far as this worker has been told."""
        return len(self._rows)

    def _change_rows(self, step: SchedulerOutput) -> None:
        for row in step.ended_rows:
            self._rows.pop(row, None)
        for new in step.new_rows:
            assert new.row not in self._rows, f"row {new.row} is in use"
            self._rows[new.row] = _make_row(new)
        for number, blocks in zip(step.rows, step.new_blocks, strict=True):
            for table, more in zip(self._rows[number].tables, blocks, strict=True):
                table.extend(more)

    def _compute(self, step: SchedulerOutput, spoiled: Sequence[int] | dict[int, str]) -> None:
        """Write every row's tokens before anybody reads, as each layer of a model does."""
        for number, count in zip(step.rows, step.num_tokens, strict=True):
            row = self._rows[number]
            start, end = row.num_computed, row.num_computed + count
            assert count > 0 and end <= len(row.tokens), f"row {number} has no tokens {start} to {end}"
            tokens = row.tokens[start:end] if number not in spoiled else array("I", [GARBAGE]) * count
            for group, table in enumerate(row.tables):
                self._write(group, table, start, tokens)
            row.num_computed = end

    def _write(self, group: int, table: list[int], start: int, tokens: array[int]) -> None:
        size = self._block_size
        tensors = self._pages[: len(self._groups[group].layers)]
        done = 0
        while done < len(tokens):
            index, slot = divmod(start + done, size)
            count = min(size - slot, len(tokens) - done)
            block = table[index]
            assert block > 0, "a token would be written into the null block"
            self._written_by[block] = group
            for pages in tensors:
                pages[block][slot : slot + count] = tokens[done : done + count]
            done += count

    def _sample(self, step: SchedulerOutput, failed: dict[int, str]) -> StepOutput:
        rows: list[int] = []
        token_ids: list[int] = []
        logprobs: dict[int, TokenLogprobs] = {}
        numbers: dict[int, Numbers] = {}
        prompt_logprobs: dict[int, list[TokenLogprobs]] = {}
        for number, count in zip(step.rows, step.num_tokens, strict=True):
            row = self._rows[number]
            if number not in failed and row.params.prompt_logprobs is not None:
                prompt_logprobs[number] = self._prompt_logprobs(row, row.num_computed - count)
            if row.num_computed < len(row.tokens):
                continue
            token = self._next_token(row)
            row.tokens.append(token)
            if number in failed:
                continue
            rows.append(number)
            token_ids.append(token)
            if row.is_pooled:
                numbers[number] = Numbers(array("f", [float(token)]).tobytes(), [1])
            if row.params.logprobs is not None:
                logprobs[number] = self._logprobs(token, row.params.logprobs)
        return StepOutput(
            step=step.step,
            rows=rows,
            token_ids=token_ids,
            logprobs=logprobs,
            prompt_logprobs={number: entries for number, entries in prompt_logprobs.items() if entries},
            failed=failed,
            numbers=numbers,
        )

    def _next_token(self, row: _Row) -> int:
        seen = set()
        length = row.num_computed
        for number, (group, table) in enumerate(zip(self._groups, row.tables, strict=True)):
            window = group.spec.window
            first = 0 if window is None else max(0, length - window)
            seen.add((window or 0, _digest(self._read(number, table, first, length))))
        return _next_token(row.key, length, seen, self._vocab_size, self._eos_probability, self._eos_token_id)

    def _read(self, group: int, table: list[int], first: int, end: int) -> array[int]:
        """One of the group's layers, each in its turn."""
        size = self._block_size
        pages = self._pages[end % len(self._groups[group].layers)]
        tokens: array[int] = array("I")
        start = first // size
        for block in table[start : (end - 1) // size + 1]:
            tokens += pages[block] if self._written_by[block] == group else self._foreign
        return tokens[first - start * size : end - start * size]

    def _prompt_logprobs(self, row: _Row, start: int) -> list[TokenLogprobs]:
        """The log-probability of the token at position p is -p."""
        count = row.params.prompt_logprobs or 0
        return [
            self._logprobs(row.tokens[position], count, -float(position))
            for position in range(start + 1, min(row.num_computed, row.num_prompt - 1) + 1)
        ]

    def _logprobs(self, token: int, count: int, value: float = -0.5) -> TokenLogprobs:
        count = self._vocab_size if count == -1 else count
        best = [(token + offset) % self._vocab_size for offset in range(count)]
        return TokenLogprobs(
            token_ids=[token, *best], logprobs=[value, *(value - offset for offset in range(count))], rank=1
        )


def _make_row(new: NewRow) -> _Row:
    return _Row(
        tokens=array("I", new.token_ids),
        num_prompt=new.num_prompt_tokens,
        num_computed=new.num_computed_tokens,
        tables=[list(table) for table in new.block_ids],
        params=new.params,
        key=new.random_key,
        is_pooled=new.pooling is not None,
    )


def _digest(tokens: array[int]) -> bytes:
    return blake2b(tokens.tobytes(), digest_size=8).digest()


def _next_token(
    key: int,
    position: int,
    seen: set[tuple[int, bytes]],
    vocab_size: int,
    eos_probability: float,
    eos_token_id: int,
) -> int:
    """`seen` has one entry for each window size when all groups of a size read the same tokens."""
    hashed = blake2b((key % 2**64).to_bytes(8, "little") + position.to_bytes(8, "little"), digest_size=16)
    for window, digest in sorted(seen):
        hashed.update(window.to_bytes(8, "little") + digest)
    value = int.from_bytes(hashed.digest(), "little")
    if (value >> 64) < eos_probability * 2**64:
        return eos_token_id
    return (value & (2**64 - 1)) % vocab_size
