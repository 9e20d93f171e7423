// Vectors of the instruction set that this file is compiled for. One output row per lane.
//
// Arithmetic goes through the compiler's vector types; only what these cannot say is said with
// intrinsics: the dot product of bytes, the fused multiplication and addition, and half precision.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

// Arrays of vectors stay in registers only where the loops over them are unrolled.
#define OCTAVO_UNROLL _Pragma("GCC unroll 12")
#define OCTAVO_UNROLL_16 _Pragma("GCC unroll 16")

namespace octavo {
namespace OCTAVO_ISA {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef uint8_t Bytes __attribute__((vector_size(LANES * 4)));
typedef int8_t SignedBytes __attribute__((vector_size(LANES * 4)));
typedef int32_t Ints __attribute__((vector_size(LANES * 4)));
typedef float Floats __attribute__((vector_size(LANES * 4)));
typedef int8_t NarrowInts __attribute__((vector_size(LANES)));
typedef uint16_t Shorts __attribute__((vector_size(LANES * 2)));

template <class V, class T>
static inline V load(const T* from) {
    V v;
    std::memcpy(&v, from, sizeof v);
    return v;
}
template <class V, class T>
static inline void store(T* to, V v) {
    std::memcpy(to, &v, sizeof v);
}
static inline Floats all(float value) { return value - Floats{}; }
static inline Ints all(int32_t value) { return value - Ints{}; }
static inline Bytes all_bytes(uint8_t value) { return value - Bytes{}; }
static inline Floats to_float(Ints v) { return __builtin_convertvector(v, Floats); }

static inline float scalar_half(uint16_t h) {
    uint32_t sign = uint32_t(h & 0x8000) << 16, rest = h & 0x7fff, bits;
    if (rest >= 0x7c00) bits = sign | 0x7f800000 | (rest & 0x3ff) << 13;
    else if (rest >= 0x400) bits = sign | ((rest << 13) + (112u << 23));
    else {
        float small = float(rest) * 0x1p-24f;
        std::memcpy(&bits, &small, 4);
        bits |= sign;
    }
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

// To the nearest, ties to even.
static inline uint16_t half_of(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const uint32_t sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest >= 0x7f800000) return sign | 0x7c00 | (rest > 0x7f800000 ? 0x200 : 0);
    if (rest >= 0x477ff000) return sign | 0x7c00;  // rounds to infinity
    if (rest < 0x38800000) {                       // a multiple of 2^-24
        float magnitude;
        std::memcpy(&magnitude, &rest, 4);
        return sign | uint16_t(std::nearbyintf(magnitude * 0x1p24f));
    }
    const uint32_t rounded = rest + 0xfff + (rest >> 13 & 1);
    return sign | uint16_t((rounded - (112u << 23)) >> 13);
}

#if defined(__AVX512F__)
static inline Floats fma(Floats a, Floats b, Floats c) { return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
static inline Floats load_half(const uint16_t* p) { return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
static inline Ints load_int8(const int8_t* p) { return (Ints)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)); }
static inline Ints load_uint16(const uint16_t* p) { return (Ints)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)); }
static inline void store_half(uint16_t* p, Floats v) { _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph((__m512)v, 0)); }
static inline Floats larger(Floats a, Floats b) { return (Floats)_mm512_max_ps((__m512)a, (__m512)b); }
static inline Ints nearest(Floats a) { return (Ints)_mm512_cvtps_epi32((__m512)a); }
static inline Floats root(Floats a) { return (Floats)_mm512_sqrt_ps((__m512)a); }
#elif defined(__AVX2__)
static inline Floats fma(Floats a, Floats b, Floats c) { return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
static inline Floats load_half(const uint16_t* p) { return (Floats)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }
static inline Ints load_int8(const int8_t* p) { return (Ints)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)); }
static inline Ints load_uint16(const uint16_t* p) { return (Ints)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)); }
static inline void store_half(uint16_t* p, Floats v) { _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph((__m256)v, 0)); }
static inline Floats larger(Floats a, Floats b) { return (Floats)_mm256_max_ps((__m256)a, (__m256)b); }
static inline Ints nearest(Floats a) { return (Ints)_mm256_cvtps_epi32((__m256)a); }
#elif defined(__ARM_NEON)
static inline Floats fma(Floats a, Floats b, Floats c) { return (Floats)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
static inline Floats load_half(const uint16_t* p) { return (Floats)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
static inline void store_half(uint16_t* p, Floats v) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)v))); }
static inline Floats larger(Floats a, Floats b) { return (Floats)vmaxq_f32((float32x4_t)a, (float32x4_t)b); }
static inline Ints nearest(Floats a) { return (Ints)vcvtnq_s32_f32((float32x4_t)a); }
#else
static inline Floats fma(Floats a, Floats b, Floats c) { return a * b + c; }
static inline Floats load_half(const uint16_t* p) {
    Floats v;
    for (int i = 0; i < LANES; ++i) v[i] = scalar_half(p[i]);
    return v;
}
static inline void store_half(uint16_t* p, Floats v) {
    for (int i = 0; i < LANES; ++i) p[i] = half_of(v[i]);
}
static inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }
static inline Ints nearest(Floats a) {
    Ints v;
    for (int i = 0; i < LANES; ++i) v[i] = (int32_t)std::nearbyintf(a[i]);
    return v;
}
#endif

