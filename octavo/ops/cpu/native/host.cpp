// What a step needs around the model: its tokens from row memory, and the best token of each row of logits.
#include <cmath>
#include <limits>

#include "kernels.h"

using namespace octavo;

namespace {

const Kernels& fastest() {
    static const Kernels* const kernels = choose_kernels(nullptr);
    return *kernels;
}

enum Count { TOKENS = 2, SEQUENCES = 4 };             // ops/step.py
enum Code : int32_t { FINE = 0, BROKEN = 1, EMPTY = 2 };  // ops/sampling/choose.py

}  // namespace

// chosen[2, S]: the lowest index of the largest of each row's V logits, and whether the row was usable.
OCTAVO_API void octavo_best_tokens(const float* logits, int64_t stride, int32_t num_rows, int32_t vocab_size,
                                   int32_t* chosen) {
    for (int s = 0; s < num_rows; ++s) {
        float value;
        const int index = fastest().best(logits + s * stride, vocab_size, &value);
        const bool is_fine = std::isfinite(value);
        chosen[s] = is_fine ? index : 0;
        const bool is_empty = value == -std::numeric_limits<float>::infinity();
        chosen[num_rows + s] = is_fine ? FINE : is_empty ? EMPTY : BROKEN;
    }
}

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
