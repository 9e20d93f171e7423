"""The gate finds what it is for, and finds nothing in what is shipped."""

from __future__ import annotations

import pytest
from static_gate import main, offences


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as p",
        "from marshal import loads",
        "import dill.session",
        "eval('1')",
        "exec(text)",
        "__import__(name)",
        "torch.load(path)",
        "from torch import load",
        "os.system('ls')",
        "subprocess.run(command, shell=True)",
        "subprocess.run(command, shell=flag)",
        "numpy.load(path, allow_pickle=True)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "assert NAME.fullmatch(name), 'ids are ours'",
        "assert isinstance(value, str)",
    ],
)
def test_offences_are_found(source: str) -> None:
    assert list(offences(source, "server"))


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "subprocess.run(command, shell=False)",
        "yaml.safe_load(text)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "assert self._folder is not None, 'it is open'",
        "assert isinstance(value, str), 'checked before'",
    ],
)
def test_what_is_fine_passes(source: str) -> None:
    assert not list(offences(source, "server"))


def test_kernels_may_check_their_own_strides() -> None:
    assert not list(offences("assert x.is_contiguous() and x.stride(1) == 1", "ops"))


def test_nothing_shipped_offends(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0, capsys.readouterr().out
