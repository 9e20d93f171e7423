"""Which kernels are chosen on processors that lack something."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

from octavo.base.native import native_kernels
from tests.ops.native_build import NATIVE, built

HIDES_HALVES = """
#include_next <cpuid.h>
static inline int without_halves(unsigned leaf, unsigned* a, unsigned* b, unsigned* c, unsigned* d) {
    const int known = __get_cpuid(leaf, a, b, c, d);
    if (leaf == 1) *c &= ~(1u << 29);
    return known;
}
#define __get_cpuid without_halves
"""
PROGRAM = """
#include <cstdio>
#include "kernels.h"
#define KERNELS(isa) \\
    namespace octavo { namespace isa { extern const Kernels kernels; const Kernels kernels{#isa}; } }
KERNELS(portable) KERNELS(avx2) KERNELS(avx512) KERNELS(avx512vnni)
int main() { std::puts(octavo::choose_kernels(nullptr)->name); }
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="about processors of this kind")
@pytest.mark.parametrize("hides", [True, False])
def test_conversions_of_halves_are_asked_for(tmp_path: Path, hides: bool) -> None:
    if hides:
        (tmp_path / "cpuid.h").write_text(HIDES_HALVES)
    source = tmp_path / "main.cpp"
    source.write_text(PROGRAM)
    program = built(
        tmp_path / "choice", "-std=c++17", f"-I{tmp_path}", f"-I{NATIVE}", source, NATIVE / "choose.cpp"
    )
    chosen = subprocess.run([program], capture_output=True, text=True, check=True).stdout.strip()
    if hides:
        assert chosen == "portable"
    elif native_kernels() in ("portable", "avx2", "avx512", "avx512vnni"):
        assert chosen == native_kernels()
