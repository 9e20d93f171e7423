// What a step needs around the model: its tokens from row memory, and what was chosen back into it.
#include "interface.h"

using namespace octavo;

namespace {

enum Count { TOKENS = 2, SEQUENCES = 4 };             // ops/step.py

}  // namespace

// ops/step.py tells what this is.
OCTAVO_API void octavo_gather_step(const int32_t* memory, int64_t width, const int32_t* rows, const int32_t* starts,
                                   const int32_t* firsts, const int32_t* counts, const int64_t* table_columns,
                                   int32_t num_groups, int32_t block_size, int32_t num_places, int32_t* token_ids,
                                   int32_t* positions, int32_t* slots, int64_t slots_stride) {
    const int num_tokens = counts[TOKENS];
    for (int s = 0; s < counts[SEQUENCES]; ++s) {
        const int32_t* row = memory + rows[s] * width;
        for (int t = starts[s]; t < starts[s + 1]; ++t) {
            const int position = firsts[s] + t - starts[s];
            token_ids[t] = row[position];
            positions[t] = position;
            for (int g = 0; g < num_groups; ++g)
                slots[g * slots_stride + t] =
                    row[table_columns[g] + position / block_size] * block_size + position % block_size;
        }
    }
    for (int t = num_tokens; t < num_places; ++t) {
        token_ids[t] = positions[t] = 0;
        for (int g = 0; g < num_groups; ++g) slots[g * slots_stride + t] = -1;
    }
}

// ops/step.py tells what this is. 64-bit tokens where `is_wide`.
OCTAVO_API void octavo_append_tokens(int32_t* memory, int64_t width, const int32_t* rows, const int32_t* columns,
                                     const void* token_ids, int32_t count, int32_t is_wide) {
    for (int i = 0; i < count; ++i) {
        if (rows[i] < 0) continue;
        memory[rows[i] * width + columns[i]] =
            is_wide ? int32_t(((const int64_t*)token_ids)[i]) : ((const int32_t*)token_ids)[i];
    }
}
