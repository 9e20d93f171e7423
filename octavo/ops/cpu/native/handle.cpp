// Opening and closing the library.
#include "engine.h"

using namespace octavo;

// Rises with every change of the interface: Python refuses a library that was built from other sources.
OCTAVO_API int32_t octavo_version() { return 11; }

// The name of the kernels that this processor runs best; null if it does not run those called `wish`.
OCTAVO_API const char* octavo_kernels(const char* wish) {
    const Kernels* kernels = choose_kernels(wish);
    return kernels ? kernels->name : nullptr;
}

// Threads with kernels; `wish` may be null. Null where this processor does not run them.
OCTAVO_API Engine* octavo_open(int32_t num_threads, const char* wish) {
    const Kernels* kernels = choose_kernels(wish);
    return kernels ? new Engine(kernels, num_threads) : nullptr;
}

// Those that compute: fewer than were asked for where the system let no more start.
OCTAVO_API int32_t octavo_num_threads(const Engine* engine) { return engine->team.size(); }

OCTAVO_API void octavo_close(Engine* engine) { delete engine; }