#if !defined(__AVX2__)
static inline Ints load_int8(const int8_t* p) { return __builtin_convertvector(load<NarrowInts>(p), Ints); }
static inline Ints load_uint16(const uint16_t* p) { return __builtin_convertvector(load<Shorts>(p), Ints); }
#endif

// levels[index], for indices below 16.
static inline Bytes look_up(const uint8_t (&levels)[16], Bytes index) {
#if defined(__AVX512F__)
    const __m512i table = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)levels));
    return (Bytes)_mm512_shuffle_epi8(table, (__m512i)index);
#elif defined(__AVX2__)
    const __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)levels));
    return (Bytes)_mm256_shuffle_epi8(table, (__m256i)index);
#elif defined(__ARM_NEON)
    return (Bytes)vqtbl1q_u8(vld1q_u8(levels), (uint8x16_t)index);
#else
    for (int i = 0; i < LANES * 4; ++i) index[i] = levels[index[i]];
    return index;
#endif
}

// Across all lanes, always in the same order.
#if defined(__AVX512F__)
static inline float sum_of(Floats v) { return _mm512_reduce_add_ps((__m512)v); }
static inline int32_t sum_of(Ints v) { return _mm512_reduce_add_epi32((__m512i)v); }
static inline float largest_of(Floats v) { return _mm512_reduce_max_ps((__m512)v); }
#else
template <class V>
static inline auto sum_of(V v) {
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; ++i) v[i] += v[i + width];
    return v[0];
}
static inline float largest_of(Floats v) {
    float most = v[0];
    for (int i = 1; i < LANES; ++i) most = v[i] > most ? v[i] : most;
    return most;
}
#endif

// Bit i: lane i of a comparison was true.
static inline uint32_t bits_of(Ints truth) {
#if defined(__AVX512F__)
    return _mm512_movepi32_mask((__m512i)truth);
#elif defined(__AVX2__)
    return _mm256_movemask_ps((__m256)truth);
#else
    uint32_t bits = 0;
    for (int lane = 0; lane < LANES; ++lane) bits |= uint32_t(truth[lane] != 0) << lane;
    return bits;
#endif
}

