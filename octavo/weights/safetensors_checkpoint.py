"""SafetensorsCheckpoint: a Hugging Face model folder, in one file or in shards."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from octavo.base.errors import ModelFileError
from octavo.base.files import confined, has_file, read_small
from octavo.tokens.source import TokenizerSource
from octavo.weights.config_json import read_config, read_generation_config, text_config
from octavo.weights.fp8_blocks import find_scaled
from octavo.weights.module_folders import transformer_folder
from octavo.weights.mxfp4 import find_packed
from octavo.weights.pickled import refuse_pickles_in
from octavo.weights.safetensors import SafetensorsFile, StoredTensor
from octavo.weights.shapes import check_shapes
from octavo.weights.strict_json import parse_object

if TYPE_CHECKING:
    import torch

    from octavo.ops.stored import StoredMatrix
    from octavo.weights.transfer import OnProgress, Piece

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
MAX_INDEX_BYTES = 64 * 2**20
MAX_SHARDS = 4096
MAX_TENSORS = 2**19
"""In all shards together."""

PLAIN_KINDS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
"""torch's names of types, and GGUF's."""

NARROW = ("float8_e4m3fn", "float8_e5m2", "int8", "uint8")
SCALE_ENDS = ("_scale", "_scale_inv")

_LAYER = re.compile(r"(?:model\.|language_model\.)*layers\.([0-9]{1,6})\.", re.ASCII)


class Packed(Protocol):
    """A tensor that is made of stored ones when it is read."""

    @property
    def stored_names(self) -> tuple[str, ...]:
        """Those it is made of."""

    @property
    def files(self) -> tuple[SafetensorsFile, ...]:
        """Where these lie."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    kind: ClassVar[str]
    """What `matrix` is packed as, by GGUF's name; F32 where it gives none."""

    def load(self, dtype: torch.dtype | None) -> torch.Tensor: ...

    def matrix(self, *, is_turned: bool) -> StoredMatrix | None:
        """As Checkpoint.stored_matrix."""

    def pieces(self, target: torch.Tensor, descriptors: Mapping[SafetensorsFile, int]) -> Iterator[Piece]:
        """As SafetensorsFile.pieces; all files are open until these are done."""


QUANTIZATIONS: Mapping[
    str, Callable[[Mapping[str, SafetensorsFile], Mapping[str, Any]], Mapping[str, Packed]]
] = {"mxfp4": lambda files, _: find_packed(files), "fp8": find_scaled}
"""Those that are read here: what they hold is dequantised at load."""


