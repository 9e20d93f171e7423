import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.base.errors import ConfigError
from octavo.base.native import why_no_kernels
from octavo.config.facts import CheckpointFacts, DeviceFacts
from octavo.config.pooling import PoolingFacts, PoolingType
from octavo.config.resolve import resolve
from octavo.config.root import EngineConfig

CHECKPOINT = CheckpointFacts(
    name="tiny", architecture="LlamaForCausalLM", model_max_len=2048, vocab_size=100, stored_dtype="bfloat16"
)
CPU = DeviceFacts(kind="cpu", has_fast_bfloat16=False)
CUDA = DeviceFacts(kind="cuda", has_fast_bfloat16=True)


def resolved(device=CPU, checkpoint=CHECKPOINT, **options):
    return resolve(EngineConfig.from_options(options), checkpoint, device)


def test_everything_is_filled_with_a_reason():
    result = resolved()
    config = result.config
    assert config.model.served_model_name == ["smollm2-135m-instruct"]
    assert config.model.dtype == "float32"
    assert config.model.max_model_len == 2048
    assert config.schedule.max_num_batched_tokens == 512
    reasons = {reason.option: reason for reason in result.reasons}
    assert {"served_model_name", "dtype", "max_model_len", "max_num_batched_tokens"} <= reasons.keys()
    for name, value in config.option_values().items():
        if name in reasons:
            assert reasons[name].value == value
            assert reasons[name].reason


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("smollm2-135m-instruct", "smollm2-135m-instruct"),
        ("org/model", "org/model"),
        ("/models/x", "tiny"),
        ("./x", "tiny"),
        ("~/x", "tiny"),
        ("x.gguf", "tiny"),
        ("pypi:package", "tiny"),
    ],
)
def test_the_served_name_is_what_was_asked_for_unless_that_is_a_path(model, name):
    assert resolved(model=model).config.model.served_model_name == [name]


def test_wishes_are_kept():
    config = resolved(
        served_model_name=["a", "b"], dtype="bfloat16", max_model_len=64, max_num_batched_tokens=32
    ).config
    assert config.model.served_model_name == ["a", "b"]
    assert config.model.dtype == "bfloat16"
    assert config.model.max_model_len == 64
    assert config.schedule.max_num_batched_tokens == 32


@pytest.mark.parametrize(("wish", "means"), [("half", "float16"), ("float", "float32")])
def test_other_spellings_of_types(wish, means):
    assert resolved(dtype=wish).config.model.dtype == means


def test_the_other_engine_s_name_for_our_models():
    result = resolved(model_impl="vllm")
    assert result.config.model.model_impl == "octavo"
    assert any(reason.option == "model_impl" for reason in result.reasons)
    assert resolved(model_impl="transformers").config.model.model_impl == "transformers"


def test_a_gpu_computes_as_stored_or_bfloat16():
    assert resolved(CUDA).config.model.dtype == "bfloat16"
    half = dataclasses.replace(CHECKPOINT, stored_dtype="float16")
    assert resolved(CUDA, half).config.model.dtype == "float16"
    packed = dataclasses.replace(CHECKPOINT, stored_dtype="Q4_1")
    assert resolved(CUDA, packed).config.model.dtype == "bfloat16"


@pytest.mark.parametrize("name", ["Gemma2ForCausalLM", "Gemma3ForCausalLM", "Gemma3TextModel"])
def test_gemmas_never_compute_in_float16_unasked(name):
    """The 270M answers with NaN in it."""
    half = dataclasses.replace(CHECKPOINT, architecture=name, stored_dtype="float16")
    assert resolved(CUDA, half).config.model.dtype == "bfloat16"
    assert resolved(OLD_GPU, half).config.model.dtype == "float32"
    assert resolved(CPU, half).config.model.dtype == "float32"
    assert resolved(CUDA, half, dtype="float16").config.model.dtype == "float16"


def test_without_chunks_the_budget_holds_a_whole_prompt():
    assert resolved(enable_chunked_prefill=False).config.schedule.max_num_batched_tokens == 2048


