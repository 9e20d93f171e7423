import dataclasses

import pytest

from octavo.base.errors import ConfigError
from octavo.config.root import EngineConfig, iter_options


def test_every_option_is_documented_and_unique():
    seen = set()
    for spec in iter_options():
        assert spec.help.strip(), spec.name
        for name in spec.names:
            assert name not in seen, f"{name} is spelled by two options"
            seen.add(name)


def test_every_default_passes_its_own_check():
    for spec in iter_options():
        assert spec.check(spec.default) == spec.default


def test_from_options_reaches_the_right_groups():
    config = EngineConfig.from_options({"max-num-seqs": 3, "gpu_memory_utilization": 1, "port": 1})
    assert config.schedule.max_num_seqs == 3
    assert config.cache.memory_utilization == 1.0
    assert config.server.port == 1
    assert config.model == EngineConfig().model


def test_option_values_is_the_way_back():
    config = EngineConfig.from_options({"max_num_seqs": 3, "api_key": ["a"]})
    assert EngineConfig.from_options(config.option_values()) == config


def test_one_string_is_a_list_of_one():
    assert EngineConfig.from_options({"api_key": "k"}).server.api_key == ["k"]


def test_lists_are_not_shared_between_configs():
    assert EngineConfig().server.api_key is not EngineConfig().server.api_key


def test_groups_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        EngineConfig().cache.block_size = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_num_seq": 1}, "Did you mean max_num_seqs"),
        ({"zzz": 1}, "no option 'zzz'"),
        ({"port": "1"}, "port must be of type int"),
        ({"port": True}, "port must be of type int"),
        ({"port": None}, "port must be of type int"),
        ({"port": 1.5}, "port must be of type int"),
        ({"seed": 2**64}, "seed is 18446744073709551616, a number of more than 64 bits"),
        ({"enable_prefix_caching": 1}, "must be of type bool"),
        ({"api_key": [1]}, "must be of type list"),
        ({"dtype": "int8"}, "dtype must be one of auto"),
    ],
)
def test_wrong_options_are_refused(given, message):
    with pytest.raises(ConfigError, match=message) as caught:
        EngineConfig.from_options(given)
    assert caught.value.param == next(iter(given))
