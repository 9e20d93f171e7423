import argparse

import pytest

from octavo.base.errors import ConfigError
from octavo.config.flags import (
    FlagParser,
    add_config_options,
    config_from,
    given_options,
    parse_int,
    read_config_file,
)
from octavo.config.root import EngineConfig, iter_options


def parse(*words, groups=None):
    parser = FlagParser("octavo test", "A test.")
    add_config_options(parser, groups)
    return parser.parse(words)


def options(*words):
    return given_options(parse(*words))


def test_nothing_given_is_nothing():
    assert options() == {}
    assert config_from(parse()) == EngineConfig()


def test_every_option_with_a_flag_can_be_given():
    samples = {
        "int": ("7", 7), "float": ("0.5", 0.5), "str": ("word", "word"), "list[str]": ("a", ["a"]),
        "dict[str, Any]": ('{"a": [1]}', {"a": [1]}),
    }  # fmt: skip
    for spec in iter_options():
        if not spec.flag:
            continue
        base = spec.type.removesuffix(" | None")
        text, value = samples.get(base, (None, None))
        if spec.choices:
            text = value = spec.choices[-1]
        for name in spec.names:
            flag = "--" + name.replace("_", "-")
            if base == "bool":
                assert options(flag) == {spec.name: True}
                assert options("--no-" + flag[2:]) == {spec.name: False}
            else:
                given = options(flag, text) if base != "list[str]" else options("m", flag, text)
                assert given[spec.name] == value, flag
                EngineConfig.from_options(given)


@pytest.mark.parametrize("words", [["m"], ["--model", "m"], ["--model=m"], ["m", "--model", "m"]])
def test_model_positional_or_flag(words):
    assert options(*words) == {"model": "m"}


def test_two_different_models_are_refused():
    with pytest.raises(ConfigError, match="given twice"):
        options("a", "--model", "b")


def test_aliases_and_underscores_are_the_same_option():
    for flag in ("--memory-utilization", "--gpu-memory-utilization", "--gpu_memory_utilization"):
        assert options(flag, "0.5") == {"memory_utilization": 0.5}
        assert options(f"{flag}=0.5") == {"memory_utilization": 0.5}


def test_underscores_in_values_stay():
    assert options("--served-model-name=my_model", "--model", "a_b") == {
        "served_model_name": ["my_model"],
        "model": "a_b",
    }


@pytest.mark.parametrize("text", ["[1]", "{", "word"])
def test_what_is_no_json_object_is_refused(text):
    with pytest.raises(ConfigError, match="JSON object"):
        options("m", "--hf-overrides", text)


def test_lists_repeat_and_take_several():
    given = options("m", "--api-key", "a", "--api-key", "b", "c")
    assert given["api_key"] == ["a", "b", "c"]


def test_a_list_that_may_have_swallowed_the_model_is_refused():
    with pytest.raises(ConfigError, match="Put MODEL before --api-key"):
        options("--api-key", "secret", "my-model")


def test_auto_spells_none():
    assert options("--max-model-len", "auto") == {"max_model_len": None}


@pytest.mark.parametrize(
    ("text", "value"), [("8", 8), ("4k", 4000), ("4K", 4096), ("1.5k", 1500), ("2G", 2**31), ("-1", -1)]
)
def test_whole_numbers_may_have_a_suffix(text, value):
    assert parse_int(text) == value


@pytest.mark.parametrize("text", ["", "x", "1.5", "0.0001k", "4kk", "1e3", "nan"])
def test_not_whole_numbers(text):
    with pytest.raises(argparse.ArgumentTypeError, match="whole number"):
        parse_int(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-num-seq", "8"], "Did you mean --max-num-seqs"),
        (["--port", "x"], "--port: must be a whole number"),
        (["--dtype", "int8"], "must be one of auto, float32"),
        (["--port"], "--port: expected one argument"),
        (["m", "extra"], "unexpected argument 'extra'"),
        (["--memory-utilization", "much"], "must be a number"),
    ],
)
def test_errors_name_the_flag(words, message):
    with pytest.raises(ConfigError) as caught:
        parse(*words)
    assert message in str(caught.value)
    assert "octavo test --help" in str(caught.value)


def test_only_the_named_groups():
    with pytest.raises(ConfigError, match="no option --port"):
        parse("--port", "1", groups=("model",))


def test_help_has_groups_and_defaults(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    text = capsys.readouterr().out
    for heading in ("model:", "cache:", "schedule:", "server:", "observe:"):
        assert f"\n{heading}" in text
    assert "(default: 8000)" in text
    assert "(default: on)" in text


@pytest.fixture
def write(tmp_path):
    def write_file(text):
        path = tmp_path / "octavo.yaml"
        path.write_text(text)
        return path

    return write_file


def test_file_then_command_line(write):
    path = write("max-num-seqs: 8\nport: 9000\ngpu_memory_utilization: 1\napi_key: [a, b]\n")
    assert options("--config", str(path), "--port", "1234") == {
        "max_num_seqs": 8,
        "port": 1234,
        "memory_utilization": 1.0,
        "api_key": ["a", "b"],
    }


def test_auto_undoes_the_file_s_choice(write):
    path = write("pooling-type: mean\n")
    assert options("--config", str(path), "--pooling-type", "auto") == {"pooling_type": None}
    with pytest.raises(ConfigError, match="--pooling-type: must be one of cls, last, mean, not 'first'"):
        options("--pooling-type", "first")


def test_empty_file(write):
    assert read_config_file(write("# nothing\n")) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max-num-seq: 8", "Did you mean max_num_seqs"),
        ("- a\n- b", "holds a list"),
        ("just words", "holds a str"),
        ("port: [1]", "port must be of type int"),
        ("port: {a: 1}", "port must be of type int"),
        ("port: '8000'", "port must be of type int"),
        ("dtype: int8", "dtype must be one of"),
        ("port: 1\nport: 2", "given twice"),
        ("max-num-seqs: 1\nmax_num_seqs: 2", "given twice"),
        ("gpu-memory-utilization: 0.5\nmemory_utilization: 0.6", "given twice"),
        ("a: [", "not valid YAML"),
        ("a: !!python/object/apply:os.system [ls]", "not valid YAML"),
        ("1: 2", "no option 1"),
        ("[a, b]: 1", "not valid YAML"),
        ("hf_overrides: {{a: 1}: 2}", "not valid YAML"),
    ],
)
def test_bad_files_are_refused_by_name(write, text, message):
    with pytest.raises(ConfigError) as caught:
        read_config_file(write(text))
    assert message in str(caught.value)
    assert "octavo.yaml" in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="Cannot read config file"):
        options("--config", str(tmp_path / "none.yaml"))


def test_anchors_work(write):
    assert read_config_file(write("max-num-seqs: &n 8\nport: *n\n")) == {"max_num_seqs": 8, "port": 8}
