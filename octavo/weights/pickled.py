"""Weights in files that can run code when they are read. None is read; the user is told how to convert them.

The command reads with `weights_only`, which makes tensors and refuses everything else.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from octavo.base.errors import ModelFileError

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
SHARD = "pytorch_model-"
_CONVERT = (
    "import glob, torch, safetensors.torch as s; "
    "w = {k: v.clone() for f in FILES for k, v in torch.load(f, weights_only=True).items()}; "
    's.save_file(w, "model.safetensors", metadata={"format": "pt"})'
)


def refuse_pickle(path: Path) -> None:
    """Raise ModelFileError with the command that converts it, where a file's name says that it is one."""
    if path.suffix in PICKLE_SUFFIXES:
        raise ModelFileError(
            f"{path.name!r} is a pickle file or the like. {how_to_convert(path.parent, [path.name])}"
        )


def refuse_pickles_in(folder: Path) -> None:
    """The same for a folder without weights of another kind. Those with a model's usual names come first."""
    names = [entry.name for entry in folder.iterdir() if entry.name.endswith(PICKLE_SUFFIXES)]
    names.sort(key=lambda name: (not name.startswith(("pytorch_model", "model")), name))
    if names:
        raise ModelFileError(
            f"The folder {folder.name!r} has its weights only in {names[0]!r}. "
            f"{how_to_convert(folder, names)}"
        )


def how_to_convert(folder: Path, names: Sequence[str]) -> str:
    """Sentences for an error message, with the command that makes model.safetensors of the first file, or of
    all if they are shards.
    """
    is_sharded = names[0].startswith(SHARD)
    files = f'glob.glob("{SHARD}*.bin")' if is_sharded else json.dumps([names[0]])
    command = shlex.join(["python", "-c", _CONVERT.replace("FILES", files)])
    return (
        "Such files can run code when read, so Octavo reads none. This command reads only the tensors in it "
        f"and writes them as safetensors: cd {shlex.quote(str(folder.absolute()))} && {command}"
    )
