"""Models from the Hugging Face hub: which files of a repository are needed, and where they lie afterwards.

Files stay in the hub's own cache, shared with other tools. Weights that could run code are never fetched.
"""

from __future__ import annotations

import fnmatch
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from octavo.base.errors import ModelFileError
from octavo.weights.gguf.part_names import model_names, part_names
from octavo.weights.module_folders import TRANSFORMER
from octavo.weights.sources.progress import Progress

log = logging.getLogger(__name__)

_WANTED = (
    "*.safetensors",
    "*.json",
    "*.jinja",
    "*.model",
    "*.txt",
)
_WANTED_BELOW = ("additional_chat_templates/*.jinja", "[0-9]_*/config.json", "[0-9]_*/model.safetensors")
"""The latter two: modules of sentence-transformers, such as 1_Pooling and 2_Dense."""
_PICKLES = ("*.bin", "*.pt", "*.pth")
_NAME = r"[A-Za-z0-9][\w.-]*"
_REFERENCE = re.compile(rf"(?P<repo>{_NAME}/{_NAME})(?::(?P<quant>[\w.-]+)|/(?P<file>[\w./-]+\.gguf))?")


class HubUnreachable(ModelFileError):
    """The hub does not answer; what is cached may still do."""


@dataclass(frozen=True, kw_only=True)
class HubReference:
    """org/name, org/name:QUANT or org/name/file.gguf."""

    repo: str
    quant: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        return self.repo + (f":{self.quant}" if self.quant else f"/{self.file}" if self.file else "")


class Hub(Protocol):
    """What we need of the hub; the real one is `HuggingFaceHub`."""

    def list_files(self, repo: str, revision: str | None) -> Mapping[str, int]:
        """Names and sizes of a repository's files. Raises ModelFileError, HubUnreachable."""

    def download(
        self,
        repo: str,
        revision: str | None,
        files: Mapping[str, int],
        cache: Path | None,
        progress: Progress,
    ) -> Path:
        """Bring these files into the cache and return their folder."""

    def cached_folder(self, repo: str, revision: str | None, cache: Path | None) -> Path | None:
        """Folder of a repository in the cache, complete or not. No network."""


def parse_reference(model: str) -> HubReference | None:
    """Read a name as the hub would, None if it cannot be one."""
    match = _REFERENCE.fullmatch(model)
    if match is None or ".." in model:
        return None
    return HubReference(repo=match["repo"], quant=match["quant"], file=match["file"])


def find_cached(reference: HubReference, revision: str | None, cache: Path | None, hub: Hub) -> Path | None:
    """Return the model if the cache has all of it. No network."""
    folder = hub.cached_folder(reference.repo, revision, cache)
    if folder is None:
        return None
    files = {
        str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()
    }
    try:
        chosen = choose_files(reference, files)
    except ModelFileError:
        return None
    if not chosen.is_folder:
        return folder / chosen.main
    return folder if _has_all_shards(folder, files) else None


def _has_all_shards(folder: Path, files: Mapping[str, int]) -> bool:
    """Shards tell their number in their name: ...-00001-of-00003.safetensors."""
    for name in files:
        match = re.fullmatch(r"(.*)-\d{5}-of-(\d{5})\.safetensors", name)
        if match is not None:
            count = int(match[2])
            names = (f"{match[1]}-{index:05d}-of-{match[2]}.safetensors" for index in range(1, count + 1))
            return all((folder / shard).is_file() for shard in names)
    return True


def fetch_from_hub(
    reference: HubReference,
    revision: str | None,
    cache: Path | None,
    progress: Progress,
    *,
    offline: bool,
    hub: Hub,
) -> Path:
    """Return the local folder or file of a repository's model. Raises ModelFileError."""
    if offline:
        found = find_cached(reference, revision, cache, hub)
        if found is None:
            raise ModelFileError(
                f"{reference.repo!r} is not completely in the local cache and downloading is switched off "
                "(OCTAVO_OFFLINE or HF_HUB_OFFLINE). Fetch it once with the network on: "
                f"octavo pull {reference}"
            )
        return found
    try:
        files = hub.list_files(reference.repo, revision)
    except HubUnreachable:
        found = find_cached(reference, revision, cache, hub)
        if found is None:
            raise
        log.warning("The hub does not answer; using %s as it is in the local cache.", reference.repo)
        return found
    chosen = choose_files(reference, files)
    folder = hub.download(reference.repo, revision, chosen.files, cache, progress)
    return folder if chosen.is_folder else folder / chosen.main


