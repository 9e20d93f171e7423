"""Groups, page sizes, block counts and the longest request."""

from __future__ import annotations

import pytest

from octavo.base.errors import ConfigError
from octavo.core.kv.group import make_group
from octavo.core.kv.plan import max_request_tokens, plan_kv
from octavo.executor.fake import FULL, sliding
from octavo.messages.kv import KVKind, KVSpec


def plan(layers: list[KVSpec], **options: int | None):
    return plan_kv(
        layers, **{"block_size": 4, "num_blocks": 20, "available_bytes": 0, "useful_tokens": 0, **options}
    )


def test_equal_layers_are_one_group() -> None:
    made = plan([FULL] * 5)
    assert [group.layers for group in made.groups] == [[0, 1, 2, 3, 4]]
    assert made.num_tensors == 5 and made.page_bytes == 4 * FULL.bytes_per_token


def test_kinds_are_cut_to_the_rarest() -> None:
    local = sliding(8)
    made = plan([local, local, FULL, local, local, FULL, local])
    assert [(group.spec.window, group.layers) for group in made.groups] == [
        (8, [0, 1]), (8, [3, 4]), (8, [6]), (None, [2, 5]),
    ]  # fmt: skip
    assert made.num_tensors == 2


def test_blocks_follow_memory_but_not_beyond_use() -> None:
    block_bytes = 2 * 4 * FULL.bytes_per_token
    assert (
        plan([FULL] * 2, num_blocks=None, available_bytes=10 * block_bytes + 1, useful_tokens=999).num_blocks
        == 10
    )
    assert plan([FULL] * 2, num_blocks=None, available_bytes=10**9, useful_tokens=17).num_blocks == 6


@pytest.mark.parametrize(("num_blocks", "available"), [(1, 0), (None, 31), (None, -5)])
def test_too_little_memory_is_refused(num_blocks: int | None, available: int) -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        plan([FULL], num_blocks=num_blocks, available_bytes=available, useful_tokens=100)


def test_no_room_names_what_takes_it():
    with pytest.raises(ConfigError, match=r"may take 0 bytes.* lower max_num_seqs or max_num_batched_tokens"):
        plan_kv([FULL], block_size=4, num_blocks=None, available_bytes=0, useful_tokens=100)


def test_unequal_pages_are_refused() -> None:
    wide = KVSpec(kind=KVKind.FULL, num_kv_heads=2, head_dim=1, dtype_bytes=2)
    with pytest.raises(ConfigError, match="4 to 8 bytes"):
        plan([FULL, wide])


def test_a_model_that_keeps_nothing_has_no_groups_and_no_bounds() -> None:
    nothing = plan([])
    assert (nothing.groups, nothing.num_tensors, nothing.block_bytes) == ([], 0, 0)
    assert max_request_tokens(nothing, max_model_len=512, max_step_tokens=None) == 512


def test_a_latent_row_is_kept_once() -> None:
    latent = KVSpec(kind=KVKind.LATENT, num_kv_heads=1, head_dim=576, value_dim=512, dtype_bytes=2)
    assert latent.bytes_per_token == 1152
    made = plan([latent] * 27, block_size=16)
    assert made.page_bytes == 16 * 1152 and len(made.groups) == 1
    group = make_group(made.groups[0], 16)
    assert group.first_needed(1000) == 0, "every row is needed to the end"
    assert max_request_tokens(made, max_model_len=1000, max_step_tokens=8) == 19 * 16


def test_longest_request() -> None:
    assert max_request_tokens(plan([FULL]), max_model_len=1000, max_step_tokens=8) == 19 * 4
    assert max_request_tokens(plan([FULL]), max_model_len=50, max_step_tokens=8) == 50
    window = plan([sliding(8)], num_blocks=6)
    assert max_request_tokens(window, max_model_len=1000, max_step_tokens=8) == 1000
    assert max_request_tokens(window, max_model_len=1000, max_step_tokens=64) == 20
    assert max_request_tokens(window, max_model_len=1000, max_step_tokens=None) == 20
    mixed = plan([FULL, sliding(8)], num_blocks=21)
    assert max_request_tokens(mixed, max_model_len=1000, max_step_tokens=1) == (20 - 3) * 4