class SafetensorsCheckpoint:
    """Weights of a model folder as read-only views of the mapped files; dequantised where they are packed."""

    format = "safetensors"

    def __init__(self, path: Path) -> None:
        """Check config and all headers. Raises ModelFileError."""
        self.path = path
        self.name = folder_name(path)
        self._folder = transformer_folder(path)
        self._files = _open_files(self._folder)
        self.config: dict[str, Any] = read_config(self._folder)
        self.generation_config: dict[str, Any] = read_generation_config(self._folder)
        self._packed = _packed_tensors(self.config, self._files)
        halves = {name for packed in self._packed.values() for name in packed.stored_names}
        self._names = [*(name for name in self._files if name not in halves), *self._packed]
        _refuse_unexplained(self._files, halves)
        _check_layers(self.config, self._files)
        check_shapes(self.config, self._names, self.shape)
        self.stored_dtype = _main_dtype(self._files, self._packed)

    def tensor_names(self) -> list[str]:
        return list(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        packed = self._packed.get(name)
        return self._stored(name).shape if packed is None else packed.shape

    def load(self, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return a CPU tensor: a read-only view where the file already has `dtype`, else a converted copy."""
        packed = self._packed.get(name)
        if packed is not None:
            return packed.load(dtype)
        self._stored(name)
        tensor = self._files[name].load(name)
        return tensor if dtype is None else tensor.to(dtype)

    def stored_kind(self, name: str) -> str:
        if name in self._packed:
            return self._packed[name].kind
        return PLAIN_KINDS.get(self._stored(name).dtype, "F32")

    def stored_matrix(self, name: str, *, is_turned: bool = False) -> StoredMatrix | None:
        """Of plain numbers that native kernels know, and of what is packed in a way that they know."""
        import torch

        from octavo.ops.stored import StoredMatrix

        if name in self._packed:
            return self._packed[name].matrix(is_turned=is_turned)
        if is_turned or self._stored(name).dtype not in PLAIN_KINDS:
            return None
        rows = self._files[name].load(name).flatten(0, -2)
        return StoredMatrix(
            kind=self.stored_kind(name),
            columns=rows.shape[1],
            data=rows.view(torch.uint8).numpy(),
            release=partial(self._files[name].forget, name),
        )

    def upload(
        self, targets: Sequence[tuple[str, torch.Tensor]], on_progress: OnProgress | None = None
    ) -> None:
        """Read tensors from the files in threads, in the order they lie there; the device converts them."""
        from octavo.weights.transfer import transfer

        by_file: dict[SafetensorsFile, list[tuple[str, torch.Tensor]]] = {}
        packed = [(self._packed[name], target) for name, target in targets if name in self._packed]
        for name, target in targets:
            if name not in self._packed:
                self._stored(name)
                by_file.setdefault(self._files[name], []).append((name, target))
        pieces: list[Piece] = []
        with ExitStack() as stack:
            files = {*by_file, *(file for each, _ in packed for file in each.files)}
            descriptors = {file: stack.enter_context(file.opened()) for file in files}
            for file, wanted in by_file.items():
                for name, target in sorted(wanted, key=lambda item: file.tensors[item[0]].start):
                    pieces += file.pieces(name, target, descriptors[file])
            for tensor, target in packed:
                pieces += tensor.pieces(target, descriptors)
            transfer(pieces, on_progress)

    def tokenizer_source(self) -> TokenizerSource:
        return TokenizerSource(folder=self._folder)

    def close(self) -> None:
        """Let go of the files. Tensors that were loaded stay valid."""
        self._files, self._packed = {}, {}

    def _stored(self, name: str) -> StoredTensor:
        file = self._files.get(name)
        if file is None:
            raise ModelFileError(f"The checkpoint has no tensor {name!r}.")
        return file.tensors[name]


def folder_name(path: Path) -> str:
    """A short name for a model folder; for a snapshot in the Hugging Face cache that of the repository."""
    full = path.absolute()
    if full.parent.name == "snapshots" and full.parent.parent.name.startswith("models--"):
        return full.parent.parent.name.rsplit("--", 1)[-1]
    return full.name or "model"


def has_safetensors(folder: Path) -> bool:
    """Whether the folder holds weights that `SafetensorsCheckpoint` reads."""
    names = (entry.name for entry in transformer_folder(folder).iterdir())
    return any(name.endswith((".safetensors", ".safetensors.index.json")) for name in names)


def _open_files(folder: Path) -> dict[str, SafetensorsFile]:
    """Map every tensor's name to the opened file that holds it."""
    if has_file(folder, SINGLE):
        return _all_of(SafetensorsFile(confined(folder, SINGLE)))
    if has_file(folder, INDEX):
        return _open_shards(folder)
    found = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".safetensors"))
    if len(found) == 1:
        return _all_of(SafetensorsFile(confined(folder, found[0])))
    if found:
        raise ModelFileError(
            f"The folder has {len(found)} safetensors files but no {INDEX}. Fetch the model again."
        )
    refuse_pickles_in(folder)
    raise ModelFileError(f"The folder {folder.name!r} has no weights: neither {SINGLE} nor {INDEX}.")


def _all_of(file: SafetensorsFile) -> dict[str, SafetensorsFile]:
    return dict.fromkeys(file.tensors, file)


