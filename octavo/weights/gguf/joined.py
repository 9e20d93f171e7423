"""JoinedGGUF: the parts of a split model as one file. The first has the metadata, each its own tensors."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path

from octavo.base.errors import ModelFileError
from octavo.weights.gguf.part_names import part_names
from octavo.weights.gguf.reader import GGUFFile


def open_gguf(path: Path) -> GGUFFile:
    """A file, or all parts of the model that it is a part of. Raises ModelFileError."""
    names = part_names(path.name)
    missing = [name for name in names if not path.with_name(name).exists()]
    if missing:
        raise ModelFileError(
            f"{path.name!r} is one of {len(names)} parts of a model; {missing[0]!r} is not beside it. Fetch "
            "all parts into one folder."
        )
    files = [GGUFFile(path.with_name(name)) for name in names]
    for number, (name, file) in enumerate(zip(names, files, strict=True)):
        count, place = file.metadata.get("split.count", 1), file.metadata.get("split.no", 0)
        if (count or 1) != len(files) or place != number:
            raise ModelFileError(
                f"{name!r} has split.no {place} and split.count {count}, and by its name it is part "
                f"{number + 1} of {len(files)}. Parts need the names that they were made with: "
                "NAME-00001-of-00002.gguf and so on."
            )
    return files[0] if len(files) == 1 else JoinedGGUF(files)


class JoinedGGUF(GGUFFile):
    def __init__(self, parts: Sequence[GGUFFile]) -> None:
        """Raises ModelFileError where parts do not go together."""
        self._part_of = {name: part for part in parts for name in part.tensors}
        self.metadata = parts[0].metadata
        self.tensors = {name: tensor for part in parts for name, tensor in part.tensors.items()}
        total = sum(len(part.tensors) for part in parts)
        stated = self.metadata.get("split.tensors.count", total)
        if len(self.tensors) != total or stated != total:
            raise ModelFileError(
                f"The parts of the split GGUF model have {total} tensors with {len(self.tensors)} names, and "
                f"split.tensors.count is {stated}. They do not belong together; fetch all of them again."
            )

    def map_of(self, name: str) -> mmap.mmap:
        return self._part_of[name].map_of(name)
