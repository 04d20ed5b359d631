// sass_execute.h: what each instruction of sm_90 does to the registers of a warp, 32 lanes at once.
//
// NVIDIA names the instructions but does not specify them; the semantics here are what nvcc's own code relies on, and
// tests/cuda compare the results with the CPU's. MUFU's approximations are rounded exactly: nvcc refines them.
#pragma once

#include <cfenv>
#include <climits>
#include <cmath>

#include "sass_code.h"

#if __has_include(<emmintrin.h>)
#include <emmintrin.h>
#endif

namespace sass {

constexpr int kLanes = 32;
using Words = uint32_t __attribute__((vector_size(4 * kLanes)));
using Signed = int32_t __attribute__((vector_size(4 * kLanes)));
using Floats = float __attribute__((vector_size(4 * kLanes)));
using Longs = uint64_t __attribute__((vector_size(8 * kLanes)));
using Doubles = double __attribute__((vector_size(8 * kLanes)));

struct Split;
struct Block;

struct Warp {
  std::vector<Words> r;  // registers
  uint32_t u[64] = {};   // uniform registers
  uint32_t p[8] = {};    // predicates: a bit for each lane
  bool q[8] = {};        // uniform predicates
  Words barrier[16];     // of convergence barriers: the lanes that each lane waits for
  Words x, y, z;         // coordinates of the threads
  uint32_t alive = 0;
  Block* block = nullptr;
  Split* running = nullptr;
};

template <typename To, typename From>
To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

inline Words all(uint32_t value) {
  return Words{} + value;
}

// All ones where the bit is set, and back.
inline Words expand(uint32_t bits) {
  alignas(16) static const auto rows = [] {
    std::array<std::array<uint32_t, 4>, 16> r{};
    for (int i = 0; i < 16; ++i)
      for (int k = 0; k < 4; ++k) r[i][k] = i >> k & 1 ? ~0u : 0;
    return r;
  }();
  Words out;
  for (int i = 0; i < 8; ++i) memcpy(reinterpret_cast<char*>(&out) + 16 * i, rows[bits >> 4 * i & 15].data(), 16);
  return out;
}
template <typename Mask>
uint32_t bits_of(const Mask& words) {
  uint32_t bits = 0;
  for (int i = 0; i < 8; ++i) {
    __m128 four;
    memcpy(&four, reinterpret_cast<const char*>(&words) + 16 * i, 16);
    bits |= static_cast<uint32_t>(_mm_movemask_ps(four)) << 4 * i;
  }
  return bits;
}

// ---- operands ---------------------------------------------------------------------
inline Words constant(const Warp& w, const Operand& o, int more = 0);

// The bits without the operand's modifiers; more: 1 for the upper word of a pair.
inline Words word(const Warp& w, const Operand& o, int more = 0) {
  switch (o.kind) {
    case 'R':
      return o.at == kZero ? Words{} : w.r[o.at + more];
    case 'U':
      return all(o.at == kUniformZero ? 0 : w.u[o.at + more]);
    case 'I':
      return all(static_cast<uint32_t>(more ? o.bits >> 32 : o.bits));
    case 'C':
      return constant(w, o, more);
  }
  throw std::runtime_error("sass: operand that is no number");
}
// Of an operand that must have no modifiers.
inline Words raw(const Warp& w, const Operand& o, int more = 0) {
  if (o.negative || o.inverse || o.absolute) throw std::runtime_error("sass: modifier of an operand without");
  return word(w, o, more);
}
inline Words integer(const Warp& w, const Operand& o) {
  if (o.absolute) throw std::runtime_error("sass: |integer|");
  const Words value = word(w, o);
  return o.negative ? -value : o.inverse ? ~value : value;
}
inline Floats number(const Warp& w, const Operand& o) {
  Words value = word(w, o);
  if (o.absolute) value &= 0x7fffffffu;
  if (o.negative) value ^= 0x80000000u;
  return bit_cast<Floats>(value);
}
inline Longs joined(const Words& low, const Words& high) {
  return __builtin_convertvector(low, Longs) | __builtin_convertvector(high, Longs) << 32;
}
inline Longs pair(const Warp& w, const Operand& o) {
  return joined(word(w, o), word(w, o, 1));
}
inline Doubles twice(const Warp& w, const Operand& o) {
  Longs value = pair(w, o);
  if (o.absolute) value &= ~(1ull << 63);
  if (o.negative) value ^= 1ull << 63;
  return bit_cast<Doubles>(value);
}
inline uint32_t predicate(const Warp& w, const Operand& o) {
  uint32_t bits = ~0u;
  if (o.kind == 'P' && o.at != kTrue) bits = w.p[o.at];
  if (o.kind == 'Q' && o.at != kTrue) bits = w.q[o.at] ? ~0u : 0;
  return o.inverse ? ~bits : bits;
}

inline void put(Warp& w, const Operand& o, const Words& value, uint32_t lanes, int more = 0) {
  if (o.kind == 'U') {
    if (o.at != kUniformZero && lanes) w.u[o.at + more] = value[__builtin_ctz(lanes)];
  } else if (o.at != kZero) {
    Words& to = w.r[o.at + more];
    to = lanes == ~0u ? value : reinterpret_cast<Words>((expand(lanes) & value) | (~expand(lanes) & to));
  }
}
inline void put(Warp& w, const Operand& o, const Floats& value, uint32_t lanes) {
  put(w, o, bit_cast<Words>(value), lanes);
}
inline void put_pair(Warp& w, const Operand& o, const Longs& value, uint32_t lanes) {
  put(w, o, __builtin_convertvector(value, Words), lanes);
  put(w, o, __builtin_convertvector(value >> 32, Words), lanes, 1);
}
inline void put_bits(Warp& w, const Operand& o, uint32_t bits, uint32_t lanes) {
  if (o.at == kTrue) return;
  if (o.kind == 'Q') {
    if (lanes) w.q[o.at] = bits >> __builtin_ctz(lanes) & 1;
  } else {
    w.p[o.at] = (w.p[o.at] & ~lanes) | (bits & lanes);
  }
}

inline bool is_predicate(const Operand& o) {
  return o.kind == 'P' || o.kind == 'Q';
}
template <typename F>
Words each(F&& f) {
  Words out;
  for (int l = 0; l < kLanes; ++l) out[l] = f(l);
  return out;
}

// ---- integers ---------------------------------------------------------------------
// IADD3[.X] d, [carry, [carry]], a, b, c, [carry in, [carry in]]: -x is ~x + 1, whose carries the code counts on.
inline void iadd3(Warp& w, const Instruction& i, uint32_t lanes) {
  size_t at = 1;
  while (is_predicate(i.operands[at])) ++at;
  const size_t carries = at - 1;
  Longs sum{};
  for (int k = 0; k < 3; ++k) {
    const Operand& o = i.operands[at + k];
    const Words value = word(w, o);
    sum += __builtin_convertvector(o.negative || o.inverse ? ~value : value, Longs) + uint64_t(o.negative);
  }
  for (size_t k = at + 3; k < i.operands.size(); ++k)
    sum += __builtin_convertvector(expand(predicate(w, i.operands[k])) & 1u, Longs);
  if (carries) {
    const Words over = __builtin_convertvector(sum >> 32, Words);
    put_bits(w, i.operands[1], bits_of(over >= 1u), lanes);
    if (carries == 2) put_bits(w, i.operands[2], bits_of(over >= 2u), lanes);
  }
  put(w, i.operands[0], __builtin_convertvector(sum, Words), lanes);
}

// IMAD d, a, b, c; IMAD.X adds a carry; IMAD.MOV, .SHL, .IADD, .U32 are names of the same.
inline void imad(Warp& w, const Instruction& i, uint32_t lanes) {
  Words sum = integer(w, i.operands[1]) * integer(w, i.operands[2]) + integer(w, i.operands[3]);
  if (i.operands.size() > 4) sum += expand(predicate(w, i.operands[4])) & 1u;
  put(w, i.operands[0], sum, lanes);
}

// IMAD.WIDE d, [carry], a, b, c: a pair; IMAD.HI: its upper word. c is a pair.
inline void imad_wide(Warp& w, const Instruction& i, uint32_t lanes) {
  const bool carry = is_predicate(i.operands[1]);
  const Operand &a = i.operands[1 + carry], &b = i.operands[2 + carry], &c = i.operands[3 + carry];
  if (a.inverse || b.inverse || c.inverse) throw std::runtime_error("sass: modifier of " + i.text);
  const Words x = word(w, a), y = word(w, b);
  Longs product;
  if (i.has("U32")) {
    product = __builtin_convertvector(x, Longs) * __builtin_convertvector(y, Longs);
  } else {
    using LongsSigned = int64_t __attribute__((vector_size(8 * kLanes)));
    product = reinterpret_cast<Longs>(__builtin_convertvector(reinterpret_cast<Signed>(x), LongsSigned) *
                                      __builtin_convertvector(reinterpret_cast<Signed>(y), LongsSigned));
  }
  if (a.negative != b.negative) product = -product;
  const Longs more = pair(w, c);
  const Longs sum = product + (c.negative ? -more : more);
  if (carry) put_bits(w, i.operands[1], bits_of(__builtin_convertvector(sum < product, Signed)), lanes);
  if (i.has("WIDE")) return put_pair(w, i.operands[0], sum, lanes);
  put(w, i.operands[0], __builtin_convertvector(sum >> 32, Words), lanes);
}

// LEA d, [carry], a, b, s: b + (a << s). LEA.HI d, [carry], a, b, c, s, [carry in]: b + (the pair c:a << s) >> 32;
// with SX32 c is the sign of a and not given.
inline void lea(Warp& w, const Instruction& i, uint32_t lanes) {
  size_t at = 1;
  const bool carry = is_predicate(i.operands[1]);
  at += carry;
  const Operand& a = i.operands[at];
  const Operand& b = i.operands[at + 1];
  if (a.inverse) throw std::runtime_error("sass: modifier of " + i.text);
  const Words low = word(w, a), base = word(w, b);
  const bool high = i.has("HI"), sign = i.has("SX32");
  const Words top = sign   ? reinterpret_cast<Words>(reinterpret_cast<Signed>(low) >> 31)
                    : high ? raw(w, i.operands[at + 2])
                           : Words{};
  const size_t place = at + (high && !sign ? 3 : 2);
  const uint32_t s = static_cast<uint32_t>(i.operands[place].bits);
  const Longs shifted = joined(low, top) << uint64_t(s);
  const Words part = __builtin_convertvector(high ? shifted >> 32 : shifted, Words);
  Longs sum = __builtin_convertvector(a.negative ? ~part : part, Longs) +
              __builtin_convertvector(b.negative || b.inverse ? ~base : base, Longs);
  sum += uint64_t(a.negative) + uint64_t(b.negative);
  if (i.operands.size() > place + 1)
    sum += __builtin_convertvector(expand(predicate(w, i.operands[place + 1])) & 1u, Longs);
  if (carry) put_bits(w, i.operands[1], bits_of(__builtin_convertvector(sum >> 32, Words) >= 1u), lanes);
  put(w, i.operands[0], __builtin_convertvector(sum, Words), lanes);
}

template <typename T>
T looked_up(uint32_t table, const T& a, const T& b, const T& c) {
  T out{};
  for (int k = 0; k < 8; ++k)
    if (table >> k & 1) out |= (k & 4 ? a : ~a) & (k & 2 ? b : ~b) & (k & 1 ? c : ~c);
  return out;
}
inline void lop3(Warp& w, const Instruction& i, uint32_t lanes) {
  const bool whether = is_predicate(i.operands[0]);
  const Operand* o = i.operands.data() + whether;
  const uint32_t table = static_cast<uint32_t>(o[4].bits);
  const Words a = raw(w, o[1]), b = raw(w, o[2]), c = raw(w, o[3]);
  const Words out = table == 0xc0 ? a & b : table == 0xfc ? a | b : table == 0x3c ? a ^ b : looked_up(table, a, b, c);
  put(w, o[0], out, lanes);
  if (whether) put_bits(w, i.operands[0], bits_of(out != 0u) | predicate(w, o[5]), lanes);
}
inline void plop3(Warp& w, const Instruction& i, uint32_t lanes) {
  const auto& o = i.operands;
  const uint32_t a = predicate(w, o[2]), b = predicate(w, o[3]), c = predicate(w, o[4]);
  put_bits(w, o[0], looked_up(static_cast<uint32_t>(o[5].bits), a, b, c), lanes);
  put_bits(w, o[1], looked_up(static_cast<uint32_t>(o[6].bits), a, b, c), lanes);
}

// SHF d, low, s, high: the pair shifted, its upper word with HI. Right shifts of one word come as the upper one.
inline void shf(Warp& w, const Instruction& i, uint32_t lanes) {
  const Words low = raw(w, i.operands[1]), by = raw(w, i.operands[2]), high = raw(w, i.operands[3]);
  const bool left = i.has("L"), arithmetic = i.has("S32") || i.has("S64"), upper = i.has("HI");
  put(w, i.operands[0], each([&](int l) -> uint32_t {
        const uint64_t value = uint64_t(high[l]) << 32 | low[l];
        const uint32_t s = by[l];
        uint64_t out;
        if (arithmetic)
          out = left ? (s > 63 ? 0 : value << s) : static_cast<uint64_t>(int64_t(value) >> (s > 63 ? 63 : s));
        else
          out = s > 63 ? 0 : left ? value << s : value >> s;
        return static_cast<uint32_t>(upper ? out >> 32 : out);
      }),
      lanes);
}

enum Compare { Less = 1, Equal = 2, Greater = 4, Unordered = 8 };
inline uint32_t comparison(const Instruction& i) {
  static const std::unordered_map<std::string, int> table{{"LT", Less},
                                                          {"EQ", Equal},
                                                          {"LE", Less | Equal},
                                                          {"GT", Greater},
                                                          {"NE", Less | Greater},
                                                          {"GE", Greater | Equal},
                                                          {"NUM", Less | Equal | Greater},
                                                          {"NAN", Unordered},
                                                          {"LTU", Less | Unordered},
                                                          {"EQU", Equal | Unordered},
                                                          {"LEU", Less | Equal | Unordered},
                                                          {"GTU", Greater | Unordered},
                                                          {"NEU", Less | Greater | Unordered},
                                                          {"GEU", Greater | Equal | Unordered}};
  const auto found = table.find(i.modifiers[0]);
  if (found == table.end()) throw std::runtime_error("sass: comparison of " + i.text);
  return static_cast<uint32_t>(found->second);
}
// xSETP.<comparison>.<AND|OR> d, d of the opposite, a, b, combined
inline void set_predicates(Warp& w, const Instruction& i, uint32_t holds, uint32_t lanes) {
  const uint32_t with = predicate(w, i.operands[4]);
  const bool any = i.has("OR");
  put_bits(w, i.operands[0], any ? holds | with : holds & with, lanes);
  put_bits(w, i.operands[1], any ? ~holds | with : ~holds & with, lanes);
}
template <typename T>
uint32_t compared(const T& a, const T& b, uint32_t relation) {
  const uint32_t less = bits_of(a < b), equal = bits_of(a == b), greater = bits_of(a > b);
  return (relation & Less ? less : 0) | (relation & Equal ? equal : 0) | (relation & Greater ? greater : 0) |
         (relation & Unordered ? ~(less | equal | greater) : 0);
}
inline void isetp(Warp& w, const Instruction& i, uint32_t lanes) {
  const Words a = integer(w, i.operands[2]), b = integer(w, i.operands[3]);
  uint32_t holds = i.has("U32") ? compared(a, b, i.select)
                                : compared(reinterpret_cast<Signed>(a), reinterpret_cast<Signed>(b), i.select);
  if (i.has("EX")) {  // of upper words: where they are equal, the lower words decided
    const uint32_t equal = bits_of(a == b);
    holds = (holds & ~equal) | (predicate(w, i.operands[5]) & equal);
  }
  set_predicates(w, i, holds, lanes);
}
inline void fsetp(Warp& w, const Instruction& i, uint32_t lanes) {
  set_predicates(w, i, compared(number(w, i.operands[2]), number(w, i.operands[3]), i.select), lanes);
}
inline void dsetp(Warp& w, const Instruction& i, uint32_t lanes) {
  const Doubles a = twice(w, i.operands[2]), b = twice(w, i.operands[3]);
  uint32_t holds = 0, second = 0;
  const bool most = i.modifiers[0] == "MAX";
  for (int l = 0; l < kLanes; ++l) {
    if (i.select) {
      const uint32_t relation = a[l] < b[l] ? Less : a[l] == b[l] ? Equal : a[l] > b[l] ? Greater : Unordered;
      holds |= static_cast<uint32_t>((relation & i.select) != 0) << l;
    } else {  // MAX, MIN d, e, a, b: whether a is the result, whether both are NaN
      const bool first = std::isnan(b[l]) || (a[l] == b[l] ? std::signbit(a[l]) != most : (a[l] > b[l]) == most);
      holds |= static_cast<uint32_t>(first && !std::isnan(a[l])) << l;
      second |= static_cast<uint32_t>(std::isnan(a[l]) && std::isnan(b[l])) << l;
    }
  }
  if (i.select) return set_predicates(w, i, holds, lanes);
  put_bits(w, i.operands[0], holds, lanes);
  put_bits(w, i.operands[1], second, lanes);
}
inline void sel(Warp& w, const Instruction& i, uint32_t lanes) {
  const bool floats = i.name == "FSEL";
  const Words a = floats ? bit_cast<Words>(number(w, i.operands[1])) : integer(w, i.operands[1]);
  const Words b = floats ? bit_cast<Words>(number(w, i.operands[2])) : integer(w, i.operands[2]);
  const Words mask = expand(predicate(w, i.operands[3]));
  put(w, i.operands[0], (a & mask) | (b & ~mask), lanes);
}
inline void mov(Warp& w, const Instruction& i, uint32_t lanes) {
  put(w, i.operands[0], integer(w, i.operands[1]), lanes);
}
inline void cs2r(Warp& w, const Instruction& i, uint32_t lanes) {
  put_pair(w, i.operands[0], Longs{}, lanes);
}
inline void viadd(Warp& w, const Instruction& i, uint32_t lanes) {
  put(w, i.operands[0], integer(w, i.operands[1]) + integer(w, i.operands[2]), lanes);
}
// The smaller where the predicate holds, else the larger.
inline Words extreme(const Words& a, const Words& b, uint32_t smaller) {
  const Words less = reinterpret_cast<Words>(reinterpret_cast<Signed>(a) < reinterpret_cast<Signed>(b));
  const Words first = ~(less ^ expand(smaller));
  return (a & first) | (b & ~first);
}
inline void vimnmx(Warp& w, const Instruction& i, uint32_t lanes) {
  put(w, i.operands[0], extreme(integer(w, i.operands[1]), integer(w, i.operands[2]), predicate(w, i.operands[3])),
      lanes);
}
inline void viaddmnmx(Warp& w, const Instruction& i, uint32_t lanes) {
  const Words sum = integer(w, i.operands[1]) + integer(w, i.operands[2]);
  put(w, i.operands[0], extreme(sum, integer(w, i.operands[3]), predicate(w, i.operands[4])), lanes);
}
inline void iabs(Warp& w, const Instruction& i, uint32_t lanes) {
  const Words a = integer(w, i.operands[1]), sign = reinterpret_cast<Words>(reinterpret_cast<Signed>(a) >> 31);
  put(w, i.operands[0], (a ^ sign) - sign, lanes);
}
inline void flo(Warp& w, const Instruction& i, uint32_t lanes) {  // the highest bit; with SH its distance from bit 31
  const Words a = integer(w, i.operands[1]);
  const bool distance = i.has("SH");
  put(w, i.operands[0],
      each([&](int l) { return !a[l] ? ~0u : unsigned(distance ? __builtin_clz(a[l]) : 31 - __builtin_clz(a[l])); }),
      lanes);
}
inline void popc(Warp& w, const Instruction& i, uint32_t lanes) {
  const Words a = integer(w, i.operands[1]);
  put(w, i.operands[0], each([&](int l) { return unsigned(__builtin_popcount(a[l])); }), lanes);
}
inline void brev(Warp& w, const Instruction& i, uint32_t lanes) {
  const Words a = raw(w, i.operands[1]);
  put(w, i.operands[0], each([&](int l) {
        uint32_t out = 0;
        for (int k = 0; k < 32; ++k) out |= (a[l] >> k & 1) << (31 - k);
        return out;
      }),
      lanes);
}
inline void prmt(Warp& w, const Instruction& i, uint32_t lanes) {  // bytes of c:a; bit 3 of a choice: its sign only
  const Words a = raw(w, i.operands[1]), choice = raw(w, i.operands[2]), c = raw(w, i.operands[3]);
  put(w, i.operands[0], each([&](int l) {
        const uint64_t both = uint64_t(c[l]) << 32 | a[l];
        uint32_t out = 0;
        for (int k = 0; k < 4; ++k) {
          const uint32_t s = choice[l] >> 4 * k & 15;
          uint32_t byte = both >> 8 * (s & 7) & 255;
          if (s & 8) byte = byte & 128 ? 255 : 0;
          out |= byte << 8 * k;
        }
        return out;
      }),
      lanes);
}

// ---- floating point ---------------------------------------------------------------
inline int rounding(const Instruction& i) {
  return i.has("RM") ? FE_DOWNWARD : i.has("RP") ? FE_UPWARD : i.has("RZ") ? FE_TOWARDZERO : FE_TONEAREST;
}
struct Rounded {  // rounds so while it lives
  explicit Rounded(int mode) : changed(mode != FE_TONEAREST) {
    if (changed) std::fesetround(mode);
  }
  ~Rounded() {
    if (changed) std::fesetround(FE_TONEAREST);
  }
  bool changed;
};
inline void fadd(Warp& w, const Instruction& i, uint32_t lanes) {
  put(w, i.operands[0], number(w, i.operands[1]) + number(w, i.operands[2]), lanes);
}
inline void fmul(Warp& w, const Instruction& i, uint32_t lanes) {
  put(w, i.operands[0], number(w, i.operands[1]) * number(w, i.operands[2]), lanes);
}
inline void ffma(Warp& w, const Instruction& i, uint32_t lanes) {
  const Floats a = number(w, i.operands[1]), b = number(w, i.operands[2]), c = number(w, i.operands[3]);
  Floats out;
  const Rounded mode(static_cast<int>(i.select));
  for (int l = 0; l < kLanes; ++l) out[l] = __builtin_fmaf(a[l], b[l], c[l]);
  if (i.has("SAT"))
    for (int l = 0; l < kLanes; ++l) out[l] = out[l] > 0 ? std::min(out[l], 1.0f) : 0.0f;  // NaN becomes 0
  put(w, i.operands[0], out, lanes);
}
inline void fmnmx(Warp& w, const Instruction& i, uint32_t lanes) {
  const Floats a = number(w, i.operands[1]), b = number(w, i.operands[2]);
  const uint32_t smaller = predicate(w, i.operands[3]);
  const bool keep_nan = i.has("NAN");
  Floats out;
  for (int l = 0; l < kLanes; ++l) {
    if (std::isnan(a[l]) || std::isnan(b[l])) {
      out[l] = keep_nan || (std::isnan(a[l]) && std::isnan(b[l])) ? NAN : std::isnan(a[l]) ? b[l] : a[l];
    } else {
      const bool less = a[l] < b[l] || (a[l] == b[l] && std::signbit(a[l]));
      out[l] = less == bool(smaller >> l & 1) ? a[l] : b[l];
    }
  }
  put(w, i.operands[0], out, lanes);
}
inline void dadd(Warp& w, const Instruction& i, uint32_t lanes) {
  put_pair(w, i.operands[0], bit_cast<Longs>(twice(w, i.operands[1]) + twice(w, i.operands[2])), lanes);
}
inline void dmul(Warp& w, const Instruction& i, uint32_t lanes) {
  const volatile Doubles a = twice(w, i.operands[1]), b = twice(w, i.operands[2]);
  Doubles out;
  const Rounded mode(static_cast<int>(i.select));
  for (int l = 0; l < kLanes; ++l) out[l] = a[l] * b[l];
  put_pair(w, i.operands[0], bit_cast<Longs>(out), lanes);
}
inline void dfma(Warp& w, const Instruction& i, uint32_t lanes) {
  const Doubles a = twice(w, i.operands[1]), b = twice(w, i.operands[2]), c = twice(w, i.operands[3]);
  Doubles out;
  const Rounded mode(static_cast<int>(i.select));
  for (int l = 0; l < kLanes; ++l) out[l] = __builtin_fma(a[l], b[l], c[l]);
  put_pair(w, i.operands[0], bit_cast<Longs>(out), lanes);
}
inline void mufu(Warp& w, const Instruction& i, uint32_t lanes) {
  if (i.has("RCP64H") || i.has("RSQ64H")) {  // upper words of doubles
    const Words a = raw(w, i.operands[1]);
    const bool root = i.has("RSQ64H");
    const Words out = each([&](int l) {
      const double x = bit_cast<double>(uint64_t(a[l]) << 32), y = root ? 1 / std::sqrt(x) : 1 / x;
      return static_cast<uint32_t>(bit_cast<uint64_t>(y) >> 32);
    });
    return put(w, i.operands[0], out, lanes);
  }
  const Floats a = number(w, i.operands[1]);
  Floats out;
  for (int l = 0; l < kLanes; ++l) {
    const double x = a[l];
    out[l] = static_cast<float>(i.select == 0 ? 1 / x : i.select == 1 ? 1 / std::sqrt(x) : std::exp2(x));
  }
  put(w, i.operands[0], out, lanes);
}
// FCHK d, a, b: whether a / b needs more than one reciprocal and a correction: extreme exponents, and a zero.
inline void fchk(Warp& w, const Instruction& i, uint32_t lanes) {
  const Words a = raw(w, i.operands[1]), b = raw(w, i.operands[2]);
  uint32_t bits = 0;
  for (int l = 0; l < kLanes; ++l) {
    const int x = int(a[l] >> 23 & 255), y = int(b[l] >> 23 & 255);
    bits |= uint32_t(y < 2 || y > 252 || x < 25 || x > 254 || x - y > 125 || y - x > 124) << l;
  }
  put_bits(w, i.operands[0], bits, lanes);
}
inline float from_half(uint32_t h) {
  const uint32_t sign = (h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
  if (exponent == 31) return bit_cast<float>(sign | 0x7f800000u | fraction << 13);
  const float magnitude =
      exponent ? std::ldexp(float(1024 + fraction), int(exponent) - 25) : std::ldexp(float(fraction), -24);
  return sign ? -magnitude : magnitude;
}
inline uint32_t to_half(float value) {  // to nearest even
  const uint32_t word = bit_cast<uint32_t>(value), sign = word >> 16 & 0x8000;
  if (std::isnan(value)) return 0x7fff;
  const double magnitude = std::fabs(double(value));
  if (magnitude >= 65520) return sign | 0x7c00;
  if (magnitude < 0x1p-14) return sign | static_cast<uint32_t>(std::nearbyint(magnitude * 0x1p24));
  int exponent;
  std::frexp(magnitude, &exponent);
  const auto fraction = static_cast<uint32_t>(std::nearbyint(std::ldexp(magnitude, 11 - exponent)));  // 1024 to 2048
  return sign | ((static_cast<uint32_t>(exponent + 13) << 10) + fraction);
}
inline uint32_t to_bfloat16(float value) {
  const uint32_t word = bit_cast<uint32_t>(value);
  return std::isnan(value) ? 0x7fff : (word + 0x7fff + (word >> 16 & 1)) >> 16;
}
inline void f2fp(Warp& w, const Instruction& i, uint32_t lanes) {  // two numbers packed, the first in the upper half
  const Floats a = number(w, i.operands[1]), b = number(w, i.operands[2]);
  const bool brain = i.has("BF16");
  put(w, i.operands[0], each([&](int l) {
        return brain ? to_bfloat16(a[l]) << 16 | to_bfloat16(b[l]) : to_half(a[l]) << 16 | to_half(b[l]);
      }),
      lanes);
}
inline void hadd2(Warp& w, const Instruction& i, uint32_t lanes) {  // HADD2.F32 d, -RZ, half: widens
  const Words b = raw(w, i.operands[2]);
  const int shift = i.operands[2].upper_half ? 16 : 0;
  Floats out;
  for (int l = 0; l < kLanes; ++l) out[l] = from_half(b[l] >> shift & 0xffff);
  put(w, i.operands[0], out, lanes);
}
inline void hfma2(Warp& w, const Instruction& i, uint32_t lanes) {  // HFMA2.MMA d, -RZ, RZ, upper, lower: a constant
  put(w, i.operands[0], all(i.select), lanes);
}

// ---- conversions ------------------------------------------------------------------
template <typename F, typename I>
I to_integer(F value, int mode) {  // saturates; NaN is 0, of 64 bits the smallest or largest
  const F whole = mode == FE_UPWARD       ? std::ceil(value)
                  : mode == FE_DOWNWARD   ? std::floor(value)
                  : mode == FE_TOWARDZERO ? std::trunc(value)
                                          : std::nearbyint(value);
  if (std::isnan(value)) return sizeof(I) == 4 ? 0 : I(1) << 63;
  if (whole >= std::ldexp(F(1), std::is_signed_v<I> ? sizeof(I) * 8 - 1 : sizeof(I) * 8))
    return std::numeric_limits<I>::max();
  if (whole < static_cast<F>(std::numeric_limits<I>::min())) return std::numeric_limits<I>::min();
  return static_cast<I>(whole);
}
inline void f2i(Warp& w, const Instruction& i, uint32_t lanes) {
  const int mode = i.has("CEIL")    ? FE_UPWARD
                   : i.has("FLOOR") ? FE_DOWNWARD
                   : i.has("TRUNC") ? FE_TOWARDZERO
                                    : FE_TONEAREST;
  Longs out;
  const auto convert = [&](auto value) {
    using F = decltype(value);
    return i.has("S64")   ? static_cast<uint64_t>(to_integer<F, int64_t>(value, mode))
           : i.has("U64") ? to_integer<F, uint64_t>(value, mode)
           : i.has("U32") ? to_integer<F, uint32_t>(value, mode)
                          : static_cast<uint64_t>(static_cast<uint32_t>(to_integer<F, int32_t>(value, mode)));
  };
  if (i.has("F64")) {
    const Doubles a = twice(w, i.operands[1]);
    for (int l = 0; l < kLanes; ++l) out[l] = convert(a[l]);
  } else {
    const Floats a = number(w, i.operands[1]);
    for (int l = 0; l < kLanes; ++l) out[l] = convert(a[l]);
  }
  if (i.has("S64") || i.has("U64")) return put_pair(w, i.operands[0], out, lanes);
  put(w, i.operands[0], __builtin_convertvector(out, Words), lanes);
}
inline void i2f(Warp& w, const Instruction& i, uint32_t lanes) {
  const Operand& o = i.operands[1];
  const bool wide = i.has("S64") || i.has("U64"), without_sign = i.has("U64") || i.has("U32");
  if (wide && (o.negative || o.inverse || o.absolute)) throw std::runtime_error("sass: modifier of " + i.text);
  const Longs a = wide ? pair(w, o) : __builtin_convertvector(integer(w, o), Longs);
  const Rounded mode(rounding(i));
  Floats floats;
  Doubles doubles;
  for (int l = 0; l < kLanes; ++l) {
    const volatile uint64_t magnitude = a[l];
    const volatile int64_t value = wide ? int64_t(a[l]) : int64_t(int32_t(a[l]));
    floats[l] = without_sign ? float(magnitude) : float(value);
    doubles[l] = without_sign ? double(magnitude) : double(value);
  }
  if (i.has("F64")) return put_pair(w, i.operands[0], bit_cast<Longs>(doubles), lanes);
  put(w, i.operands[0], floats, lanes);
}
inline void f2f(Warp& w, const Instruction& i, uint32_t lanes) {  // F2F.<to>.<from>
  if (i.modifiers[0] == "F64") {
    put_pair(w, i.operands[0], bit_cast<Longs>(__builtin_convertvector(number(w, i.operands[1]), Doubles)), lanes);
  } else {
    put(w, i.operands[0], __builtin_convertvector(twice(w, i.operands[1]), Floats), lanes);
  }
}
inline void frnd(Warp& w, const Instruction& i, uint32_t lanes) {
  const bool up = i.has("CEIL");
  if (!up && !i.has("FLOOR")) throw std::runtime_error("sass: rounding of " + i.text);
  if (i.has("F64")) {
    Doubles a = twice(w, i.operands[1]);
    for (int l = 0; l < kLanes; ++l) a[l] = up ? std::ceil(a[l]) : std::floor(a[l]);
    return put_pair(w, i.operands[0], bit_cast<Longs>(a), lanes);
  }
  Floats a = number(w, i.operands[1]);
  for (int l = 0; l < kLanes; ++l) a[l] = up ? std::ceil(a[l]) : std::floor(a[l]);
  put(w, i.operands[0], a, lanes);
}

// ---- between lanes ----------------------------------------------------------------
inline void vote(Warp& w, const Instruction& i, uint32_t lanes) {  // VOTE d, [whether], p; VOTEU whether, p
  const uint32_t bits = predicate(w, i.operands.back()) & lanes;
  for (size_t k = 0; k + 1 < i.operands.size(); ++k) {
    if (is_predicate(i.operands[k]))
      put_bits(w, i.operands[k], (i.has("ALL") ? bits == lanes : bits != 0) ? ~0u : 0, lanes);
    else
      put(w, i.operands[k], all(bits), lanes);
  }
}
inline void redux(Warp& w, const Instruction& i, uint32_t lanes) {  // REDUX.MIN.S32
  const Signed a = reinterpret_cast<Signed>(raw(w, i.operands[1]));
  int32_t least = INT32_MAX;
  for (int l = 0; l < kLanes; ++l)
    if (lanes >> l & 1) least = std::min<int32_t>(least, a[l]);
  put(w, i.operands[0], all(static_cast<uint32_t>(least)), lanes);
}
inline void shfl(Warp& w, const Instruction& i, uint32_t lanes) {
  const Words a = raw(w, i.operands[2]), by = raw(w, i.operands[3]), limits = raw(w, i.operands[4]);
  uint32_t inside = 0;
  const Words out = each([&](int l) -> uint32_t {
    const uint32_t lane = uint32_t(l), segments = limits[l] >> 8 & 31, clamp = limits[l] & 31, b = by[l] & 31;
    const uint32_t first = lane & segments, last = first | (clamp & ~segments);
    uint32_t from = lane;
    bool within = false;
    if (i.has("UP")) from = lane - b, within = int(from) >= int(last);
    if (i.has("DOWN")) from = lane + b, within = from <= last;
    if (i.has("BFLY")) from = lane ^ b, within = from <= last;
    if (i.has("IDX")) from = first | (b & ~segments), within = from <= last;
    if (!within) from = lane;
    inside |= uint32_t(within) << l;
    if ((lanes >> l & 1) && !(lanes >> from & 1))
      throw std::runtime_error("sass: lane " + std::to_string(l) + " reads lane " + std::to_string(from) +
                               ", which does not take part: " + i.text);
    return a[from];
  });
  put(w, i.operands[1], out, lanes);
  put_bits(w, i.operands[0], inside, lanes);
}
inline void r2ur(Warp& w, const Instruction& i, uint32_t lanes) {
  put(w, i.operands[0], raw(w, i.operands[1]), lanes);
}
inline void p2r(Warp& w, const Instruction& i, uint32_t lanes) {  // P2R d, PR, RZ, mask
  const uint32_t mask = static_cast<uint32_t>(i.operands[3].bits);
  put(w, i.operands[0], each([&](int l) {
        uint32_t out = 0;
        for (int k = 0; k < 7; ++k) out |= (w.p[k] >> l & 1) << k;
        return out & mask;
      }),
      lanes);
}

}  // namespace sass
