// Plain numbers in groups of 16 rows (plain.h), written and read.
#pragma once
#include "interface.h"

namespace octavo {

// Types of stored numbers, by GGUF's numbers.
enum PlainType : int32_t { TYPE_FLOAT32 = 0, TYPE_FLOAT16 = 1, TYPE_BFLOAT16 = 30 };

// The form that keeps a type as it is; -1: it is not plain.
int32_t plain_form_of(int32_t type);

// Bytes of a group of so many columns.
int64_t plain_group_bytes(int32_t form, int32_t columns);

// `count` rows, up to 16, that lie row_bytes apart; the group's bytes are zero. Returns whether all are finite.
bool pack_plain_group(int32_t form, const uint8_t* rows, int64_t row_bytes, int count, int32_t columns, uint8_t* to);

// out[columns]
void read_plain_row(const Matrix& m, int64_t row, float* out);

}  // namespace octavo
