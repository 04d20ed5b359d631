// sass.h: executes the machine code of a kernel on the CPU, warp by warp, and counts what it does.
//
// Lanes of a warp run together and part at a branch that they disagree on; they meet again where the code says so
// (BSYNC, WARPSYNC), as on the GPU. Counted are issued instructions, by the unit that executes them, and what the
// load-store unit does: 32-byte sectors and wavefronts. A wavefront moves up to 128 bytes of one line of global memory,
// or one word of each bank of shared memory. Addresses are those of the host.
#pragma once

#include <algorithm>
#include <array>

#include "sass_execute.h"

namespace sass {

struct Counts {
  std::string kernel;
  uint64_t blocks = 0, warps = 0;
  uint64_t instructions = 0;                     // issued, of all warps
  uint64_t lanes = 0;                            // that executed them
  uint64_t pipes[kPipes] = {};                   // instructions by unit
  uint64_t longest_warp = 0, longest_block = 0;  // instructions of one
  uint64_t loads = 0, stores = 0;                // of global memory, in warps
  uint64_t busy = 0;                             // lanes of those
  uint64_t sectors = 0;                          // of those
  uint64_t level2 = 0;  // sectors read through an L1 that is empty when a block starts, and stored
  uint64_t global = 0;  // of global memory
  uint64_t shared = 0;  // wavefronts of shared memory
};

enum Wait : uint8_t { Ready, AtBarrier, AtWarp, AtBlock };
struct Split {  // lanes that run together
  uint32_t lanes = 0, at = 0;
  Wait wait = Ready;
  int barrier = 0;
};

constexpr int64_t kParameters = 0x210;                 // where parameters start in the constant bank
constexpr int64_t kSharedBytes = 0x400 + (227 << 10);  // the first KiB is the system's

// The sectors that an L1 of 256 KiB holds, emptied when full.
class Cache {
 public:
  void clear() { ++generation, held = 0; }
  bool add(uint64_t sector) {  // whether it was missing
    size_t at = sector * 0x9e3779b97f4a7c15ull >> 50;
    while (slots[at].generation == generation) {
      if (slots[at].sector == sector) return false;
      at = (at + 1) % slots.size();
    }
    if (held == 8192) clear();
    slots[at] = {sector, generation};
    return ++held, true;
  }

