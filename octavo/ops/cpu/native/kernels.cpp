// Compiled once per instruction set: the build defines OCTAVO_ISA and the flags that go with it.
#include "attend.h"
#include "kernels.h"
#include "product.h"
#include "walk.h"
#include "weights.h"

#define OCTAVO_TEXT_(x) #x
#define OCTAVO_TEXT(x) OCTAVO_TEXT_(x)

namespace octavo {
namespace OCTAVO_ISA {

extern const Kernels kernels;
const Kernels kernels = {
    OCTAVO_TEXT(OCTAVO_ISA), product, quantize, rms_norm, gated, best, exponentials, mass, find_likely, prepare_heads,
    walk_ssd, walk_delta, attend,
};

}  // namespace OCTAVO_ISA
}  // namespace octavo
