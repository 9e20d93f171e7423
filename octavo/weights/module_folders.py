"""Folders of sentence-transformers: modules.json lists modules, each in a folder of its own or at the top."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from octavo.base.files import confined, has_file, read_small
from octavo.weights.strict_json import parse_objects

MAX_FILE_BYTES = 4 * 2**20
MODULES = "modules.json"
TRANSFORMER = "0_Transformer"
"""Where older versions of sentence-transformers put config, weights and tokenizer of the model itself."""


@dataclass(frozen=True)
class Module:
    kind: str
    """Its class, if it is sentence-transformers' own; else with the package it comes from."""
    path: str
    """Its folder's name; empty for the model folder itself."""


def read_modules(folder: Path) -> list[Module]:
    """In their order. Raises ModelFileError."""
    listed = parse_objects(read_small(confined(folder, MODULES), MAX_FILE_BYTES), MODULES)
    return [Module(_kind(str(entry.get("type", ""))), str(entry.get("path", ""))) for entry in listed]


def _kind(type_name: str) -> str:
    """One of the model's own code may do anything."""
    is_own = type_name.startswith("sentence_transformers.")
    return type_name.rpartition(".")[2] if is_own else type_name


def transformer_folder(folder: Path) -> Path:
    """Where a model folder has its config, weights and tokenizer: itself, or the folder of the first module.

    Raises ModelFileError.
    """
    if has_file(folder, "config.json") or not has_file(folder, MODULES):
        return folder
    below = [module.path for module in read_modules(folder)[:1] if module.kind == "Transformer"]
    return confined(folder, below[0]) if any(below) else folder
