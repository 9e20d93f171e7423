// Numbers of the KV cache: how a vector of them comes into registers, and how they are rounded to get there.
//
// A kind says the type of a number. Where HAS_SCALES, every key and every value of a head also has a scale
// of its own, and is its numbers times that.
#pragma once
#include "interface.h"
#include "simd.h"

namespace octavo {
namespace OCTAVO_ISA {

struct KvFloat32 {
    typedef float Number;
    static constexpr bool HAS_SCALES = false;
    static Floats read(const Number* from) { return load<Floats>(from); }
    static float one(Number number) { return number; }
    static void write(Floats v, Number* to) { store(to, v); }
};

// The nearest bfloat16, ties to even, in the upper halves; the lower ones are for the caller to drop.
static inline Ints bfloat16_bits(Floats v) {
    const Ints bits = (Ints)v;
    return bits + all(0x7fff) + ((bits >> 16) & all(1));
}

struct KvBFloat16 {
    typedef uint16_t Number;
    static constexpr bool HAS_SCALES = false;
    static Floats read(const Number* from) { return (Floats)(load_uint16(from) << 16); }
    static float one(Number number) {
        const uint32_t bits = uint32_t(number) << 16;
        float value;
        std::memcpy(&value, &bits, 4);
        return value;
    }
    static void write(Floats v, Number* to) {
        const Ints is_nan = v != v, rounded = bfloat16_bits(v) >> 16;
        store(to, __builtin_convertvector((is_nan & all(0x7fc0)) | (~is_nan & rounded), Shorts));
    }
};

// Numbers past 65504 become infinite, and the row that meets them fails: better than a wrong answer.
struct KvFloat16 {
    typedef uint16_t Number;
    static constexpr bool HAS_SCALES = false;
    static Floats read(const Number* from) { return load_half(from); }
    static float one(Number number) { return scalar_half(number); }
    static void write(Floats v, Number* to) { store_half(to, v); }
};

// -127 to 127.
struct KvInt8 {
    typedef int8_t Number;
    static constexpr bool HAS_SCALES = true;
    static Floats read(const Number* from) { return to_float(load_int8(from)); }
    static float one(Number number) { return number; }
    static void write(Floats v, Number* to) { store(to, __builtin_convertvector(nearest(v), NarrowInts)); }
};

// work(kind) for the kind of these pages.
template <class F>
static inline void with_kind(const Pages& pages, F work) {
    switch (pages.kind) {
        case KV_FLOAT32: work(KvFloat32{}); break;
        case KV_BFLOAT16: work(KvBFloat16{}); break;
        case KV_FLOAT16: work(KvFloat16{}); break;
        case KV_INT8: work(KvInt8{}); break;
    }
}

// The keys, or the values, of one head in one block: D * block_size numbers, then the scales of its tokens.
template <class Kv>
struct KvHead {
    typename Kv::Number* numbers;
    float* scales;
};
template <class Kv>
static inline KvHead<Kv> head_of(uint8_t* half, const Pages& pages, int64_t block, int k, int D) {
    const int64_t numbers = int64_t(D) * pages.block_size * sizeof(typename Kv::Number);
    const int64_t bytes = numbers + (Kv::HAS_SCALES ? pages.block_size * sizeof(float) : 0);
    uint8_t* at = half + block * pages.page + k * bytes;
    return {(typename Kv::Number*)at, (float*)(at + numbers)};
}

// Up to a vector of numbers; zeros behind them.
static inline Floats load_some(const float* from, int count) {
    if (count >= LANES) return load<Floats>(from);
    Floats v = {};
    for (int i = 0; i < count; ++i) v[i] = from[i];
    return v;
}

// The factor that brings D numbers into 8 bits, and the scale that brings them back: NaN if one is not finite.
static inline float rounding_factor(const float* x, int D, float* scale) {
    Floats most = {}, zero = {};
    for (int d = 0; d < D; d += LANES) {
        const Floats v = load_some(x + d, D - d);
        most = larger(most, v < Floats{} ? -v : v);
        zero += v * all(0.0f);
    }
    const float top = largest_of(most);
    *scale = top / 127.0f + sum_of(zero);
    return top > 0 ? 127.0f / top : 0.0f;
}

// x[D] into place `offset` of a head: number d at (d * apart + start).
template <class Kv>
static inline void keep(const float* x, int D, const KvHead<Kv>& head, int offset, int64_t start, int64_t apart) {
    Floats factor = all(1.0f);
    if (Kv::HAS_SCALES) factor = all(rounding_factor(x, D, head.scales + offset));
    for (int d = 0; d < D; d += LANES) {
        typename Kv::Number rounded[LANES];
        const Floats v = load_some(x + d, D - d);
        Kv::write(Kv::HAS_SCALES ? v * factor : v, rounded);
        const int count = D - d < LANES ? D - d : LANES;
        for (int i = 0; i < count; ++i) head.numbers[start + (d + i) * apart] = rounded[i];
    }
}

// One token's keys and values, [K, D] each, into their pages.
static void write_kv(const Pages& pages, const float* keys, const float* values, int num_heads, int D, int slot) {
    const int size = pages.block_size, block = slot / size, offset = slot % size;
    with_kind(pages, [&](auto kind) {
        using Kv = decltype(kind);
        for (int k = 0; k < num_heads; ++k) {
            keep<Kv>(keys + k * D, D, head_of<Kv>(pages.keys, pages, block, k, D), offset, offset, size);
            keep<Kv>(values + k * D, D, head_of<Kv>(pages.values, pages, block, k, D), offset, int64_t(offset) * D, 1);
        }
    });
}

}  // namespace OCTAVO_ISA
}  // namespace octavo
