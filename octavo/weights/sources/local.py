"""Models that are already on this machine: folders and .gguf files named by their path."""

from __future__ import annotations

from pathlib import Path

from octavo.base.errors import ModelFileError
from octavo.weights.gguf.part_names import model_names
from octavo.weights.module_folders import transformer_folder
from octavo.weights.pickled import refuse_pickle

_MAGIC = b"GGUF"


def looks_like_path(model: str) -> bool:
    """Whether a name can only mean a path, so that a missing file is reported as such."""
    return model.startswith(("/", "./", "../", "~")) or model in (".", "..") or Path(model).is_absolute()


def check_local(path: Path) -> Path:
    """Return the folder or .gguf file to load. Raises ModelFileError saying what a model needs."""
    if path.is_dir():
        return _check_folder(path)
    if not path.exists():
        raise ModelFileError(
            f"There is no file or folder {str(path)!r}. Give a folder with config.json and safetensors "
            "files, a "
            ".gguf file, a repository id (org/name) or an alias."
        )
    if not path.is_file():
        raise ModelFileError(f"{str(path)!r} is neither a folder nor a regular file.")
    if _starts_like_gguf(path):
        return path
    if path.suffix == ".gguf":
        raise ModelFileError(f"{path.name} is not a GGUF file: it does not start with GGUF. Get it again.")
    if path.suffix in (".safetensors", ".json"):
        raise ModelFileError(f"{path.name} is a part of a checkpoint. Give the folder it lies in.")
    refuse_pickle(path)
    raise ModelFileError(
        f"{path.name} is not a model. Give a .gguf file or a folder with config.json and safetensors files."
    )


def _starts_like_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _check_folder(folder: Path) -> Path:
    if (transformer_folder(folder) / "config.json").is_file():
        return folder
    files = model_names(file.name for file in folder.glob("*.gguf") if file.is_file())
    if len(files) == 1:
        return check_local(folder / files[0])
    if files:
        names = ", ".join(files)
        raise ModelFileError(
            f"The folder {str(folder)!r} holds several GGUF files: {names}. Name one of them."
        )
    raise ModelFileError(
        f"The folder {str(folder)!r} holds no model: neither a config.json nor a .gguf file. Give a folder "
        "as it is "
        "on the hub, with config.json, safetensors files and tokenizer.json."
    )
