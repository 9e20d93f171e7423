"""Builds the native kernels for CPUs beside the Python code (pyproject.toml says all the rest).

Not a Python extension module but a plain shared library, opened with ctypes: one build serves every Python
and every torch. Without a compiler the install goes on and Octavo computes with torch.
"""

from __future__ import annotations

import os
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

NATIVE = Path("octavo/ops/cpu/native")
FLAGS = ["-std=c++17", "-O3", "-fvisibility=hidden", "-ffp-contract=off", "-pthread", "-g0"]
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mf16c"]
KERNELS = {
    "x86_64": {
        "avx2": AVX2,
        "avxvnni": [*AVX2, "-mavxvnni"],
        "avx512": AVX512,
        "avx512vnni": [*AVX512, "-mavx512vnni"],
        "amx": [*AVX512, "-mavx512vnni", "-mamx-tile", "-mamx-int8"],
    },
    "aarch64": {"neon": ["-march=armv8.2-a+dotprod+fp16"]},
}
"""Instruction sets by machine; kernels.cpp is compiled once for each, and once for any processor."""
RECENT = ("avxvnni", "amx")
"""Left out where the compiler does not know the flags: GCC before 11, Clang before 12."""


class BuildNative(build_ext):
    """Compiles each source with its own flags."""

    def get_ext_filename(self, fullname: str) -> str:
        return os.path.join(*fullname.split(".")) + ".so"

    def build_extension(self, ext: Extension) -> None:
        # A compiler takes up to 400 MB: no more of them than processors.
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as threads:
            objects = list(threads.map(self._compile, _units(self._known_kernels())))
        target = self.get_ext_fullpath(ext.name)
        self.compiler.link_shared_object(
            objects, target, extra_postargs=["-pthread"], target_lang="c++", build_temp=self.build_temp
        )

    def _known_kernels(self) -> dict[str, list[str]]:
        machine = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
        return {
            name: flags
            for name, flags in KERNELS.get(machine, {}).items()
            if name not in RECENT or self._knows(flags)
        }

    def _knows(self, flags: list[str]) -> bool:
        probe = Path(self.build_temp, "probe.cpp")
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        try:
            self.compiler.compile([str(probe)], output_dir=self.build_temp, extra_postargs=flags)
        except CompileError:
            return False
        return True

    def _compile(self, unit: tuple[str, Path, list[str]]) -> str:
        name, source, flags = unit
        folder = os.path.join(self.build_temp, name)  # one source, several objects
        (made,) = self.compiler.compile([str(source)], output_dir=folder, extra_postargs=[*FLAGS, *flags])
        return str(made)


def _units(kernels: dict[str, list[str]]) -> list[tuple[str, Path, list[str]]]:
    """(folder for the object, source, flags of its own)"""
    units = [
        (name, NATIVE / "kernels.cpp", [f"-DOCTAVO_ISA={name}", *flags])
        for name, flags in {"portable": [], **kernels}.items()
    ]
    others = sorted(source for source in NATIVE.glob("*.cpp") if source.name != "kernels.cpp")
    has = [f"-DOCTAVO_HAS_{name.upper()}" for name in RECENT if name in kernels]
    return units + [("all", source, has) for source in others]


extension = Extension(
    "octavo.ops.cpu.libnative",
    sources=[str(source) for source in sorted(NATIVE.glob("*.cpp"))],
    depends=[str(header) for header in sorted(NATIVE.glob("*.h"))],
    optional=True,
)
# The sources use what GCC and Clang have in common; other compilers are not tried.
setup(ext_modules=[] if sys.platform == "win32" else [extension], cmdclass={"build_ext": BuildNative})