def _open_shards(folder: Path) -> dict[str, SafetensorsFile]:
    index = parse_object(read_small(confined(folder, INDEX), MAX_INDEX_BYTES), INDEX, unique_keys=True)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelFileError(f"{INDEX} has no weight_map. Fetch the model again.")
    if not all(isinstance(name, str) for name in weight_map.values()):
        raise ModelFileError(f"{INDEX} has a weight_map whose values are not all file names.")
    shard_names = sorted(set(weight_map.values()))
    if len(weight_map) > MAX_TENSORS or len(shard_names) > MAX_SHARDS:
        raise ModelFileError(
            f"{INDEX} names {len(weight_map)} tensors in {len(shard_names)} files; at most {MAX_TENSORS} in "
            f"{MAX_SHARDS} are read."
        )
    for name in shard_names:
        if not name.endswith(".safetensors"):
            raise ModelFileError(
                f"{INDEX} names the file {name[:200]!r}, which is not safetensors. Fetch the model again."
            )
    # All names are checked before the first file is touched.
    paths = {name: confined(folder, name) for name in shard_names}
    shards = {name: SafetensorsFile(path) for name, path in paths.items()}
    for tensor, shard in weight_map.items():
        if tensor not in shards[shard].tensors:
            raise ModelFileError(f"{INDEX} says that {shard!r} holds {tensor[:200]!r}, but it does not.")
    return {tensor: shards[shard] for tensor, shard in weight_map.items()}


def _packed_tensors(config: dict[str, Any], files: Mapping[str, SafetensorsFile]) -> Mapping[str, Packed]:
    """By the name that each shows. Raises ModelFileError for methods that are not read here."""
    quantization = config.get("quantization_config")
    if not quantization:
        return {}
    method = str(quantization.get("quant_method") if isinstance(quantization, dict) else quantization)
    if method not in QUANTIZATIONS or not isinstance(quantization, dict):
        raise ModelFileError(
            f"The checkpoint is quantised ({method[:40]}); of safetensors only "
            f"{' and '.join(QUANTIZATIONS)} are read. Use the unquantised model or its GGUF."
        )
    return QUANTIZATIONS[method](files, quantization)


def _refuse_unexplained(files: Mapping[str, SafetensorsFile], explained: Collection[str]) -> None:
    """Numbers of 8 bits with scales of which no quantization_config speaks (ModelOpt has its own file)."""
    for name, file in files.items():
        is_narrow = file.tensors[name].dtype in NARROW and name not in explained
        scales = next((name + end for end in SCALE_ENDS if name + end in files), None)
        if is_narrow and scales is not None:
            raise ModelFileError(
                f"The checkpoint is quantised: {name!r} is in {file.tensors[name].dtype} and has {scales!r}, "
                "but its config has no quantization_config that says how to read them. Use the unquantised "
                "model or its GGUF."
            )


def _check_layers(config: dict[str, Any], names: dict[str, SafetensorsFile]) -> None:
    """A config may not ask for more layers than there are (files may hold extra ones, for drafting)."""
    stated = text_config(config).get("num_hidden_layers")
    present = {int(match[1]) for name in names if (match := _LAYER.match(name))}
    if stated is not None and present and len(present) < stated:
        raise ModelFileError(
            f"The config's num_hidden_layers is {stated}, but the files hold {len(present)} layers."
        )


def _main_dtype(files: Mapping[str, SafetensorsFile], packed: Mapping[str, Packed]) -> str:
    """The type that holds most bytes, of those that may be computed with as they are; all others become
    float32.
    """
    kinds = {name: each.kind for each in packed.values() for name in each.stored_names}
    sizes: dict[str, int] = {}
    for name, file in files.items():
        tensor = file.tensors[name]
        kind = kinds.get(name, tensor.dtype if tensor.dtype in PLAIN_KINDS else "float32")
        if kind != "F32":
            sizes[kind] = sizes.get(kind, 0) + tensor.num_bytes
    return max(sizes, key=lambda name: sizes[name], default="float32")
