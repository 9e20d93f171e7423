// Attention of one query token over paged keys and values, for the query heads that share a KV head.
//
// Scores first, for all keys a lane each (keys lie with tokens side by side), then softmax, then values.
// A head's result depends on its own query and keys alone.
#pragma once
#include "rows.h"

namespace octavo {
namespace OCTAVO_ISA {

constexpr int MOST_HEADS = 4;  // query heads that ride along one pass over keys and values

static inline Floats capped(Floats score, float cap) {
    return cap > 0 ? all(cap) * hyperbolic_tangent(score / all(cap)) : score;
}

// Scores of keys first to last: scores[g * stride + key - first].
template <int G>
static void score_keys(const Heads& h, const Pages& pages, const float* q, int k, const int32_t* table, int first,
                       int last, float* scores, int stride) {
    const int D = h.head_dim, size = pages.block_size;
    for (int key = first; key < last;) {
        const int offset = key % size, end = size - offset < last - key ? key + size - offset : last;
        const float* keys = pages.keys + table[key / size] * pages.page + int64_t(k) * D * size + offset;
        float* to = scores + key - first;
        int n = 0;
        for (; n + LANES <= end - key; n += LANES) {
            Floats acc[G] = {};
            for (int d = 0; d < D; ++d) {
                Floats column = load<Floats>(keys + d * size + n);
                for (int g = 0; g < G; ++g) acc[g] = fma(column, all(q[g * D + d]), acc[g]);
            }
            for (int g = 0; g < G; ++g) store(to + g * stride + n, capped(acc[g] * all(h.scale), h.soft_cap));
        }
        for (; n < end - key; ++n)
            for (int g = 0; g < G; ++g) {
                Floats acc = {};  // a lane of it: the same steps as above give the same bits
                for (int d = 0; d < D; ++d) acc = fma(all(keys[d * size + n]), all(q[g * D + d]), acc);
                to[g * stride + n] = capped(acc * all(h.scale), h.soft_cap)[0];
            }
        key = end;
    }
}

// Scores to weights that sum to one; returns nothing, works in place. Padding up to a vector is overwritten.
static void softmax(float* scores, int count) {
    float most = scores[0];
    Floats top = all(most);
    int i = 0;
    for (; i + LANES <= count; i += LANES) top = larger(top, load<Floats>(scores + i));
    most = largest_of(top);
    for (; i < count; ++i) most = scores[i] > most ? scores[i] : most;
    for (i = count; i % LANES; ++i) scores[i] = -1e30f;
    Floats total = {};
    for (int j = 0; j < i; j += LANES) {
        Floats e = exponential(load<Floats>(scores + j) - all(most));
        if (j + LANES > count)
            for (int lane = count - j; lane < LANES; ++lane) e[lane] = 0;
        store(scores + j, e);
        total += e;
    }
    // A sum of zero or NaN gives NaN, as it must.
    const Floats inverse = all(1.0f / sum_of(total));
    for (int j = 0; j < i; j += LANES) store(scores + j, load<Floats>(scores + j) * inverse);
}

template <int G>
static void weigh_values(const Heads& h, const Pages& pages, int k, const int32_t* table, int first, int last,
                         const float* weights, int stride, float* out) {
    const int D = h.head_dim, size = pages.block_size;
    constexpr int WIDE = 4;  // vectors of a head at a time
    for (int d = 0; d < D; d += WIDE * LANES) {
        const int vectors = (D - d) / LANES < WIDE ? (D - d) / LANES : WIDE;
        Floats acc[G][WIDE] = {};
        float rest[G][LANES] = {};
        const int tail = vectors < WIDE ? (D - d) % LANES : 0;
        for (int key = first; key < last; ++key) {
            const float* value =
                pages.values + table[key / size] * pages.page + (int64_t(k) * size + key % size) * D + d;
            const float* w = weights + key - first;
            if (vectors == WIDE) {
                for (int v = 0; v < WIDE; ++v) {
                    Floats part = load<Floats>(value + v * LANES);
                    for (int g = 0; g < G; ++g) acc[g][v] = fma(part, all(w[g * stride]), acc[g][v]);
                }
                continue;
            }
            for (int v = 0; v < vectors; ++v) {
                Floats part = load<Floats>(value + v * LANES);
                for (int g = 0; g < G; ++g) acc[g][v] = fma(part, all(w[g * stride]), acc[g][v]);
            }
            for (int g = 0; g < G; ++g)
                for (int i = 0; i < tail; ++i) rest[g][i] += value[vectors * LANES + i] * w[g * stride];
        }
        for (int g = 0; g < G; ++g) {
            for (int v = 0; v < vectors; ++v) store(out + g * D + d + v * LANES, acc[g][v]);
            for (int i = 0; i < tail; ++i) out[g * D + d + vectors * LANES + i] = rest[g][i];
        }
    }
}

template <int G>
static void attend_heads(const Heads& h, const Pages& pages, const float* q, int k, const int32_t* table, int first,
                         int last, float* scores, float* out) {
    const int stride = (last - first + LANES - 1) / LANES * LANES;
    score_keys<G>(h, pages, q, k, table, first, last, scores, stride);
    for (int g = 0; g < G; ++g) softmax(scores + g * stride, last - first);
    weigh_values<G>(h, pages, k, table, first, last, scores, stride, out);
}

// Query heads `head` to `head + count` of a token with `length` keys (its own the last); all share a KV head.
// scores: room for MOST_HEADS * (length + 16) numbers.
static void attend(const Heads& h, const Pages& pages, const float* q_HD, int head, int count, const int32_t* table,
                   int length, float* scores, float* out_HD) {
    const int group = h.num_heads / h.num_kv_heads, k = head / group;
    const int first = h.window && length > h.window ? length - h.window : 0;
    for (int done = 0; done < count;) {
        const float* q = q_HD + int64_t(head + done) * h.head_dim;
        float* out = out_HD + int64_t(head + done) * h.head_dim;
        switch (count - done) {
            case 1: attend_heads<1>(h, pages, q, k, table, first, length, scores, out); done += 1; break;
            case 2: attend_heads<2>(h, pages, q, k, table, first, length, scores, out); done += 2; break;
            case 3: attend_heads<3>(h, pages, q, k, table, first, length, scores, out); done += 3; break;
            default: attend_heads<4>(h, pages, q, k, table, first, length, scores, out); done += 4; break;
        }
    }
}

}  // namespace OCTAVO_ISA
}  // namespace octavo