@dataclass(frozen=True, kw_only=True)
class ChosenFiles:
    """What to fetch: one GGUF file, or the files of a checkpoint folder."""

    files: Mapping[str, int]
    main: str
    is_folder: bool


def choose_files(reference: HubReference, files: Mapping[str, int]) -> ChosenFiles:
    """Pick what a model needs out of a repository. Raises ModelFileError saying what there is."""
    ggufs = model_names(files)
    if reference.file is not None or reference.quant is not None:
        return _with_parts(_named_gguf(reference, ggufs), files)
    place = _place(files)
    folder = _folder_files(files, place)
    if f"{place}config.json" in folder and any(name.endswith(".safetensors") for name in folder):
        return ChosenFiles(files=folder, main=f"{place}config.json", is_folder=True)
    if len(ggufs) == 1:
        return _with_parts(ggufs[0], files)
    if ggufs:
        raise ModelFileError(
            f"{reference.repo!r} holds several GGUF files: {_listing(ggufs)}. Name one, for example "
            f"{reference.repo}/{ggufs[0]} or {reference.repo}:Q4_K_M."
        )
    if any(fnmatch.fnmatchcase(name, pattern) for name in files for pattern in _PICKLES):
        raise ModelFileError(
            f"{reference.repo!r} has its weights only as pickle files, which can run code and are never "
            "loaded. "
            "Use a repository with safetensors or GGUF files."
        )
    raise ModelFileError(
        f"{reference.repo!r} holds no model: no safetensors with a config.json, no GGUF file."
    )


def _with_parts(first: str, files: Mapping[str, int]) -> ChosenFiles:
    names = part_names(first)
    missing = [name for name in names if name not in files]
    if missing:
        raise ModelFileError(f"The model has {len(names)} parts, and {missing[0]!r} is not there.")
    return ChosenFiles(files={name: files[name] for name in names}, main=first, is_folder=False)


def _place(files: Mapping[str, int]) -> str:
    """What the names of the model's own files begin with."""
    is_below = "config.json" not in files and f"{TRANSFORMER}/config.json" in files
    return f"{TRANSFORMER}/" if is_below else ""


def _folder_files(files: Mapping[str, int], place: str) -> dict[str, int]:
    has_model = any(fnmatch.fnmatchcase(name, "model*.safetensors") for name in files if "/" not in name)
    wanted = {}
    for name, size in files.items():
        patterns = _WANTED if "/" not in name.removeprefix(place) else _WANTED_BELOW
        is_second_copy = has_model and name.startswith("consolidated")
        if not is_second_copy and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            wanted[name] = size
    return wanted


def _named_gguf(reference: HubReference, ggufs: list[str]) -> str:
    if reference.file is not None:
        found = [name for name in ggufs if name == part_names(reference.file)[0]]
        what = reference.file
    else:
        assert reference.quant is not None, "called only for a named file or a named quantisation"
        word = re.compile(rf"(?i)(?:^|[-._/]){re.escape(reference.quant)}(?:[-._]|$)")
        found = [name for name in ggufs if word.search(name)]
        what = f"GGUF file of {reference.quant}"
    if len(found) == 1:
        return found[0]
    if found:
        raise ModelFileError(
            f"{reference.repo!r} has several files for {reference.quant}: {_listing(found)}. Name one "
            f"exactly: {reference.repo}/{found[0]}."
        )
    raise ModelFileError(f"{reference.repo!r} has no {what}. GGUF files in it: {_listing(ggufs) or 'none'}.")


def _listing(names: list[str]) -> str:
    shown = ", ".join(names[:20])
    return shown if len(names) <= 20 else f"{shown} and {len(names) - 20} more"