 private:
  struct Slot {
    uint64_t sector, generation;
  };
  std::vector<Slot> slots = std::vector<Slot>(1 << 14);
  uint64_t generation = 1;
  size_t held = 0;
};

struct Block {
  const Kernel* kernel;
  uint32_t size[3], grid[3], at[3];  // threads, blocks, this block
  std::vector<unsigned char> bank;   // constant bank 0
  std::vector<unsigned char> shared;
  std::vector<Warp> warps;
  std::vector<std::vector<Split>> splits;  // of each warp
  bool votes = false, result = false;      // of BAR.RED
  Counts* counts;
  Cache cache;
};

inline Words constant(const Warp& w, const Operand& o, int more) {
  const auto& bank = w.block->bank;
  const auto word = [&](int64_t at) {
    uint32_t out = 0;
    if (at < 0 || at >= int64_t(bank.size())) throw std::runtime_error("sass: outside of the constant bank");
    memcpy(&out, bank.data() + at, std::min<int64_t>(4, int64_t(bank.size()) - at));
    return out;
  };
  const int64_t at = o.offset + 4 * more + (o.uniform >= 0 && o.uniform != kUniformZero ? int32_t(w.u[o.uniform]) : 0);
  if (o.base < 0 || o.base == kZero) return all(word(at));
  Words out{};
  for (int l = 0; l < kLanes; ++l)
    if (w.running->lanes >> l & 1) out[l] = word(at + int32_t(w.r[o.base][l]));
  return out;
}

[[noreturn]] inline void fail(const Warp& w, const std::string& what) {
  const auto& b = *w.block;
  throw std::runtime_error("sass: " + b.kernel->name + ", block (" + std::to_string(b.at[0]) + "," +
                           std::to_string(b.at[1]) + "," + std::to_string(b.at[2]) + "): " + what);
}

// ---- memory -----------------------------------------------------------------------
inline size_t distinct(uint64_t* numbers, size_t n) {
  std::sort(numbers, numbers + n);
  return static_cast<size_t>(std::unique(numbers, numbers + n) - numbers);
}

struct Access {
  uint64_t address[kLanes];
  int bytes;
};
inline Access addresses(Warp& w, const Instruction& i, const Operand& o, uint32_t lanes) {
  Access access;
  access.bytes = i.size / 8;
  for (int l = 0; l < kLanes; ++l) {
    if (!(lanes >> l & 1)) continue;
    uint64_t at = static_cast<uint64_t>(o.offset);
    if (o.absolute)  // .64: a pair of registers
      at += uint64_t(w.r[o.base + 1][l]) << 32 | w.r[o.base][l];
    else
      at += (o.base < 0 || o.base == kZero ? 0 : w.r[o.base][l]) +
            (o.uniform < 0 || o.uniform == kUniformZero ? 0 : w.u[o.uniform]);
    if (at % uint64_t(access.bytes)) fail(w, "misaligned address: " + i.text);
    access.address[l] = at;
  }
  return access;
}
inline void count_global(Warp& w, const Access& access, uint32_t lanes, bool load) {
  if (!lanes) return;
  Counts& counts = *w.block->counts;
  uint64_t sectors[kLanes];  // an access lies in one
  size_t n = 0;
  for (int l = 0; l < kLanes; ++l)
    if (lanes >> l & 1)
      if (const uint64_t sector = access.address[l] / 32; !n || sectors[n - 1] != sector) sectors[n++] = sector;
  n = distinct(sectors, n);
  ++(load ? counts.loads : counts.stores);
  counts.busy += __builtin_popcount(lanes);
  counts.sectors += n;
  uint64_t line = ~0ull;
  for (size_t k = 0; k < n; ++k) {
    counts.global += sectors[k] / 4 != line;
    line = sectors[k] / 4;
    counts.level2 += load ? w.block->cache.add(sectors[k]) : 1;
  }
}
inline void count_shared(Warp& w, const Access& access, uint32_t lanes) {
  if (!lanes) return;
  uint64_t words[4 * kLanes];
  size_t n = 0;
  for (int l = 0; l < kLanes; ++l)
    if (lanes >> l & 1)
      for (int k = 0; k < std::max(1, access.bytes / 4); ++k) {
        const uint64_t word = access.address[l] / 4 + k;
        if (!n || words[n - 1] != word) words[n++] = word;
      }
  n = distinct(words, n);
  int most = 0, of_bank[32] = {};
  for (size_t k = 0; k < n; ++k) most = std::max(most, ++of_bank[words[k] % 32]);
  w.block->counts->shared += most;
}
inline unsigned char* shared_place(Warp& w, const Instruction& i, uint64_t at, int bytes) {
  if (at < 0x400 || at + bytes > w.block->shared.size()) fail(w, "outside of shared memory: " + i.text);
  return w.block->shared.data() + at;
}

template <bool kShared>
void load(Warp& w, const Instruction& i, uint32_t lanes) {
  const Access access = addresses(w, i, i.operands[1], lanes);
  kShared ? count_shared(w, access, lanes) : count_global(w, access, lanes, true);
  Words read[4] = {};
  for (int l = 0; l < kLanes; ++l) {
    if (!(lanes >> l & 1)) continue;
    const unsigned char* from = kShared ? shared_place(w, i, access.address[l], access.bytes)
                                        : reinterpret_cast<const unsigned char*>(access.address[l]);
    uint32_t words[4] = {};
    memcpy(words, from, size_t(access.bytes));
    if (i.has("S16")) words[0] = static_cast<uint32_t>(int16_t(words[0]));
    if (i.has("S8")) words[0] = static_cast<uint32_t>(int8_t(words[0]));
    for (int k = 0; k < 4; ++k) read[k][l] = words[k];
  }
  for (int k = 0; k < std::max(1, access.bytes / 4); ++k) put(w, i.operands[0], read[k], lanes, k);
}
template <bool kShared>
void store(Warp& w, const Instruction& i, uint32_t lanes) {
  const Access access = addresses(w, i, i.operands[0], lanes);
  kShared ? count_shared(w, access, lanes) : count_global(w, access, lanes, false);
  Words written[4];
  for (int k = 0; k < std::max(1, access.bytes / 4); ++k) written[k] = raw(w, i.operands[1], k);
  for (int l = 0; l < kLanes; ++l) {
    if (!(lanes >> l & 1)) continue;
    unsigned char* to = kShared ? shared_place(w, i, access.address[l], access.bytes)
                                : reinterpret_cast<unsigned char*>(access.address[l]);
    uint32_t words[4];
    for (int k = 0; k < 4; ++k) words[k] = k < std::max(1, access.bytes / 4) ? written[k][l] : 0;
    memcpy(to, words, size_t(access.bytes));
  }
}
inline void atoms(Warp& w, const Instruction& i, uint32_t lanes) {  // ATOMS.ADD, .MIN.S32, .POPC.INC of shared memory
  const Operand& place = i.operands[1];
  if (i.operands[0].at != kZero) fail(w, "the old value is wanted: " + i.text);
  const Access access = addresses(w, i, place, lanes);
  count_shared(w, access, lanes);
  const Words value = i.has("INC") ? all(1) : raw(w, i.operands[2]);
  for (int l = 0; l < kLanes; ++l) {
    if (!(lanes >> l & 1)) continue;
    unsigned char* to = shared_place(w, i, access.address[l], 4);
    uint32_t old;
    memcpy(&old, to, 4);
    const uint32_t next = i.has("MIN") ? uint32_t(std::min(int32_t(old), int32_t(value[l]))) : old + value[l];
    memcpy(to, &next, 4);
  }
}
inline void redg(Warp& w, const Instruction& i, uint32_t lanes) {  // REDG.OR.64 of global memory
  if (!i.has("OR") || i.size != 64) fail(w, "not implemented: " + i.text);
  const Access access = addresses(w, i, i.operands[0], lanes);
  count_global(w, access, lanes, false);
  const Longs value = pair(w, i.operands[1]);
  for (int l = 0; l < kLanes; ++l)
    if (lanes >> l & 1) *reinterpret_cast<uint64_t*>(access.address[l]) |= value[l];
}
inline void ldc(Warp& w, const Instruction& i, uint32_t lanes) {
  if (i.size == 64)
    return put_pair(w, i.operands[0], joined(constant(w, i.operands[1]), constant(w, i.operands[1], 1)), lanes);
  const Words value = constant(w, i.operands[1]);
  put(w, i.operands[0], i.size == 8 ? value & 0xffu : value, lanes);
}
inline void s2r(Warp& w, const Instruction& i, uint32_t lanes) {
  const std::string& name = i.operands[1].name;
  const auto& at = w.block->at;
  Words value{};
  if (name == "SR_TID.X")
    value = w.x;
  else if (name == "SR_TID.Y")
    value = w.y;
  else if (name == "SR_TID.Z")
    value = w.z;
  else if (name == "SR_CTAID.X")
    value = all(at[0]);
  else if (name == "SR_CTAID.Y")
    value = all(at[1]);
  else if (name == "SR_CTAID.Z")
    value = all(at[2]);
  else if (name == "SR_LANEID")
    value = each([](int l) { return unsigned(l); });
  else if (name != "SR_CgaCtaId")
    fail(w, "special register: " + i.text);
  put(w, i.operands[0], value, lanes);
}
inline void b2r(Warp& w, const Instruction& i, uint32_t lanes) {
  put_bits(w, i.operands[1], w.block->result ? ~0u : 0, lanes);
}
inline void nothing(Warp&, const Instruction&, uint32_t) {}

// ---- control flow -----------------------------------------------------------------
// Executed by `step`, which knows the warp's splits.
inline void control(Warp& w, const Instruction& i, uint32_t) {
  fail(w, "not implemented: " + i.text);
}

inline void decode(Instruction* i) {
  struct How {
    Execute execute;
    Pipe pipe;
    const char* modifiers;  // those that are implemented, each between spaces
  };
  constexpr const char* kSet = " LT EQ LE GT NE GE NUM NAN LTU EQU LEU GTU NEU GEU MAX MIN AND OR U32 EX FTZ ";
  static const std::unordered_map<std::string, How> table{
      {"IADD3", {iadd3, Alu, " X "}},
      {"IMAD", {imad, Fma, " MOV SHL IADD U32 X WIDE HI "}},
      {"LEA", {lea, Alu, " HI X SX32 "}},
      {"LOP3", {lop3, Alu, " LUT "}},
      {"PLOP3", {plop3, Alu, " LUT "}},
      {"SHF", {shf, Alu, " L R U32 S32 U64 S64 HI "}},
      {"ISETP", {isetp, Alu, kSet}},
      {"FSETP", {fsetp, Alu, kSet}},
      {"DSETP", {dsetp, Fp64, kSet}},
      {"SEL", {sel, Alu, ""}},
      {"FSEL", {sel, Alu, ""}},
      {"MOV", {mov, Alu, ""}},
      {"CS2R", {cs2r, Alu, ""}},
      {"VIADD", {viadd, Alu, ""}},
      {"VIMNMX", {vimnmx, Alu, ""}},
      {"VIADDMNMX", {viaddmnmx, Alu, ""}},
      {"IABS", {iabs, Alu, ""}},
      {"FLO", {flo, Xu, " U32 SH "}},
      {"POPC", {popc, Xu, ""}},
      {"BREV", {brev, Xu, ""}},
      {"PRMT", {prmt, Alu, ""}},
      {"FADD", {fadd, Fma, " FTZ "}},
      {"FMUL", {fmul, Fma, " FTZ "}},
      {"FFMA", {ffma, Fma, " FTZ RM RP RZ SAT "}},
      {"FMNMX", {fmnmx, Alu, " NAN FTZ "}},
      {"DADD", {dadd, Fp64, ""}},
      {"DMUL", {dmul, Fp64, " RM RP RZ "}},
      {"DFMA", {dfma, Fp64, " RM RP RZ "}},
      {"MUFU", {mufu, Xu, " RCP RSQ EX2 RCP64H RSQ64H "}},
      {"FCHK", {fchk, Xu, ""}},
      {"F2FP", {f2fp, Alu, " BF16 F16 F32 PACK_AB "}},
      {"HADD2", {hadd2, Fma, " F32 "}},
      {"HFMA2", {hfma2, Fma, " MMA "}},
      {"F2I", {f2i, Xu, " F64 S64 U64 U32 FTZ NTZ CEIL FLOOR TRUNC "}},
      {"I2F", {i2f, Xu, " F64 S64 U64 U32 RP "}},
      {"I2FP", {i2f, Alu, " F32 S32 U32 "}},
      {"F2F", {f2f, Xu, " F32 F64 "}},
      {"FRND", {frnd, Xu, " F64 CEIL FLOOR "}},
      {"VOTE", {vote, Alu, " ANY ALL "}},
      {"REDUX", {redux, Alu, " MIN S32 "}},
      {"SHFL", {shfl, Memory, " IDX UP DOWN BFLY "}},
      {"R2UR", {r2ur, Alu, ""}},
      {"P2R", {p2r, Alu, ""}},
      {"S2R", {s2r, Alu, ""}},
      {"LDG", {load<false>, Memory, " E 128 64 U16 S16 U8 S8 CONSTANT STRONG SM GPU "}},
      {"STG", {store<false>, Memory, " E 128 64 U16 U8 STRONG SM GPU "}},
      {"LDS", {load<true>, Memory, " 128 64 U16 S16 U8 S8 "}},
      {"STS", {store<true>, Memory, " 128 64 U16 U8 "}},
      {"ATOMS", {atoms, Memory, " ADD MIN S32 POPC INC 32 "}},
      {"REDG", {redg, Memory, " E OR 64 STRONG GPU "}},
      {"LDC", {ldc, Memory, " 64 U8 "}},
      {"B2R", {b2r, Control, " RESULT "}},
      {"NOP", {nothing, Control, ""}},
      {"YIELD", {nothing, Control, ""}}};
  static const char* branches[] = {"BRA", "EXIT", "BSSY", "BSYNC", "BREAK", "CALL", "RET", "BAR", "WARPSYNC"};
  for (const char* name : branches)
    if (i->name == name) return void(i->execute = control);
  const std::string& name = i->name;
  auto found = table.find(name == "S2UR" ? "S2R" : name == "VOTEU" ? "VOTE" : name);
  const bool uniform = found == table.end() || found->first != name;
  if (found == table.end()) found = table.find(name.substr(1));  // UIADD3
  i->execute = control;  // an error if it is reached: ENDCOLLECTIVE, and what newer compilers may emit
  if (found == table.end()) return;
  const How& how = found->second;
  for (const std::string& modifier : i->modifiers)
    if (!strstr(how.modifiers, (" " + modifier + " ").c_str())) return;
  i->pipe = uniform ? Uniform : how.pipe;
  if (name == "HFMA2") {
    for (const Operand* zero : {&i->operands[1], &i->operands[2]})
      if (zero->kind != 'R' || zero->at != kZero) return;
    i->select = to_half(bit_cast<float>(uint32_t(i->operands[3].bits))) << 16 |
                to_half(bit_cast<float>(uint32_t(i->operands[4].bits)));
  }
  if ((name == "HADD2" && !i->has("F32")) || (name == "REDUX" && !(i->has("MIN") && i->has("S32")))) return;
  i->execute = found->first == "IMAD" && (i->has("WIDE") || i->has("HI")) ? imad_wide : how.execute;
  if (name == "MUFU") i->select = i->has("RCP") ? 0 : i->has("RSQ") ? 1 : 2;
  if (how.modifiers == kSet && !i->has("MAX") && !i->has("MIN")) i->select = comparison(*i);
  if (name == "FFMA" || name == "DFMA" || name == "DMUL") i->select = static_cast<uint32_t>(rounding(*i));
  i->size = i->has("128")                    ? 128
            : i->has("64")                   ? 64
            : i->has("U16") || i->has("S16") ? 16
            : i->has("U8") || i->has("S8")   ? 8
                                             : 32;
}

// Runs a warp until all of its lanes wait or have exited.
class Runner {
 public:
  Runner(Warp& w, std::vector<Split>& s) : warp(w), splits(s), counts(*w.block->counts), code(w.block->kernel->code) {}

