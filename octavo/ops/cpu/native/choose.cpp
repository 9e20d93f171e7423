// Which compiled kernels this processor runs.
#include <cstring>

#include "kernels.h"

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
#elif defined(__aarch64__)
OCTAVO_DECLARE(neon)
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace octavo {

namespace {

struct Choice {
    const Kernels* kernels;
    bool runs;
};

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
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    const Choice choices[] = {{&avx512vnni::kernels, avx512 && __builtin_cpu_supports("avx512vnni")},
                              {&avx512::kernels, avx512},
#if defined(OCTAVO_HAS_AVXVNNI)
                              {&avxvnni::kernels, avx2 && __builtin_cpu_supports("avxvnni")},
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
