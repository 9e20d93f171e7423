import pytest

from octavo.base.errors import ConfigError
from octavo.cli.bench.datasets import add_dataset_arguments, make_requests
from octavo.config.flags import FlagParser


def requests(*words, as_words=False):
    parser = FlagParser("test", "test")
    add_dataset_arguments(parser, num_prompts=20)
    return make_requests(parser.parse(words), as_words=as_words)


def test_random_has_exact_lengths_and_repeats_by_seed():
    made = requests("--random-input-len", "11", "--random-output-len", "3")
    assert len(made) == 20
    assert all(len(request.prompt) == 11 and request.max_tokens == 3 for request in made)
    assert all(100 <= token < 8000 for request in made for token in request.prompt)
    assert made == requests("--random-input-len", "11", "--random-output-len", "3")
    assert made != requests("--random-input-len", "11", "--random-output-len", "3", "--seed", "1")


def test_random_range():
    lengths = [
        len(request.prompt) for request in requests("--random-range-ratio", "0.5", "--num-prompts", "200")
    ]
    assert min(lengths) >= 64
    assert max(lengths) <= 192
    assert len(set(lengths)) > 20


def test_words_for_chat():
    prompt = requests("--random-input-len", "11", as_words=True)[0].prompt
    assert isinstance(prompt, str)
    assert len(prompt.split()) == 11


def test_shared_prefixes():
    made = requests(
        "--dataset-name",
        "prefix_repetition",
        "--prefix-len",
        "30",
        "--num-prefixes",
        "4",
        "--suffix-len",
        "5",
    )
    prefixes = {tuple(request.prompt[:30]) for request in made}
    assert len(prefixes) == 4
    assert len({tuple(request.prompt) for request in made}) == 20
    assert all(len(request.prompt) == 35 for request in made)


def test_custom_lines(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(
        '{"prompt": "hello", "output_len": 5}\n\n{"prompt": [1, 2], "extra": true}\n'
        '{"messages": [{"role": "user", "content": "hi"}], "output_tokens": 6}\n'
    )
    made = requests("--dataset-name", "custom", "--dataset-path", str(path), "--num-prompts", "4")
    assert [request.max_tokens for request in made] == [5, 256, 6, 5]
    assert made[0].prompt == "hello"
    assert made[1].prompt == [1, 2]
    assert made[2].prompt == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1"),
        ('{"prompt": 5}', "line 1"),
        ("{}", "either prompt or messages"),
        ("", "has no lines"),
        ('{"prompt": "\xff"}', "line 1"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    path = tmp_path / "data.jsonl"
    path.write_bytes(line.encode("latin-1"))
    with pytest.raises(ConfigError, match=message):
        requests("--dataset-name", "custom", "--dataset-path", str(path))


@pytest.mark.parametrize(
    "words",
    [
        ["--num-prompts", "0"],
        ["--random-input-len", "0"],
        ["--random-range-ratio", "2"],
        ["--random-vocab-size", "50"],
        ["--dataset-name", "custom"],
        ["--dataset-name", "custom", "--dataset-path", "/does/not/exist"],
        ["--dataset-name", "sharegpt"],
        ["--dataset-path", "prompts.jsonl"],
    ],
)
def test_bad_flags_are_refused(words):
    with pytest.raises(ConfigError):
        requests(*words)