  uint64_t run() {
    const uint64_t before = issued;
    for (;;) {
      settle();
      const auto ready = std::find_if(splits.rbegin(), splits.rend(), [](const Split& s) { return s.wait == Ready; });
      if (ready == splits.rend()) return issued - before;
      const size_t chosen = static_cast<size_t>(splits.rend() - ready - 1);
      while (step(chosen)) {
      }
      splits.erase(std::remove_if(splits.begin(), splits.end(), [](const Split& s) { return !s.lanes; }), splits.end());
    }
  }

 private:
  // Lets lanes go that all have arrived.
  void settle() {
    for (size_t k = 0; k < splits.size(); ++k) {
      const Split first = splits[k];
      if (first.wait != AtBarrier && first.wait != AtWarp) continue;
      uint32_t wanted = warp.alive, here = 0;
      if (first.wait == AtBarrier) wanted &= warp.barrier[first.barrier][__builtin_ctz(first.lanes)];
      for (const Split& s : splits)
        if (s.wait == first.wait && s.at == first.at && s.barrier == first.barrier) here |= s.lanes;
      if (wanted & ~here) continue;
      // The lanes of an outer barrier may wait at the same instruction: only those wanted go on.
      Split together{wanted, first.at, Ready, 0};
      for (Split& s : splits)
        if (s.wait == first.wait && s.at == first.at && s.barrier == first.barrier) s.lanes &= ~wanted;
      splits.erase(std::remove_if(splits.begin(), splits.end(), [](const Split& s) { return !s.lanes; }), splits.end());
      splits.push_back(together);
      k = size_t(-1);
    }
  }

