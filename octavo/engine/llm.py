"""LLM: offline inference. The whole engine in the caller's process; a vLLM script runs on it unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypedDict, TypeVar

from tqdm.auto import tqdm

from octavo.base.errors import ConfigError, EngineError, ErrorCode, RequestError
from octavo.base.signals import interrupts_held
from octavo.config.root import EngineConfig
from octavo.engine.beam_runs import BeamSteps, candidates, open_search, whole_output
from octavo.engine.core_start import start_core
from octavo.engine.heap import quiet_heap
from octavo.engine.load import load_front
from octavo.engine.open_request import OpenRequest, Prepared
from octavo.engine.output_processor import OutputProcessor
from octavo.engine.outputs import BeamSearchOutput, RequestOutput
from octavo.engine.pooling.offline import PoolingCalls
from octavo.engine.pooling.outputs import PoolingRequestOutput
from octavo.engine.pooling.prepare import pooling_preparer
from octavo.engine.pooling.refuse import cannot_write
from octavo.engine.pooling.state import PreparedPooling
from octavo.engine.prepare import EnginePrompt, RequestPreparer, repeatable_keys, vector_limits
from octavo.engine.prompt_vectors import refuse_prompt_vectors, vectors_from
from octavo.engine.request_state import PreparedRequest
from octavo.engine.rest import LEVELS
from octavo.grammar.desk import GrammarDesk
from octavo.grammar.vocabulary import Words, vocabulary_of
from octavo.messages.beam import BeamSearchParams
from octavo.messages.params import RequestOutputKind, SamplingParams
from octavo.messages.result import CoreStats
from octavo.messages.start import StartCore
from octavo.tokens.tokenizer import Tokenizer

Out = TypeVar("Out")


class TextPrompt(TypedDict):
    prompt: str


class TokensPrompt(TypedDict):
    prompt_token_ids: list[int]


class EmbedsPrompt(TypedDict):
    prompt_embeds: Any
    """A torch tensor [tokens, hidden], or the bytes of a safetensors file that holds one."""


Prompt = str | list[int] | TextPrompt | TokensPrompt | EmbedsPrompt | Mapping[str, Any]
Message = Mapping[str, Any]


class LLM(PoolingCalls):
    """A model ready to generate, or to answer with numbers.

    `options` are the engine's options by name: dtype, max_model_len, max_num_seqs,
    max_num_batched_tokens, num_gpu_blocks_override, enable_prefix_caching, seed, ... An unknown or
    impossible one raises ConfigError. `disable_log_stats` of vLLM scripts is accepted; it changes
    nothing here.
    """

    def __init__(self, model: str | None = None, **options: Any) -> None:
        options.pop("disable_log_stats", None)
        if options.pop("tensor_parallel_size", 1) != 1:
            raise ConfigError(
                "tensor_parallel_size must be 1: one device is supported.", param="tensor_parallel_size"
            )
        if model is not None:
            options["model"] = model
        loaded = load_front(EngineConfig.from_options(options))
        self.config = loaded.config
        self._tokenizer = loaded.tokenizer
        self._default_sampling = loaded.default_sampling
        words = Words(tokenizer=loaded.tokenizer, eos_token_ids=loaded.eos_token_ids)
        self._core, self.ready = start_core(
            StartCore(config=loaded.config, path=str(loaded.path)), words=lambda: words
        )
        max_model_len = loaded.config.model.max_model_len
        assert max_model_len is not None, "the config is resolved"
        self._processor = OutputProcessor(loaded.tokenizer)
        self._preparer = RequestPreparer(
            words=words,
            vocab_size=self.ready.vocab_size,
            max_model_len=max_model_len,
            max_request_tokens=self.ready.max_request_tokens,
            max_logprobs=max(loaded.config.model.max_logprobs, self.ready.vocab_size),
            random_keys=repeatable_keys(loaded.config.model.seed),
            is_same_process=True,
            grammars=GrammarDesk(lambda: vocabulary_of(words, self.ready.vocab_size)),
            vectors=vector_limits(loaded.config.model, self.ready),
        )
        self._pooling = pooling_preparer(loaded.facts, loaded.tokenizer, self.ready)
        self._num_requests = 0
        self._sleep_level = 0

    def __enter__(self) -> LLM:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    def get_tokenizer(self) -> Tokenizer:
        return self._tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        """What requests get that bring no SamplingParams: the checkpoint's own recommendation."""
        return SamplingParams(**self._default_sampling)

    def stats(self) -> CoreStats:
        return self._core.stats()

    def reset_prefix_cache(self) -> bool:
        return self._core.reset_prefix_cache()

    def sleep(self, level: int = 1) -> None:
        """Give memory back: 1 the KV cache (a GPU's weights move to the host), 2 the weights too.

        Until wake_up no prompt is answered.
        """
        if level not in LEVELS:
            raise RequestError(f"level is {level}; it must be 1 or 2.", param="level")
        self._core.sleep(level)
        self._sleep_level = max(level, self._sleep_level)

    def wake_up(self) -> None:
        """Take the memory again; after level 2 the weights come from the checkpoint. Nothing is cached."""
        self._core.wake_up()
        self._sleep_level = 0

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool = True,
        *,
        priority: Sequence[int] | None = None,
        cache_salt: str | None = None,
    ) -> list[RequestOutput]:
        """Answer all prompts; the outputs come in the order of the prompts.

        A prompt is a text, a list of token ids, {"prompt": ...}, {"prompt_token_ids": ...} or, with
        enable_prompt_embeds, {"prompt_embeds": ...}. All requests are checked before the first one runs:
        RequestError means that nothing was computed.
        """
        self._check_writes()
        many = _as_list(prompts)
        params = self._params_for(len(many), sampling_params)
        if priority is not None and len(priority) != len(many):
            raise RequestError(f"{len(many)} prompts but {len(priority)} priorities.", param="priority")
        prepared = [
            self._prepare(prompt, params[index], priority[index] if priority else 0, cache_salt)
            for index, prompt in enumerate(many)
        ]
        return self._run(prepared, use_tqdm)

    def beam_search(
        self, prompts: Prompt | Sequence[Prompt], params: BeamSearchParams, *, cache_salt: str | None = None
    ) -> list[BeamSearchOutput]:
        """The likeliest answers to each prompt, best first: as transformers' beam search finds them."""
        self._check_writes()
        steps = BeamSteps(self._preparer, cache_salt=cache_salt)
        searches = [
            open_search(self._preparer, _text_or_ids(prompt), params, cache_salt)
            for prompt in _as_list(prompts)
        ]
        while running := [search for search in searches if not search.is_done]:
            requests = [steps.requests(search) for search in running]
            outputs = iter(self._run([request for step in requests for request in step], use_tqdm=False))
            for search, step in zip(running, requests, strict=True):
                search.take([candidates(next(outputs)) for _ in step])
        return [whole_output(search, self._tokenizer) for search in searches]

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool = True,
        *,
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: list[dict[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[RequestOutput]:
        """Answer one conversation, or several, through the model's chat template."""
        self._check_writes()
        conversations = [messages] if messages and isinstance(messages[0], Mapping) else messages
        prompts: list[Prompt] = [
            {
                "prompt_token_ids": self._tokenizer.encode_chat(
                    [dict(message) for message in conversation],  # type: ignore[arg-type]
                    tools=tools,
                    add_generation_prompt=add_generation_prompt,
                    continue_final_message=continue_final_message,
                    chat_template=chat_template,
                    template_kwargs=chat_template_kwargs,
                )
            }
            for conversation in conversations
        ]
        return self.generate(prompts, sampling_params, use_tqdm)

    def shutdown(self) -> None:
        """Free the model and the cache. The object cannot be used afterwards."""
        self._core.shutdown()

    def _check_writes(self) -> None:
        if self._pooling is not None:
            raise cannot_write(self._pooling.facts)

    def _run_pooling(self, prepared: list[PreparedPooling], use_tqdm: bool) -> list[PoolingRequestOutput]:
        # Texts of similar length together: an encoder computes them without padding.
        order = sorted(range(len(prepared)), key=lambda index: len(prepared[index].prompt_token_ids))
        outputs = self._run([prepared[index] for index in order], use_tqdm)
        by_index = dict(zip(order, outputs, strict=True))
        return [by_index[index] for index in range(len(prepared))]

    def _params_for(
        self, count: int, given: SamplingParams | Sequence[SamplingParams] | None
    ) -> list[SamplingParams]:
        if given is None:
            return [self.get_default_sampling_params()] * count
        if isinstance(given, SamplingParams):
            return [given] * count
        if len(given) != count:
            raise RequestError(f"{count} prompts but {len(given)} sampling_params.", param="sampling_params")
        return list(given)

    def _prepare(
        self, prompt: Prompt, params: SamplingParams, priority: int, cache_salt: str | None
    ) -> PreparedRequest:
        # Streaming kinds make no sense here: the caller gets finished outputs.
        params = params.clone()
        params.output_kind = RequestOutputKind.FINAL_ONLY
        engine_prompt = _engine_prompt(prompt, takes_vectors=self.config.model.enable_prompt_embeds)
        request_id = str(self._num_requests)
        self._num_requests += 1
        return self._preparer.prepare(
            engine_prompt, params, request_id=request_id, priority=priority, cache_salt=cache_salt
        )

    def _run(self, prepared: Sequence[Prepared[Out]], use_tqdm: bool) -> list[Out]:
        if self._sleep_level:
            raise EngineError("The model sleeps; call wake_up() first.", code=ErrorCode.ASLEEP)
        with interrupts_held() as let_interrupt_in:
            return self._run_between_interrupts(prepared, use_tqdm, let_interrupt_in)

    def _run_between_interrupts(
        self, prepared: Sequence[Prepared[Out]], use_tqdm: bool, let_interrupt_in: Callable[[], None]
    ) -> list[Out]:
        states = [self._processor.open(request) for request in prepared]
        try:
            for request in prepared:
                for sample in request.samples:
                    self._core.add(sample)
            with quiet_heap(), _Progress(len(prepared), use_tqdm) as progress:
                finished = self._finished(progress, let_interrupt_in)
                outputs = {id(output.state): output.output for output in finished}
                while self._core.has_work():  # Steps that overlap may outlive the last answer.
                    self._core.step()
            return [outputs[id(state)] for state in states]
        finally:
            # After an error or Ctrl-C nothing of this call may stay behind.
            left = [sample_id for state in states for sample_id in self._processor.close(state)]
            if left:
                self._core.abort(left)

    def _finished(self, progress: _Progress, let_interrupt_in: Callable[[], None]) -> Iterator[_Finished]:
        while len(self._processor):
            let_interrupt_in()  # Only here: no step is half done.
            changed, to_abort = self._processor.process(self._core.step())
            if to_abort:
                self._core.abort(to_abort)
            progress.add_tokens(self._core.stats)
            for state in changed:
                if not state.has_output:
                    continue
                if state.error is not None:
                    raise EngineError(state.error)
                output = state.take_output()
                if output is not None:
                    progress.add_request()
                    yield _Finished(state, output)


class _Finished:
    """A request and its final output."""

    __slots__ = ("output", "state")

    def __init__(self, state: OpenRequest[Any], output: Any) -> None:
        self.state = state
        self.output = output


class _Progress:
    """A bar of finished requests with tokens per second, or nothing."""

    def __init__(self, total: int, is_shown: bool) -> None:
        self._bar = tqdm(
            total=total, desc="Processed prompts", unit="req", disable=not is_shown, dynamic_ncols=True
        )
        self._start: CoreStats | None = None

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def add_tokens(self, read_stats: Callable[[], CoreStats]) -> None:
        if self._bar.disable:
            return
        stats = read_stats()
        if self._start is None:
            self._start = stats
        elapsed = self._bar.format_dict["elapsed"] or 1e-9
        read = (stats.prompt_tokens - self._start.prompt_tokens) / elapsed
        written = (stats.generation_tokens - self._start.generation_tokens) / elapsed
        self._bar.set_postfix_str(f"in {read:.0f} tok/s, out {written:.0f} tok/s", refresh=False)
        self._bar.update(0)

    def add_request(self) -> None:
        self._bar.update(1)


def _as_list(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    if isinstance(prompts, str | Mapping):
        return [prompts]
    if isinstance(prompts, list) and prompts and all(isinstance(item, int) for item in prompts):
        return [prompts]
    return list(prompts)  # type: ignore[arg-type]


def _engine_prompt(prompt: Prompt, *, takes_vectors: bool) -> EnginePrompt:
    vectors = prompt.get("prompt_embeds") if isinstance(prompt, Mapping) else None
    if vectors is None:
        return _text_or_ids(prompt)
    if not takes_vectors:
        raise refuse_prompt_vectors()
    assert isinstance(prompt, Mapping), "it has prompt_embeds"
    if prompt.get("prompt") or prompt.get("prompt_token_ids"):
        raise RequestError("A prompt is prompt_embeds or something else, not both.", param="prompts")
    return vectors_from(vectors)


def _text_or_ids(prompt: Prompt) -> str | list[int]:
    if isinstance(prompt, str | list):
        return prompt
    if isinstance(prompt, Mapping):
        for key, kind in (("prompt_token_ids", list), ("prompt", str)):
            value = prompt.get(key)
            if isinstance(value, kind):
                return value
    raise RequestError(
        'A prompt is a text, a list of token ids, {"prompt": text}, {"prompt_token_ids": ids} or '
        '{"prompt_embeds": vectors}; beam search takes no vectors.',
        param="prompts",
    )
