// Which compiled kernels this processor runs.
#include <cstring>

#include "kernels.h"
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define OCTAVO_DECLARE(isa)           \
    namespace octavo {                \
    namespace isa {                   \
    extern const Kernels kernels;     \
    }                                 \
    }
OCTAVO_DECLARE(portable)
#if defined(__x86_64__)
OCTAVO_DECLARE(avx2)
#if defined(OCTAVO_HAS_AVXVNNI)
OCTAVO_DECLARE(avxvnni)
#endif
OCTAVO_DECLARE(avx512)
OCTAVO_DECLARE(avx512vnni)
#if defined(OCTAVO_HAS_AMX)
OCTAVO_DECLARE(amx)
#endif
#elif defined(__aarch64__)
OCTAVO_DECLARE(neon)
#endif

namespace octavo {

namespace {

struct Choice {
    const Kernels* kernels;
    bool runs;
};

#if defined(__x86_64__)
// A bit of what cpuid's leaf 7 says; the compiler's names for the newer ones are newer than the processors.
bool has(int subleaf, unsigned eax_bit, unsigned edx_bit) {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __get_cpuid_count(7, subleaf, &eax, &ebx, &ecx, &edx) && (eax & eax_bit) == eax_bit && (edx & edx_bit) == edx_bit;
}

// Conversions from and to half precision. Every processor with AVX2 has them, but a virtual machine may hide them.
bool has_half_conversions() {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & 1u << 29);
}

// The matrix unit has 8 KB of registers that a process may use once it has asked for them.
bool has_matrix_unit() {
#if defined(__linux__)
    constexpr int REQUEST = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM
    return has(0, 0, 1u << 24 | 1u << 25) && !syscall(SYS_arch_prctl, REQUEST, TILE_DATA);
#else
    return false;
#endif
}
#endif

#if defined(__aarch64__)
bool has_dot_product() {
#if defined(__linux__)
    return getauxval(AT_HWCAP) & (1u << 20);  // HWCAP_ASIMDDP
#else
    return true;  // every Apple processor
#endif
}
#endif

}  // namespace

const Kernels* choose_kernels(const char* wish) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_half_conversions();
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    const bool avx512vnni = avx512 && __builtin_cpu_supports("avx512vnni");
    const Choice choices[] = {
#if defined(OCTAVO_HAS_AMX)
                              {&amx::kernels, avx512vnni && has_matrix_unit()},
#endif
                              {&avx512vnni::kernels, avx512vnni},
                              {&avx512::kernels, avx512},
#if defined(OCTAVO_HAS_AVXVNNI)
                              {&avxvnni::kernels, avx2 && has(1, 1u << 4, 0)},
#endif
                              {&avx2::kernels, avx2},
                              {&portable::kernels, true}};
#elif defined(__aarch64__)
    const Choice choices[] = {{&neon::kernels, has_dot_product()}, {&portable::kernels, true}};
#else
    const Choice choices[] = {{&portable::kernels, true}};
#endif
    for (const Choice& choice : choices)
        if (choice.runs && (!wish || !*wish || !std::strcmp(wish, choice.kernels->name))) return choice.kernels;
    return nullptr;
}

}  // namespace octavo
