// Attention of a few queries over the pages of one sequence and one KV head.
//
// Scores first, for all keys a lane each (keys lie with tokens side by side), then softmax, then values.
// Queries share the reading of keys and values and nothing else: a query's result depends on itself and the
// keys it sees, in every bit.
#pragma once
#include "kernels.h"
#include "rows.h"

namespace octavo {
namespace OCTAVO_ISA {

constexpr int TOGETHER = LANES == 16 ? 12 : 4;  // queries whose sums fit the registers

static inline Floats capped(Floats score, float cap) {
    return cap > 0 ? all(cap) * hyperbolic_tangent(score / all(cap)) : score;
}

// Scores of keys first to last: scores[g * stride + key - first].
template <int G>
static void score_keys(const Heads& h, const Pages& pages, const Query* queries, int k, const int32_t* table, int first,
                       int last, float* scores, int stride) {
    const int D = h.head_dim, size = pages.block_size;
    const float* q[G];
    for (int g = 0; g < G; ++g) q[g] = queries[g].q;
    for (int key = first; key < last;) {
        const int offset = key % size, end = size - offset < last - key ? key + size - offset : last;
        const float* keys = pages.keys + table[key / size] * pages.page + int64_t(k) * D * size + offset;
        // Blocks lie anywhere, so the processor does not guess which comes next.
        const float* next = end < last ? pages.keys + table[end / size] * pages.page + int64_t(k) * D * size : keys;
        float* to = scores + key - first;
        int n = 0;
        for (; n + LANES <= end - key; n += LANES) {
            // Two sums each: one alone would wait for itself.
            Floats even[G] = {}, odd[G] = {};
            for (int d = 0; d < D; d += 2) {
                Floats column = load<Floats>(keys + d * size + n), other = load<Floats>(keys + (d + 1) * size + n);
                __builtin_prefetch(next + d * size + n);
                __builtin_prefetch(next + (d + 1) * size + n);
                OCTAVO_UNROLL
                for (int g = 0; g < G; ++g) {
                    even[g] = fma(column, all(q[g][d]), even[g]);
                    odd[g] = fma(other, all(q[g][d + 1]), odd[g]);
                }
            }
            for (int g = 0; g < G; ++g)
                store(to + g * stride + n, capped((even[g] + odd[g]) * all(h.scale), h.soft_cap));
        }
        for (; n < end - key; ++n)
            for (int g = 0; g < G; ++g) {
                Floats even = {}, odd = {};  // the same steps as above give the same bits
                for (int d = 0; d < D; d += 2) {
                    even = fma(all(keys[d * size + n]), all(q[g][d]), even);
                    odd = fma(all(keys[(d + 1) * size + n]), all(q[g][d + 1]), odd);
                }
                to[g * stride + n] = capped((even + odd) * all(h.scale), h.soft_cap)[0];
            }
        key = end;
    }
}

// Scores to weights that sum to one (with the sink's), in place. Numbers after them, up to a whole vector, are lost.
static void softmax(float* scores, int count, float sink) {
    Floats top = all(scores[0]);
    int i = 0;
    for (; i + LANES <= count; i += LANES) top = larger(top, load<Floats>(scores + i));
    float most = largest_of(top);
    most = sink > most ? sink : most;
    for (; i < count; ++i) most = scores[i] > most ? scores[i] : most;
    for (i = count; i % LANES; ++i) scores[i] = most;
    Floats total = {};
    for (int j = 0; j < i; j += LANES) {
        Floats e = exponential(load<Floats>(scores + j) - all(most));
        if (j + LANES > count)
            for (int lane = count - j; lane < LANES; ++lane) e[lane] = 0;
        store(scores + j, e);
        total += e;
    }
    const Floats inverse = all(1.0f / (sum_of(total) + scalar(exponential, sink - most)));
    for (int j = 0; j < i; j += LANES) store(scores + j, load<Floats>(scores + j) * inverse);
}

template <int G, int WIDE>
static void weigh_part(const Pages& pages, int D, const Query* queries, int k, const int32_t* table, int first,
                       int last, const float* weights, int stride, int d) {
    const int size = pages.block_size;
    Floats acc[G][WIDE] = {};
    for (int key = first; key < last;) {
        const int offset = key % size, end = size - offset < last - key ? key + size - offset : last;
        const float* value = pages.values + table[key / size] * pages.page + (int64_t(k) * size + offset) * D + d;
        const float* next = end < last ? pages.values + table[end / size] * pages.page + int64_t(k) * size * D + d : value;
        for (; key < end; ++key, value += D, next += D)
            OCTAVO_UNROLL
            for (int v = 0; v < WIDE; ++v) {
                __builtin_prefetch(next + v * LANES);
                Floats part = load<Floats>(value + v * LANES);
                OCTAVO_UNROLL
                for (int g = 0; g < G; ++g) acc[g][v] = fma(part, all(weights[g * stride + key - first]), acc[g][v]);
            }
    }
    for (int g = 0; g < G; ++g)
        for (int v = 0; v < WIDE; ++v) store(queries[g].out + d + v * LANES, acc[g][v]);
}

template <int G>
static void weigh_values(const Pages& pages, int D, const Query* queries, int k, const int32_t* table, int first,
                         int last, const float* weights, int stride) {
    constexpr int WIDE = G <= 4 ? 4 : 2;
    int d = 0;
    for (; d + WIDE * LANES <= D; d += WIDE * LANES)
        weigh_part<G, WIDE>(pages, D, queries, k, table, first, last, weights, stride, d);
    for (; d + LANES <= D; d += LANES)
        weigh_part<G, 1>(pages, D, queries, k, table, first, last, weights, stride, d);
    const int size = pages.block_size;
    for (; d < D; ++d)
        for (int g = 0; g < G; ++g) {
            float sum = 0;
            for (int key = first; key < last; ++key)
                sum += weights[g * stride + key - first] *
                       pages.values[table[key / size] * pages.page + (int64_t(k) * size + key % size) * D + d];
            queries[g].out[d] = sum;
        }
}

template <int G>
static void attend_together(const Heads& h, const Pages& pages, const Query* queries, int k, const int32_t* table,
                            float* scores) {
    int first = queries[0].first, last = queries[0].length;
    for (int g = 1; g < G; ++g) {
        first = queries[g].first < first ? queries[g].first : first;
        last = queries[g].length > last ? queries[g].length : last;
    }
    const int stride = score_room(last - first);
    score_keys<G>(h, pages, queries, k, table, first, last, scores, stride);
    for (int g = 0; g < G; ++g) {
        float* row = scores + g * stride;
        const int from = queries[g].first - first, to = queries[g].length - first;
        softmax(row + from, to - from, queries[g].sink);
        for (int i = 0; i < from; ++i) row[i] = 0;
        for (int i = to; i < last - first; ++i) row[i] = 0;
    }
    weigh_values<G>(pages, h.head_dim, queries, k, table, first, last, scores, stride);
}

// All queries belong to one sequence and to query heads that share KV head k.
static void attend(const Heads& h, const Pages& pages, const Query* queries, int count, int k, const int32_t* table,
                   float* scores) {
    while (count > 0) {
        int done = count < 4 ? count : 4;
        if (TOGETHER >= 12 && count >= 6) done = count >= 12 ? 12 : count >= 8 ? 8 : 6;
        switch (done) {
            case 1: attend_together<1>(h, pages, queries, k, table, scores); break;
            case 2: attend_together<2>(h, pages, queries, k, table, scores); break;
            case 3: attend_together<3>(h, pages, queries, k, table, scores); break;
            case 4: attend_together<4>(h, pages, queries, k, table, scores); break;
            case 6: attend_together<TOGETHER >= 6 ? 6 : 4>(h, pages, queries, k, table, scores); break;
            case 8: attend_together<TOGETHER >= 8 ? 8 : 4>(h, pages, queries, k, table, scores); break;
            case 12: attend_together<TOGETHER >= 12 ? 12 : 4>(h, pages, queries, k, table, scores); break;
        }
        queries += done;
        count -= done;
    }
}

}  // namespace OCTAVO_ISA
}  // namespace octavo