// init + the dot products of QUADS times four weights (one row per lane) with as many inputs.
//
// w holds unsigned numbers up to MOST. Exact in 32 bits, on every instruction set.
template <int QUADS, int MOST>
static inline Ints dot(const Bytes* w, const int8_t* x, Ints init) {
#if defined(__AVX512VNNI__)
    __m512i acc = (__m512i)init;
    for (int i = 0; i < QUADS; ++i) {
        int32_t four;
        std::memcpy(&four, x + 4 * i, 4);
        acc = _mm512_dpbusd_epi32(acc, (__m512i)w[i], _mm512_set1_epi32(four));
    }
    return (Ints)acc;
#elif defined(__AVXVNNI__)
    __m256i acc = (__m256i)init;
    for (int i = 0; i < QUADS; ++i) {
        int32_t four;
        std::memcpy(&four, x + 4 * i, 4);
        acc = _mm256_dpbusd_avx_epi32(acc, (__m256i)w[i], _mm256_set1_epi32(four));
    }
    return (Ints)acc;
#elif defined(__AVX2__)
    // Sums of two products fit 16 bits; as many of them as still do are added there.
    constexpr int FIT = 32767 / (MOST * 254) > QUADS ? QUADS : 32767 / (MOST * 254);
    static_assert(FIT > 0, "weights of 8 bits go through dot_signed");
#if defined(__AVX512F__)
    __m512i acc = (__m512i)init;
    const __m512i ones = _mm512_set1_epi16(1);
    for (int i = 0; i < QUADS; i += FIT) {
        __m512i pairs = _mm512_setzero_si512();
        for (int j = i; j < i + FIT && j < QUADS; ++j) {
            int32_t four;
            std::memcpy(&four, x + 4 * j, 4);
            pairs = _mm512_add_epi16(pairs, _mm512_maddubs_epi16((__m512i)w[j], _mm512_set1_epi32(four)));
        }
        acc = _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, ones));
    }
#else
    __m256i acc = (__m256i)init;
    const __m256i ones = _mm256_set1_epi16(1);
    for (int i = 0; i < QUADS; i += FIT) {
        __m256i pairs = _mm256_setzero_si256();
        for (int j = i; j < i + FIT && j < QUADS; ++j) {
            int32_t four;
            std::memcpy(&four, x + 4 * j, 4);
            pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16((__m256i)w[j], _mm256_set1_epi32(four)));
        }
        acc = _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, ones));
    }
#endif
    return (Ints)acc;
#elif defined(__ARM_FEATURE_DOTPROD)
    int32x4_t acc = (int32x4_t)init;
    for (int i = 0; i < QUADS; ++i) {
        int32_t four;
        std::memcpy(&four, x + 4 * i, 4);
        acc = vdotq_s32(acc, (int8x16_t)w[i], (int8x16_t)vdupq_n_s32(four));
    }
    return (Ints)acc;
#else
    for (int i = 0; i < QUADS; ++i)
        for (int lane = 0; lane < LANES; ++lane)
            for (int j = 0; j < 4; ++j) init[lane] += int32_t(w[i][4 * lane + j]) * x[4 * i + j];
    return init;
#endif
}

// The same for 8-bit weights that are stored with 128 added; x_sum is the sum of the inputs.
template <int QUADS>
static inline Ints dot_biased(const Bytes* w, const int8_t* x, int32_t x_sum) {
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
    return dot<QUADS, 255>(w, x, all(-128 * x_sum));
#elif defined(__AVX2__)
    // |w| times x with w's sign: sums of two fit 16 bits.
    (void)x_sum;
#if defined(__AVX512F__)
    __m512i acc = _mm512_setzero_si512();
    for (int i = 0; i < QUADS; ++i) {
        int32_t four;
        std::memcpy(&four, x + 4 * i, 4);
        __m512i weights = _mm512_xor_si512((__m512i)w[i], _mm512_set1_epi8(-128)), inputs = _mm512_set1_epi32(four);
        __m512i turned = _mm512_mask_sub_epi8(inputs, _mm512_movepi8_mask(weights), _mm512_setzero_si512(), inputs);
        __m512i pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(weights), turned);
        acc = _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
    }
#else
    __m256i acc = _mm256_setzero_si256();
    for (int i = 0; i < QUADS; ++i) {
        int32_t four;
        std::memcpy(&four, x + 4 * i, 4);
        __m256i weights = _mm256_xor_si256((__m256i)w[i], _mm256_set1_epi8(-128));
        __m256i turned = _mm256_sign_epi8(_mm256_set1_epi32(four), weights);
        __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), turned);
        acc = _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
#endif
    return (Ints)acc;
#elif defined(__ARM_FEATURE_DOTPROD)
    (void)x_sum;
    Bytes turned[QUADS];
    for (int i = 0; i < QUADS; ++i) turned[i] = w[i] ^ all_bytes(128);
    return dot<QUADS, 127>(turned, x, Ints{});
#else
    return dot<QUADS, 255>(w, x, all(-128 * x_sum));
#endif
}

}  // namespace OCTAVO_ISA
}  // namespace octavo
