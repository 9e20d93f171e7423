"""Drives a Worker by hand-made steps: what the core does, without its wisdom."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from octavo.config.cache import CacheConfig
from octavo.config.model import ModelConfig
from octavo.config.schedule import ScheduleConfig
from octavo.messages.kv import KVGroup, KVPlan
from octavo.messages.params import SamplingParams
from octavo.messages.result import StepOutput
from octavo.messages.step import NewRow, SchedulerOutput
from octavo.weights.checkpoint import open_checkpoint
from octavo.worker.extras.contract import Extra, StepResult
from octavo.worker.step_batch import StepBatch
from octavo.worker.worker import Worker

GREEDY = SamplingParams(temperature=0.0)


def make_model(folder: Path, family: str = "llama", **overrides: Any) -> tuple[Path, Any]:
    """A random checkpoint of odd sizes and the transformers model it was made from."""
    from transformers import AutoConfig, AutoModelForCausalLM

    values: dict[str, Any] = {
        "vocab_size": 131,
        "hidden_size": 60,
        "intermediate_size": 76,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 24,
        "max_position_embeddings": 1024,
        "initializer_range": 0.2,
        **overrides,
    }
    config = AutoConfig.for_model(family, **values)
    torch.manual_seed(11)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").to(torch.float32).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "norm" in name:
            parameter.data += torch.randn_like(parameter) * 0.1
    model.save_pretrained(folder)
    return folder, model


def random_tokens(count: int, seed: int = 0, vocab_size: int = 131) -> list[int]:
    return random.Random(seed).choices(range(vocab_size), k=count)


class Recorder(Extra):
    """Keeps the logits of every computed position, by row."""

    def __init__(self, worker: Worker) -> None:
        self._model = worker._held.model
        self.logits: dict[int, list[torch.Tensor]] = {}
        self.calls: list[str] = []

    def requests_changed(self, step: SchedulerOutput) -> None:
        self.calls.append("requests_changed")
        for new in step.new_rows:
            self.logits[new.row] = []

    def before_forward(self, batch: StepBatch) -> None:
        self.calls.append("before_forward")

    def after_forward(self, batch: StepBatch, hidden_TE: torch.Tensor, result: StepResult) -> None:
        self.calls.append("after_forward")
        for i, row in enumerate(batch.rows):
            part = hidden_TE[batch.query_starts[i] : batch.query_starts[i + 1]]
            self.logits[row].append(self._model.logits(part).clone())

    def before_sample(self, batch: StepBatch, logits_RV: torch.Tensor) -> torch.Tensor:
        self.calls.append("before_sample")
        return logits_RV

    def after_sample(self, batch: StepBatch, sampled: Any, result: StepResult) -> None:
        self.calls.append("after_sample")

    def of(self, row: int) -> torch.Tensor:
        return torch.cat(self.logits[row])


class Driver:
    """A worker, a shuffled pool of blocks and the counts needed to make steps."""

    def __init__(
        self,
        path: Path,
        *,
        dtype: str = "float32",
        block_size: int = 16,
        num_blocks: int = 200,
        num_rows: int = 8,
        max_model_len: int = 1024,
        num_groups: int = 1,
        deterministic: bool = False,
        native_threads: int | None = None,
        kv_dtype: str | None = None,
        keeps_packed: bool = True,
        seed: int = 0,
    ) -> None:
        """native_threads: compute with the native kernels, which keep plain weights in their own width.

        kv_dtype None: keys and values as the model computes.
        """
        computed = dtype if native_threads is None else "float32"
        self.worker = Worker(
            model=ModelConfig(
                dtype=dtype,
                max_model_len=max_model_len,
                device="cpu",
                deterministic=deterministic,
                native_kernels=native_threads is not None,
                packed_weights=native_threads is not None and keeps_packed,
                cpu_threads=native_threads,
            ),
            cache=CacheConfig(
                block_size=block_size,
                kv_cache_dtype=kv_dtype or computed,
            ),
            schedule=ScheduleConfig(max_num_seqs=num_rows, max_num_batched_tokens=2048),
            checkpoint=open_checkpoint(path),
        )
        self.facts = self.worker.load()
        layers = self.facts.kv_layers
        size = -(-len(layers) // num_groups)
        groups = [
            KVGroup(spec=layers[0], layers=list(range(start, min(start + size, len(layers)))))
            for start in range(0, len(layers), size)
        ]
        self.plan = KVPlan(
            block_size=block_size,
            num_blocks=num_blocks,
            groups=groups,
            page_bytes=block_size * layers[0].bytes_per_token,
        )
        self.worker.allocate(self.plan)
        runner = self.worker._runner
        assert runner is not None
        self.runner = runner
        self.kv = runner._forward._attention.kv
        for pages in self.kv.pages:
            # Whatever is read before it is written must show: not a number, in every type, or such a scale.
            pages.rows_RC.view(torch.uint8).fill_(0xFF)
        for states in runner._forward._states.by_layer:
            for state in states:
                state.fill_(float("nan"))
        self.recorder = Recorder(self.worker)
        runner.extras.append(self.recorder)
        self.free = list(range(1, num_blocks))
        random.Random(seed).shuffle(self.free)
        self.tables: dict[int, list[list[int]]] = {}
        self.tokens: dict[int, list[int]] = {}
        self.computed: dict[int, int] = {}
        self.new: list[NewRow] = []
        self.ended: list[int] = []
        self.num_steps = 0

    def add(
        self,
        row: int,
        token_ids: list[int],
        params: SamplingParams = GREEDY,
        *,
        num_prompt: int | None = None,
        shared: tuple[int, int] | None = None,
    ) -> None:
        """A request on `row`. shared (other row, blocks): it begins on that row's first blocks."""
        tables: list[list[int]] = [[] for _ in self.plan.groups]
        num_computed = 0
        if shared is not None:
            other, num_blocks = shared
            tables = [table[:num_blocks] for table in self.tables[other]]
            num_computed = num_blocks * self.plan.block_size
        self.tokens[row], self.computed[row], self.tables[row] = list(token_ids), num_computed, tables
        self.new.append(
            NewRow(
                row=row,
                request_id=f"request-{row}",
                token_ids=list(token_ids),
                num_prompt_tokens=num_prompt or len(token_ids),
                num_computed_tokens=num_computed,
                block_ids=[list(table) for table in tables],
                params=params,
                random_key=row,
                eos_token_ids=[],
            )
        )

    def end(self, row: int, *, give_back: bool = True) -> None:
        self.ended.append(row)
        tables = self.tables.pop(row)
        if give_back:
            self.free += [block for table in tables for block in table]

    def run(self, step: SchedulerOutput) -> StepOutput:
        return self.worker.finish(self.worker.submit(step))

    def step(self, amounts: dict[int, int]) -> StepOutput:
        """Compute amounts[row] tokens of each row."""
        new_blocks = []
        for row, count in amounts.items():
            self.computed[row] += count
            need = -(-self.computed[row] // self.plan.block_size)
            grown = [[self.free.pop() for _ in range(need - len(table))] for table in self.tables[row]]
            for table, blocks in zip(self.tables[row], grown, strict=True):
                table += blocks
            new_blocks.append(grown)
        output = self.run(
            SchedulerOutput(
                step=self.num_steps,
                ended_rows=self.ended,
                new_rows=self.new,
                rows=list(amounts),
                num_tokens=list(amounts.values()),
                new_blocks=new_blocks,
            )
        )
        self.ended, self.new = [], []
        self.num_steps += 1
        for row, token in zip(output.rows, output.token_ids, strict=True):
            self.tokens[row].append(token)
        return output

    def prefill(self, row: int, chunks: Iterable[int] | None = None) -> None:
        """Compute all known tokens of a row, in these chunk sizes (the rest in one)."""
        goal = len(self.tokens[row])
        for chunk in chunks or ():
            if self.computed[row] + chunk < goal:
                self.step({row: chunk})
        self.step({row: goal - self.computed[row]})

    def decode(self, rows: list[int], steps: int) -> None:
        for _ in range(steps):
            self.step(dict.fromkeys(rows, 1))