@pytest.mark.parametrize(
    "options",
    [
        {"trust_remote_code": True},
        {"max_model_len": 1},
        {"max_model_len": 2049},
        {"max_num_seqs": 0},
        {"max_num_batched_tokens": 0},
        {"max_num_batched_tokens": 100, "enable_chunked_prefill": False},
        {"block_size": 12},
        {"block_size": 0},
        {"block_size": 2048},
        {"memory_utilization": 0.0},
        {"memory_utilization": 1.5},
        {"num_blocks": 1},
    ],
)
def test_wishes_that_cannot_be_met_are_refused_by_name(options):
    with pytest.raises(ConfigError) as caught:
        resolved(**options)
    assert caught.value.param == next(iter(options))


@given(
    max_model_len=st.none() | st.integers(2, 2048),
    max_num_seqs=st.integers(1, 4096),
    budget=st.none() | st.integers(1, 10_000),
    is_cpu=st.booleans(),
)
def test_resolving_twice_changes_nothing(max_model_len, max_num_seqs, budget, is_cpu):
    device = CPU if is_cpu else CUDA
    options = {"max_model_len": max_model_len, "max_num_seqs": max_num_seqs, "max_num_batched_tokens": budget}
    once = resolved(device, **options).config
    assert resolve(once, CHECKPOINT, device).config == once
    assert once.schedule.max_num_batched_tokens >= 1


OLD_GPU = DeviceFacts(kind="cuda", has_fast_bfloat16=False, name="Tesla T4")


def test_a_gpu_runs_more_at_once_and_never_waits_for_the_host():
    on_gpu, on_cpu = resolved(device=CUDA).config, resolved(device=CPU).config
    assert (on_gpu.model.device, on_cpu.model.device) == ("cuda", "cpu")
    assert (on_gpu.schedule.max_num_seqs, on_cpu.schedule.max_num_seqs) == (1024, 64)
    assert (on_gpu.schedule.async_scheduling, on_cpu.schedule.async_scheduling) == (True, False)
    assert on_gpu.schedule.max_num_batched_tokens == 8192


def test_the_cpu_can_be_asked_for_beside_a_gpu():
    asked = resolve(EngineConfig.from_options({"device": "cpu"}), CHECKPOINT, CUDA).config
    assert (asked.model.device, asked.model.dtype, asked.schedule.max_num_seqs) == ("cpu", "float32", 64)


def test_a_gpu_that_is_not_there_is_refused_with_the_reason():
    with pytest.raises(ConfigError, match="no GPU was found") as caught:
        resolve(EngineConfig.from_options({"device": "cuda"}), CHECKPOINT, CPU)
    assert caught.value.param == "device"


def test_deterministic_is_a_mode_of_gpus():
    assert resolved(device=CUDA, deterministic=True).config.model.deterministic
    with pytest.raises(ConfigError, match="GPUs only"):
        resolved(device=CPU, deterministic=True)


def test_flash_attn_is_for_gpus_that_need_not_be_deterministic():
    assert resolved(device=CUDA, chunk_attention="flash-attn").config.model.chunk_attention == "flash-attn"
    with pytest.raises(ConfigError, match="runs on the CPU"):
        resolved(device=CPU, chunk_attention="flash-attn")
    with pytest.raises(ConfigError, match="Octavo's own kernels"):
        resolved(device=CUDA, chunk_attention="flash-attn", deterministic=True)


def test_a_gpu_without_bfloat16_computes_float16():
    assert resolved(device=OLD_GPU).config.model.dtype == "float16"
    with pytest.raises(ConfigError, match=r"Tesla T4 does not compute\. Use float16 or float32"):
        resolved(device=OLD_GPU, dtype="bfloat16")
    assert resolved(device=OLD_GPU, dtype="float32").config.model.dtype == "float32"


def embedder(pooling=PoolingType.MEAN, is_encoder=True, can_write=False):
    facts = PoolingFacts(
        task="embed",
        pooling=pooling,
        why_pooling="for a test",
        num_outputs=8,
        is_encoder=is_encoder,
        max_tokens=256,
    )
    return dataclasses.replace(CHECKPOINT, pooling=facts, can_write=can_write)


def test_an_encoder_is_told_what_it_can_change_where_texts_do_not_fit_a_step():
    with pytest.raises(ConfigError, match=r"computes texts whole\. Raise the budget or lower max_model_len"):
        resolved(checkpoint=embedder(), max_num_batched_tokens=64)


