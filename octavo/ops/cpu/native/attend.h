// Attention of a few queries over the pages of one sequence and one KV head.
//
// Scores first, for all keys a lane each (keys lie with tokens side by side), then softmax, then values.
// Queries share the reading of keys and values and nothing else: a query's result depends on itself and the
// keys it sees, in every bit.
#pragma once
#include "kernels.h"
#include "kv.h"
#include "rows.h"

namespace octavo {
namespace OCTAVO_ISA {

constexpr int TOGETHER = LANES == 16 ? 12 : 4;  // queries whose sums fit the registers

// The block to fetch while this key's is computed with: blocks lie anywhere, so the processor does not guess.
static inline int32_t block_ahead(const int32_t* table, int key, int last, int size) {
    constexpr int BLOCKS = 2;
    const int ahead = key / size + BLOCKS, most = (last - 1) / size;
    return table[ahead < most ? ahead : most];
}

static inline Floats capped(Floats score, float cap) {
    return cap > 0 ? all(cap) * hyperbolic_tangent(score / all(cap)) : score;
}

// Scores of keys first to last: scores[g * stride + key - first], and whatever up to a vector behind them.
template <class Kv, int G>
static void score_keys(const Heads& h, const Pages& pages, const Query* queries, int k, const int32_t* table, int first,
                       int last, float* scores, int stride) {
    const int D = h.head_dim, in_pairs = D / 2 * 2, size = pages.block_size;
    const float* q[G];
    for (int g = 0; g < G; ++g) q[g] = queries[g].q;
    for (int key = first; key < last;) {
        const int offset = key % size, stop = size - offset < last - key ? size : offset + last - key;
        const int end = key + stop - offset;
        const KvHead<Kv> keys = head_of<Kv>(pages.keys, pages, table[key / size], k, D);
        const KvHead<Kv> next = head_of<Kv>(pages.keys, pages, block_ahead(table, key, last, size), k, D);
        float* to = scores + key - first - offset;
        int n = offset;
        // A vector ends with its block, not with the keys: what it reads behind them touches no other lane.
        for (; n < stop && n + LANES <= size; n += LANES) {
            // Two sums each: one alone would wait for itself.
            Floats even[G] = {}, odd[G] = {};
            for (int d = 0; d < in_pairs; d += 2) {
                const Floats column = Kv::read(keys.numbers + d * size + n);
                const Floats other = Kv::read(keys.numbers + (d + 1) * size + n);
                __builtin_prefetch(next.numbers + d * size + n);
                if (sizeof(typename Kv::Number) == 4) __builtin_prefetch(next.numbers + (d + 1) * size + n);
                OCTAVO_UNROLL
                for (int g = 0; g < G; ++g) {
                    even[g] = fma(column, all(q[g][d]), even[g]);
                    odd[g] = fma(other, all(q[g][d + 1]), odd[g]);
                }
            }
            if (in_pairs < D) {
                const Floats column = Kv::read(keys.numbers + in_pairs * size + n);
                OCTAVO_UNROLL
                for (int g = 0; g < G; ++g) even[g] = fma(column, all(q[g][in_pairs]), even[g]);
            }
            Floats scale = all(h.scale);
            if (Kv::HAS_SCALES) scale *= load<Floats>(keys.scales + n);
            for (int g = 0; g < G; ++g) store(to + g * stride + n, capped((even[g] + odd[g]) * scale, h.soft_cap));
        }
        for (; n < stop; ++n)
            for (int g = 0; g < G; ++g) {
                Floats even = {}, odd = {};  // the same steps as above give the same bits
                for (int d = 0; d < in_pairs; d += 2) {
                    even = fma(all(Kv::one(keys.numbers[d * size + n])), all(q[g][d]), even);
                    odd = fma(all(Kv::one(keys.numbers[(d + 1) * size + n])), all(q[g][d + 1]), odd);
                }
                if (in_pairs < D)
                    even = fma(all(Kv::one(keys.numbers[in_pairs * size + n])), all(q[g][in_pairs]), even);
                const float scale = Kv::HAS_SCALES ? h.scale * keys.scales[n] : h.scale;
                to[g * stride + n] = capped((even + odd) * all(scale), h.soft_cap)[0];
            }
        key = end;
    }
}

static inline Floats to_bfloat16(Floats v) { return (Floats)(bfloat16_bits(v) & all(int32_t(0xffff0000))); }

// Linear biases (ops/paged_plain.py) onto the scores of the keys that a query sees. Numbers after them, up to a whole
// vector, are lost.
static void add_biases(const Heads& h, const Query& query, float* scores) {
    const int own = query.length - 1, count = query.length - query.first;
    const Floats slope = all(query.slope);
    Ints key = all(query.first);
    for (int lane = 0; lane < LANES; ++lane) key[lane] += lane;
    if (!h.rounds_biases) {
        for (int i = 0; i < count; i += LANES, key += LANES)
            store(scores + i, fma(slope, to_float(key - own), load<Floats>(scores + i)));
        return;
    }
    const Floats own_bias = to_bfloat16(slope * to_bfloat16(all(float(own))));
    for (int i = 0; i < count; i += LANES, key += LANES) {
        const Floats bias = to_bfloat16(slope * to_bfloat16(to_float(key))) - own_bias;
        store(scores + i, fma(bias, all(h.scale), load<Floats>(scores + i)));
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

// Weights of keys first to last times the scales of their values.
template <class Kv>
static void scale_weights(const Pages& pages, int D, int k, const int32_t* table, int first, int last, float* weights) {
    const int size = pages.block_size;
    for (int key = first; key < last;) {
        const int offset = key % size, count = size - offset < last - key ? size - offset : last - key;
        const float* scales = head_of<Kv>(pages.values, pages, table[key / size], k, D).scales + offset;
        for (int i = 0; i < count; ++i) weights[key - first + i] *= scales[i];
        key += count;
    }
}

template <class Kv, int G, int WIDE>
static void weigh_part(const Pages& pages, int D, const Query* queries, int k, const int32_t* table, int first,
                       int last, const float* weights, int stride, int d) {
    const int size = pages.block_size;
    Floats acc[G][WIDE] = {};
    for (int key = first; key < last;) {
        const int offset = key % size, end = size - offset < last - key ? key + size - offset : last;
        const auto* value = head_of<Kv>(pages.values, pages, table[key / size], k, D).numbers + offset * D + d;
        const auto* next = head_of<Kv>(pages.values, pages, block_ahead(table, key, last, size), k, D).numbers + d;
        for (; key < end; ++key, value += D, next += D)
            OCTAVO_UNROLL
            for (int v = 0; v < WIDE; ++v) {
                if (v * LANES * sizeof(*value) % 64 == 0) __builtin_prefetch(next + v * LANES);
                const Floats part = Kv::read(value + v * LANES);
                OCTAVO_UNROLL
                for (int g = 0; g < G; ++g) acc[g][v] = fma(part, all(weights[g * stride + key - first]), acc[g][v]);
            }
    }
    for (int g = 0; g < G; ++g)
        for (int v = 0; v < WIDE; ++v) store(queries[g].out + d + v * LANES, acc[g][v]);
}

template <class Kv, int G>
static void weigh_values(const Pages& pages, int D, const Query* queries, int k, const int32_t* table, int first,
                         int last, const float* weights, int stride) {
    constexpr int WIDE = G <= 4 ? 4 : 2;
    int d = 0;
    for (; d + WIDE * LANES <= D; d += WIDE * LANES)
        weigh_part<Kv, G, WIDE>(pages, D, queries, k, table, first, last, weights, stride, d);
    for (; d + LANES <= D; d += LANES)
        weigh_part<Kv, G, 1>(pages, D, queries, k, table, first, last, weights, stride, d);
    const int size = pages.block_size;
    for (; d < D; ++d)
        for (int g = 0; g < G; ++g) {
            float sum = 0;
            for (int key = first; key < last; ++key) {
                const auto* values = head_of<Kv>(pages.values, pages, table[key / size], k, D).numbers;
                sum += weights[g * stride + key - first] * Kv::one(values[key % size * D + d]);
            }
            queries[g].out[d] = sum;
        }
}

static inline bool is_finite(const float* x, int count) {
    Floats zero = {};
    for (int i = 0; i < count; i += LANES) zero += load_some(x + i, count - i) * all(0.0f);
    return sum_of(zero) == 0;
}

template <class Kv, int G>
static void attend_together(const Heads& h, const Pages& pages, const Query* queries, int k, const int32_t* table,
                            float* scores) {
    int first = queries[0].first, last = queries[0].length;
    for (int g = 1; g < G; ++g) {
        first = queries[g].first < first ? queries[g].first : first;
        last = queries[g].length > last ? queries[g].length : last;
    }
    // Scores begin where a vector does, in the same block.
    const int before = first % (pages.block_size < LANES ? pages.block_size : LANES), base = first - before;
    const int stride = score_room(last - base);
    score_keys<Kv, G>(h, pages, queries, k, table, base, last, scores, stride);
    for (int g = 0; g < G; ++g) {
        float* row = scores + g * stride;
        const int from = queries[g].first - base, to = queries[g].length - base;
        if (h.slopes) add_biases(h, queries[g], row + from);
        softmax(row + from, to - from, queries[g].sink);
        for (int i = before; i < from; ++i) row[i] = 0;
        for (int i = to; i < last - base; ++i) row[i] = 0;
        if (Kv::HAS_SCALES) scale_weights<Kv>(pages, h.head_dim, k, table, first, last, row + before);
    }
    weigh_values<Kv, G>(pages, h.head_dim, queries, k, table, first, last, scores + before, stride);
    if constexpr (G > 1) {
        // A weight of 0 does not silence a value that is not finite: who does not see it must not meet it.
        for (int g = 0; g < G; ++g) {
            const bool sees_all = queries[g].first == first && queries[g].length == last;
            if (!sees_all && !is_finite(queries[g].out, h.head_dim))
                attend_together<Kv, 1>(h, pages, queries + g, k, table, scores);
        }
    }
}

template <class Kv>
static void attend_all(const Heads& h, const Pages& pages, const Query* queries, int count, int k, const int32_t* table,
                       float* scores) {
    while (count > 0) {
        int done = count < 4 ? count : 4;
        if (TOGETHER >= 12 && count >= 6) done = count >= 12 ? 12 : count >= 8 ? 8 : 6;
        switch (done) {
            case 1: attend_together<Kv, 1>(h, pages, queries, k, table, scores); break;
            case 2: attend_together<Kv, 2>(h, pages, queries, k, table, scores); break;
            case 3: attend_together<Kv, 3>(h, pages, queries, k, table, scores); break;
            case 4: attend_together<Kv, 4>(h, pages, queries, k, table, scores); break;
            case 6: attend_together<Kv, TOGETHER >= 6 ? 6 : 4>(h, pages, queries, k, table, scores); break;
            case 8: attend_together<Kv, TOGETHER >= 8 ? 8 : 4>(h, pages, queries, k, table, scores); break;
            case 12: attend_together<Kv, TOGETHER >= 12 ? 12 : 4>(h, pages, queries, k, table, scores); break;
        }
        queries += done;
        count -= done;
    }
}

// All queries belong to one sequence and to query heads that share KV head k.
static void attend(const Heads& h, const Pages& pages, const Query* queries, int count, int k, const int32_t* table,
                   float* scores) {
    with_kind(pages, [&](auto kind) { attend_all<decltype(kind)>(h, pages, queries, count, k, table, scores); });
}

}  // namespace OCTAVO_ISA
}  // namespace octavo
