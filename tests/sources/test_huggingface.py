"""The real hub client, without a hub: its cache's layout and what its errors mean."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from huggingface_hub import errors
from wheels import Recorder

from octavo.weights.sources import huggingface
from octavo.weights.sources.hub import HubUnreachable
from octavo.weights.sources.huggingface import HuggingFaceHub

REQUEST = httpx.Request("GET", "http://hub.invalid/x")


def answer(status: int) -> httpx.Response:
    return httpx.Response(status, request=REQUEST)


@pytest.mark.parametrize(
    ("error", "is_unreachable", "message"),
    [
        (errors.GatedRepoError("x", response=answer(403)), False, "is gated. Accept its terms"),
        (errors.RepositoryNotFoundError("x", response=answer(404)), False, "no model 'o/n'"),
        (errors.RevisionNotFoundError("x", response=answer(404)), False, "no revision 'v1'"),
        (errors.HfHubHTTPError("x", response=answer(410)), False, "HTTP 410"),
        (errors.HfHubHTTPError("x", response=answer(503)), True, "HTTP 503"),
        (errors.HfHubHTTPError("x", response=answer(429)), True, "HTTP 429"),
        (httpx.ConnectError("x"), True, "cannot be reached"),
        (httpx.ReadTimeout("x"), True, "cannot be reached"),
        (errors.OfflineModeIsEnabled("x"), True, "cannot be reached"),
        (OSError(28, "No space left on device"), False, "No space left"),
        (KeyError("surprise"), False, "KeyError"),
    ],
)
def test_errors_say_what_to_do(
    monkeypatch: pytest.MonkeyPatch, error: Exception, is_unreachable: bool, message: str
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", fail)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    translated = huggingface._translate(error, "o/n", "v1")
    assert message in translated.message
    assert isinstance(translated, HubUnreachable) == is_unreachable
    hub, progress = HuggingFaceHub(), Recorder()
    with pytest.raises(type(translated)):
        hub.list_files("o/n", "v1")
    with pytest.raises(type(translated)):
        hub.download("o/n", "v1", {"a": 1}, None, progress)
    assert progress.open == 0


def test_the_cache_is_found_by_its_layout(tmp_path: Path) -> None:
    root = tmp_path / "models--o--n"
    commit = "a" * 40
    (root / "snapshots" / commit).mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(commit)
    hub = HuggingFaceHub()
    assert hub.cached_folder("o/n", None, tmp_path) == root / "snapshots" / commit
    assert hub.cached_folder("o/n", commit, tmp_path) == root / "snapshots" / commit
    assert hub.cached_folder("o/n", "other", tmp_path) is None
    assert hub.cached_folder("o/other", None, tmp_path) is None


def test_bytes_reach_the_progress(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def download(*args: object, **options: object) -> str:
        bar_class = options["tqdm_class"]
        assert isinstance(bar_class, type)
        with bar_class(total=100, unit="B", name="x") as bar:
            bar.update(60)
            bar.update(40)
        with bar_class(total=3) as files:
            files.update(1)
        assert options["allow_patterns"] == ["a[[]1].json"]
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    progress = Recorder()
    assert HuggingFaceHub().download("o/n", None, {"a[1].json": 100}, None, progress) == tmp_path
    assert progress.num_bytes == 100