def test_an_encoder_takes_whole_texts_and_keeps_nothing():
    result = resolved(checkpoint=embedder())
    config = result.config
    assert (config.model.runner, config.model.pooling_type) == ("pooling", "mean")
    assert (config.model.max_model_len, config.cache.enable_prefix_caching) == (256, False)
    assert not config.schedule.enable_chunked_prefill
    assert config.schedule.max_num_batched_tokens >= config.model.max_model_len
    reasons = {reason.option: reason.reason for reason in result.reasons}
    assert "keeps nothing" in reasons["enable_prefix_caching"]
    assert "sees all others" in reasons["enable_chunked_prefill"]
    with pytest.raises(ConfigError, match="keeps nothing"):
        resolved(checkpoint=embedder(), enable_prefix_caching=True)


@pytest.mark.parametrize(("pooling", "caches"), [(PoolingType.LAST, True), (PoolingType.MEAN, False)])
def test_a_decoder_that_is_pooled_may_use_its_cache(pooling, caches):
    config = resolved(checkpoint=embedder(pooling, is_encoder=False, can_write=True)).config
    assert config.schedule.enable_chunked_prefill
    assert config.cache.enable_prefix_caching is caches


def test_a_model_that_cannot_write_is_not_made_to():
    with pytest.raises(ConfigError, match=r"runner is generate, but [A-Za-z]+ does not write"):
        resolved(checkpoint=embedder(), runner="generate")
    assert resolved().config.model.runner == "generate"


RECURRENT = dataclasses.replace(CHECKPOINT, state_bytes=100 * 2**20)


def test_prefixes_are_not_cached_where_a_model_keeps_recurrent_state():
    result = resolved(checkpoint=RECURRENT)
    assert result.config.cache.enable_prefix_caching is False
    reason = next(r.reason for r in result.reasons if r.option == "enable_prefix_caching")
    assert "recurrent state" in reason
    assert resolved(checkpoint=RECURRENT, enable_prefix_caching=False).config == result.config
    with pytest.raises(ConfigError, match=r"keeps recurrent state, .*Leave it out"):
        resolved(checkpoint=RECURRENT, enable_prefix_caching=True)
    assert resolved().config.cache.enable_prefix_caching is True
    assert resolved(enable_prefix_caching=False).config.cache.enable_prefix_caching is False


@pytest.mark.parametrize(("device", "seqs"), [(CPU, 64), (CUDA, 81)])
def test_recurrent_state_bounds_how_many_run(device, seqs):
    """8 GiB of 100 MiB each; a wish is a wish."""
    result = resolved(device, RECURRENT)
    assert result.config.schedule.max_num_seqs == seqs
    if device is CUDA:
        reason = next(r.reason for r in result.reasons if r.option == "max_num_seqs")
        assert "100.0 MiB of recurrent state" in reason
    assert resolved(device, RECURRENT, max_num_seqs=500).config.schedule.max_num_seqs == 500


GGUF = dataclasses.replace(CHECKPOINT, stored_dtype="Q4_1")
CPU_WITH_KERNELS = dataclasses.replace(CPU, kernels="avx2", num_cores=3)


def packing(device=CPU_WITH_KERNELS, checkpoint=GGUF, **options):
    result = resolved(device, checkpoint, **options)
    (reason,) = [reason.reason for reason in result.reasons if reason.option == "packed_weights"]
    return result.config.model.packed_weights, reason


def test_packed_weights_are_the_default_where_they_can_be():
    assert packing() == (True, "Q4_1 file; the avx2 kernels compute with it packed")
    assert resolved(CPU_WITH_KERNELS, GGUF).config.model.dtype == "float32"
    assert resolved(CPU_WITH_KERNELS, GGUF).config.model.cpu_threads == 3
    is_packed, why = packing(dtype="float32")
    assert not is_packed and "dtype float32 was asked for" in why
    is_packed, why = packing(checkpoint=CHECKPOINT)
    assert not is_packed and "plain bfloat16" in why
    is_packed, why = packing(device=CPU)
    assert not is_packed and "kernels were compiled" in why
    is_packed, why = packing(device=CUDA)
    assert not is_packed and "GPU" in why