  // One instruction of a split; whether it can go on.
  bool step(size_t chosen) {
    Split& s = splits[chosen];
    if (s.at >= code.size()) fail(warp, "ran past the end");
    const Instruction& i = code[s.at];
    uint32_t lanes = s.lanes;
    if (i.guard.kind) lanes &= predicate(warp, i.guard);
    ++issued;
    ++counts.instructions;
    ++counts.pipes[i.pipe];
    counts.lanes += __builtin_popcount(lanes);
    warp.running = &s;
    if (i.execute != control) {
      if (lanes) i.execute(warp, i, lanes);
      ++s.at;
      return true;
    }
    if (i.name == "BRA") return branch(chosen, i, lanes);
    if (i.name == "EXIT" && !i.operands.empty()) lanes &= predicate(warp, i.operands[0]);
    if (!lanes) return ++s.at, true;
    if (i.name == "EXIT") {
      warp.alive &= ~lanes;
      s.lanes &= ~lanes;
      ++s.at;
      return s.lanes != 0;
    }
    if (i.name == "CALL") return part(chosen, lanes, i.target / 16);
    if (i.name == "RET") return ret(chosen, i, lanes);
    if (i.name == "BREAK") {
      Words& barrier = warp.barrier[i.operands[0].at];
      barrier &= ~lanes;
      ++s.at;
      return true;
    }
    if (lanes != s.lanes) fail(warp, "only some lanes: " + i.text);
    if (i.name == "BSSY") {
      Words& barrier = warp.barrier[i.operands[0].at];
      const Words mask = expand(lanes);
      barrier = (barrier & ~mask) | (mask & lanes);
      ++s.at;
      return true;
    }
    ++s.at;  // where it goes on
    if (i.name == "BSYNC") return s.wait = AtBarrier, s.barrier = i.operands[0].at, false;
    if (i.name == "WARPSYNC" && i.has("ALL")) return s.wait = AtWarp, false;
    if (i.name == "BAR") {
      if (i.operands[0].bits != 0 || !(i.has("SYNC") || (i.has("RED") && i.has("OR")))) control(warp, i, lanes);
      if (i.has("RED")) warp.block->votes |= (predicate(warp, i.operands[1]) & lanes) != 0;
      return s.wait = AtBlock, false;
    }
    control(warp, i, lanes);
    return false;
  }

