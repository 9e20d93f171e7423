"""Philox against the published vectors, and the uniforms made from it."""

import numpy
import pytest
import torch

from octavo.ops.sampling.random import ROUNDS, XTC_COINS, philox, round_keys, uniforms

KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(counter, key, expected):
    keys = round_keys(key[0] | key[1] << 32)
    assert philox(*counter, keys) == expected


def test_all_vectors_at_once_as_tensors_and_as_arrays():
    counters = torch.tensor([c for c, _, _ in KNOWN]).unbind(1)
    keys = torch.tensor([round_keys(k[0] | k[1] << 32) for _, k, _ in KNOWN])
    expected = torch.tensor([e for _, _, e in KNOWN])
    assert torch.equal(torch.stack(philox(*counters, list(keys.unbind(1))), 1), expected)
    arrays = philox(*(c.numpy() for c in counters), list(keys.numpy().T))
    assert numpy.array_equal(numpy.stack(arrays, 1), expected.numpy())


def test_negative_and_unsigned_forms_of_a_key_are_the_same():
    assert round_keys(-1) == round_keys(2**64 - 1)
    assert round_keys(-(2**63)) == round_keys(2**63)
    assert len(round_keys(5)) == 2 * ROUNDS
    assert all(0 <= word < 2**32 for word in round_keys(2**64 - 1))


def test_uniforms_depend_on_key_and_position_alone():
    keys = torch.tensor([round_keys(k) for k in (7, 7, 8, 2**40 + 7)])
    position = torch.tensor([3, 4, 3, 3])
    together = uniforms(position, keys)
    assert len(set(together.tolist())) == 4
    for i in range(4):
        assert uniforms(position[i : i + 1], keys[i : i + 1]).item() == together[i].item()


def test_uniforms_on_other_devices_take_the_same_arithmetic():
    """The tensor path, which the CPU itself does not use, word by word."""
    keys = torch.tensor([round_keys(k) for k in range(50)])
    position = torch.arange(50) * 97 + 2**33
    zero = torch.zeros(50, dtype=torch.int64)
    w0, w1, _, _ = philox(position & 0xFFFFFFFF, position >> 32, zero, zero, list(keys.unbind(1)))
    expected = ((w0 >> 5).double() * 2.0**26 + (w1 >> 6).double()) * 2.0**-53
    assert torch.equal(uniforms(position, keys), expected)


def test_uniforms_are_uniform():
    count, bins = 200_000, 100
    u = uniforms(torch.arange(count), torch.tensor([round_keys(12345)]).expand(count, -1))
    assert u.min() >= 0.0
    assert u.max() < 1.0
    expected = count / bins
    chi_square = ((torch.histc(u, bins, 0, 1) - expected) ** 2 / expected).sum().item()
    assert 58 < chi_square < 149  # 99 degrees of freedom: p = 0.0005 on either side
    lag = torch.corrcoef(torch.stack((u[:-1], u[1:])))[0, 1].abs().item()
    assert lag < 4 / count**0.5


def test_streams_of_one_key_have_nothing_to_do_with_each_other():
    position, keys = torch.arange(50_000), torch.tensor([round_keys(77)]).expand(50_000, -1)
    tokens, coins = uniforms(position, keys), uniforms(position, keys, XTC_COINS)
    assert not (tokens == coins).any()
    assert torch.corrcoef(torch.stack((tokens, coins)))[0, 1].abs() < 4 / 50_000**0.5