def test_a_wish_for_packed_weights_is_met_or_refused():
    for checkpoint in (GGUF, CHECKPOINT):
        assert resolved(CPU_WITH_KERNELS, checkpoint, packed_weights=True).config.model.packed_weights
    assert not resolved(CPU_WITH_KERNELS, GGUF, packed_weights=False).config.model.packed_weights
    for device, options in ((CPU, {}), (CUDA, {}), (CPU_WITH_KERNELS, {"dtype": "bfloat16"})):
        with pytest.raises(ConfigError, match="packed_weights is on, but") as caught:
            resolved(device, GGUF, packed_weights=True, **options)
        assert caught.value.param == "packed_weights"


def kept(device=CPU_WITH_KERNELS, checkpoint=GGUF, **options):
    """In which numbers keys and values are kept, and why."""
    result = resolved(device, checkpoint, **options)
    reasons = [reason.reason for reason in result.reasons if reason.option == "kv_cache_dtype"]
    return result.config.cache.kv_cache_dtype, (reasons or [""])[-1]


def test_keys_and_values_are_halved_beside_packed_weights_alone():
    dtype, why = kept()
    assert dtype == "float16" and "half of float32's bytes" in why
    assert kept(dtype="float32") == ("float32", "as the model computes")
    assert kept(checkpoint=CHECKPOINT, packed_weights=True)[0] == "float32"
    assert kept(device=CPU)[0] == "float32"
    assert kept(device=CUDA, checkpoint=CHECKPOINT)[0] == "bfloat16"
    assert kept(checkpoint=CHECKPOINT, dtype="bfloat16")[0] == "float32"


@pytest.mark.parametrize("wish", ["float32", "bfloat16", "float16", "int8"])
def test_a_wish_for_other_keys_and_values_is_met_or_refused(wish):
    assert kept(kv_cache_dtype=wish)[0] == wish
    assert kept(checkpoint=CHECKPOINT, packed_weights=True, kv_cache_dtype=wish)[0] == wish
    for device, checkpoint, options in (
        (CPU, GGUF, {"dtype": "float32"}),
        (CUDA, GGUF, {"dtype": "bfloat16"}),
        (CPU_WITH_KERNELS, dataclasses.replace(CHECKPOINT, architecture="XForCausalLM"), {}),
    ):
        if wish == options.get("dtype", "float32"):
            assert kept(device, checkpoint, kv_cache_dtype=wish, **options)[0] == wish
            continue
        with pytest.raises(
            ConfigError, match=f"kv_cache_dtype is {wish} and the model computes in"
        ) as caught:
            kept(device, checkpoint, kv_cache_dtype=wish, **options)
        assert caught.value.param == "kv_cache_dtype"


def test_other_spellings_of_kv_dtypes():
    for spelling, name in (
        ("half", "float16"),
        ("fp16", "float16"),
        ("bf16", "bfloat16"),
        ("fp32", "float32"),
    ):
        assert kept(kv_cache_dtype=spelling) == (name, f"another spelling of {spelling}")
    with pytest.raises(ConfigError, match="kv_cache_dtype must be one of"):
        kept(kv_cache_dtype="fp8")


def test_native_kernels_are_the_default_where_they_can_be():
    def kernels(device=CPU_WITH_KERNELS, checkpoint=CHECKPOINT, **options):
        result = resolved(device, checkpoint, **options)
        (why,) = [reason.reason for reason in result.reasons if reason.option == "native_kernels"]
        return result.config.model.native_kernels, why

    for options in ({}, {"dtype": "bfloat16"}, {"checkpoint": GGUF, "dtype": "float32"}):
        assert kernels(**options)[0]
    assert kernels(device=CPU) == (False, why_no_kernels())
    assert kernels(device=CUDA) == (False, "this engine runs on a GPU")
    assert kernels(checkpoint=dataclasses.replace(CHECKPOINT, architecture="XForCausalLM")) == (
        False,
        "torch computes XForCausalLM",
    )
    assert not kernels(model_impl="transformers")[0]


def test_a_wish_for_native_kernels_is_met_or_refused():
    assert resolved(CPU_WITH_KERNELS, GGUF, native_kernels=False).config.model.packed_weights is False
    assert not resolved(CPU_WITH_KERNELS, GGUF, native_kernels=False).config.model.native_kernels
    for device in (CPU, CUDA):
        with pytest.raises(ConfigError, match="native_kernels is on, but") as caught:
            resolved(device, CHECKPOINT, native_kernels=True)
        assert caught.value.param == "native_kernels"