  // Sends some lanes elsewhere.
  bool part(size_t chosen, uint32_t taken, uint32_t target) {
    Split& s = splits[chosen];
    if (taken == s.lanes) return s.at = target, true;
    ++s.at;
    if (!taken) return true;
    s.lanes &= ~taken;
    splits.push_back({taken, target, Ready, 0});  // s is invalid now
    return false;
  }
  bool branch(size_t chosen, const Instruction& i, uint32_t lanes) {
    if (i.has("DIV")) {  // unless the lanes of the mask run together
      if (warp.u[i.operands[0].at] == splits[chosen].lanes) return ++splits[chosen].at, true;
      fail(warp, "lanes run apart at " + i.text);
    }
    if (i.operands.size() > 1) lanes &= predicate(warp, i.operands[0]);
    return part(chosen, lanes, i.target / 16);
  }
  bool ret(size_t chosen, const Instruction& i, uint32_t lanes) {
    const Words to = raw(warp, i.operands[0]);
    const uint32_t target = to[__builtin_ctz(lanes)];
    uint32_t same = 0;
    for (int l = 0; l < kLanes; ++l) same |= uint32_t(to[l] == target) << l;
    if (lanes != splits[chosen].lanes) fail(warp, "only some lanes: " + i.text);
    Split& s = splits[chosen];
    if ((same & lanes) == lanes) return s.at = target / 16, true;
    s.lanes &= ~same;
    splits.push_back({same & lanes, target / 16, Ready, 0});
    return false;
  }

