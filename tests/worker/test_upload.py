"""Values to the device and back, on a CPU; that nothing waits is tested in tests/gpu/test_sampling_gpu.py."""

from __future__ import annotations

import numpy as np
import torch

from octavo.worker.upload import Download, upload

CPU = torch.device("cpu")


def test_lists_and_arrays_become_tensors_of_the_type_asked_for() -> None:
    for values in ([[1, 2], [3, 4]], np.array([[1, 2], [3, 4]], dtype=np.int64)):
        sent = upload(values, torch.int32, CPU)
        assert sent.dtype == torch.int32 and sent.tolist() == [[1, 2], [3, 4]]
    assert upload([], torch.int64, CPU).shape == (0,)


def test_an_array_may_change_once_it_is_uploaded() -> None:
    values = np.array([1, 2], dtype=np.int64)
    sent = upload(values, torch.int64, CPU)
    values[0] = 9
    assert sent.tolist() == [1, 2]


def test_a_download_gives_back_what_was_there() -> None:
    assert Download(torch.tensor([5, 6], dtype=torch.int32)).read().tolist() == [5, 6]