def test_a_narrow_dtype_on_a_cpu_is_explained():
    reasons = resolved(CPU_WITH_KERNELS, CHECKPOINT, dtype="bfloat16").reasons
    (why,) = [reason.reason for reason in reasons if reason.option == "dtype"]
    assert "weights are kept in it; the kernels compute in float32" in why


def test_there_is_at_least_one_thread():
    for wrong in (0, 10**6):  # of so many the system starts only some, and then ends the process
        with pytest.raises(ConfigError, match=f"cpu_threads is {wrong}; 1 to 1024"):
            resolved(CPU_WITH_KERNELS, GGUF, cpu_threads=wrong)
    assert resolved(CPU_WITH_KERNELS, GGUF, cpu_threads=7).config.model.cpu_threads == 7


@pytest.mark.parametrize(
    ("options", "has_walls", "policy"),
    [
        ({}, False, "fcfs"),
        ({"api_key": ["sk-a", "sk-b"]}, False, "fcfs"),
        ({"api_key_file": "keys.toml"}, True, "fair"),
        ({"api_key_file": "keys.toml", "separate_prefix_caches": False}, False, "fair"),
        ({"api_key_file": "keys.toml", "scheduling_policy": "fcfs"}, True, "fcfs"),
    ],
)
def test_keys_with_names_have_caches_and_turns_of_their_own(options, has_walls, policy):
    result = resolved(**options)
    assert result.config.server.separate_prefix_caches is has_walls
    assert result.config.schedule.scheduling_policy == policy
    chosen = {reason.option: reason.reason for reason in result.reasons}
    for name in {"separate_prefix_caches", "scheduling_policy"} - options.keys():
        assert "names" in chosen[name]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"long_prefill_token_threshold": -3}, "is -3; at least 0"),
        ({"long_prefill_token_threshold": 4, "enable_chunked_prefill": False}, "chunked prefill is off"),
    ],
)
def test_chunks_that_cannot_be(options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        resolved(max_num_batched_tokens=2048, **options)
    assert caught.value.param == "long_prefill_token_threshold"


def test_a_negative_number_of_logprobs_is_none_that_a_request_could_ask_for():
    with pytest.raises(ConfigError, match="max_logprobs is -1; at least 0"):
        resolved(max_logprobs=-1)
    assert resolved(max_logprobs=0).config.model.max_logprobs == 0


def test_a_cache_size_that_is_none():
    with pytest.raises(ConfigError, match="kv_cache_memory_bytes is -4; over 0"):
        resolved(kv_cache_memory_bytes=-4)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("shutdown_timeout", float("nan")),
        ("shutdown_timeout", -1.0),
        ("max_body_bytes", -1),
        ("max_file_bytes", -1),
        ("max_stored_bytes", -1),
        ("max_prompts", 0),
    ],
)
def test_a_server_that_would_refuse_everything(name, wrong):
    with pytest.raises(ConfigError, match=f"{name} is {wrong}; at least") as caught:
        resolved(**{name: wrong})
    assert caught.value.param == name


def test_places_of_a_cache_are_numbered_in_32_bits():
    for wrong in (1, 2**28, 2**63):
        with pytest.raises(ConfigError, match=f"num_blocks is {wrong}; 2 to {2**27 - 1}"):
            resolved(num_blocks=wrong, block_size=16)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"pooling_type": "mean"}, "pooling_type"),
        ({"num_blocks": 9, "kv_cache_memory_bytes": 10**9}, "kv_cache_memory_bytes"),
        ({"tokenizer": "elsewhere", "skip_tokenizer_init": True}, "tokenizer"),
        ({"chat_template": "{{ messages }}", "skip_tokenizer_init": True}, "chat_template"),
        ({"device": CUDA, "cpu_threads": 2}, "cpu_threads"),
    ],
)
def test_a_wish_that_nobody_would_follow_is_refused(options, param):
    with pytest.raises(ConfigError) as caught:
        resolved(**options)
    assert caught.value.param == param


def test_transformers_computes_no_encoder():
    with pytest.raises(ConfigError, match="model_impl is transformers"):
        resolved(checkpoint=embedder(), model_impl="transformers")