  Warp& warp;
  std::vector<Split>& splits;
  Counts& counts;
  const std::vector<Instruction>& code;
  uint64_t issued = 0;
};

inline uint64_t run_block(Block& b) {
  const uint32_t threads = b.size[0] * b.size[1] * b.size[2], warps = (threads + 31) / 32;
  b.warps.resize(warps);
  b.splits.assign(warps, {});
  std::fill(b.shared.begin(), b.shared.end(), 0xff);
  b.cache.clear();
  b.votes = b.result = false;
  for (uint32_t n = 0; n < warps; ++n) {
    Warp& w = b.warps[n];
    w.r.assign(static_cast<size_t>(b.kernel->registers), all(0xcdcdcdcdu));
    const uint32_t left = threads - 32 * n;
    w.alive = left < 32 ? (1u << left) - 1 : ~0u;
    w.block = &b;
    for (uint32_t l = 0; l < 32; ++l) {
      const uint32_t t = 32 * n + l;
      w.x[l] = t % b.size[0], w.y[l] = t / b.size[0] % b.size[1], w.z[l] = t / (b.size[0] * b.size[1]);
    }
    b.splits[n].push_back({w.alive, 0, Ready, 0});
  }
  std::vector<uint64_t> issued(warps);
  for (;;) {
    bool some = false, waiting = false;
    for (uint32_t n = 0; n < warps; ++n) {
      const uint64_t more = Runner(b.warps[n], b.splits[n]).run();
      issued[n] += more;
      some |= more != 0;
      for (const Split& s : b.splits[n]) {
        if (s.wait != AtBlock) fail(b.warps[n], "lanes wait for others that never come");
        waiting = true;
      }
    }
    if (!waiting) break;
    if (!some) fail(b.warps[0], "deadlock");
    b.result = b.votes, b.votes = false;
    for (auto& splits : b.splits)
      for (Split& s : splits) s.wait = Ready;
  }
  uint64_t sum = 0;
  for (const uint64_t n : issued) {
    sum += n;
    b.counts->longest_warp = std::max(b.counts->longest_warp, n);
  }
  return sum;
}

// The counts of a launch with the parameters' bytes.
inline Counts launch(const Kernel& kernel, const uint32_t (&grid)[3], const uint32_t (&size)[3],
                     const std::vector<unsigned char>& parameters) {
  Counts counts;
  counts.kernel = kernel.name;
  static Block b;  // its memory is used again
  b.kernel = &kernel;
  b.counts = &counts;
  b.bank.assign(kParameters, 0);
  const uint32_t head[6] = {size[0], size[1], size[2], grid[0], grid[1], grid[2]};
  memcpy(b.bank.data(), head, sizeof head);
  b.bank.insert(b.bank.end(), parameters.begin(), parameters.end());
  b.shared.resize(kSharedBytes);
  for (int k = 0; k < 3; ++k) b.size[k] = size[k], b.grid[k] = grid[k];
  for (b.at[2] = 0; b.at[2] < grid[2]; ++b.at[2])
    for (b.at[1] = 0; b.at[1] < grid[1]; ++b.at[1])
      for (b.at[0] = 0; b.at[0] < grid[0]; ++b.at[0]) {
        ++counts.blocks;
        counts.longest_block = std::max(counts.longest_block, run_block(b));
        counts.warps += b.warps.size();
      }
  return counts;
}

}  // namespace sass
