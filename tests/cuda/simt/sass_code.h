// sass_code.h: the machine code of kernels (SASS), read from the text that `cuobjdump --dump-sass` prints.
#pragma once

#include <cxxabi.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

namespace sass {

// R register, U uniform register, P predicate, Q uniform predicate, B convergence barrier, I immediate, C constant
// bank, M address in memory, S special register.
struct Operand {
  char kind = 0;
  int at = 0;                                                // number of the register
  bool negative = false, absolute = false, inverse = false;  // -x, |x|, ~x or !x
  bool upper_half = false;                                   // .H1_H1
  uint64_t bits = 0;                                         // immediate: the number's bits; a double's are all 64
  int base = -1, uniform = -1;  // C, M: number of the register added, of the uniform register
  int64_t offset = 0;           // C, M
  std::string name;             // S
};

struct Warp;
struct Instruction;
using Execute = void (*)(Warp&, const Instruction&, uint32_t lanes);

// The unit that executes an instruction. Uniform: the scalar path beside the warp's; Control: branches and barriers.
enum Pipe { Fma, Alu, Fp64, Xu, Memory, Uniform, Control, kPipes };

struct Instruction {
  std::string name;                    // LDG
  std::vector<std::string> modifiers;  // E, 128
  std::vector<Operand> operands;
  Operand guard;  // executed by the lanes where this holds; kind 0: by all
  uint32_t target = 0;
  Execute execute = nullptr;
  Pipe pipe = Control;
  int size = 32;  // Bits that a load, store or wide move takes; or as the instruction needs it
  uint32_t select = 0;

  bool has(const char* modifier) const {
    for (const auto& m : modifiers)
      if (m == modifier) return true;
    return false;
  }
  std::string text;
};

struct Kernel {
  std::string name;
  std::vector<Instruction> code;
  int registers = 0;
};

// "void rpcnn::nms_keys_kernel<float>(float const*, …)" as "nms_keys_kernel<float>"; also of a Symbol of it.
inline std::string short_name(const std::string& mangled) {
  int status = 0;
  std::unique_ptr<char, void (*)(void*)> full(abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status), free);
  std::string name = status ? mangled : full.get();
  if (name.compare(0, 14, "sass::Symbol<&") == 0)
    name = name.substr(name[14] == '(' ? 15 : 14, name.size() - (name[14] == '(' ? 17 : 15));
  for (const char* part : {"void ", "rpcnn::", "(bool)", "(int)"})
    for (size_t i; (i = name.find(part)) != std::string::npos;) name.erase(i, strlen(part));
  const size_t end = name.find(">(");
  return end != std::string::npos ? name.substr(0, end + 1) : name.substr(0, name.find('('));
}

inline std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) {
    const size_t first = part.find_first_not_of(' '), last = part.find_last_not_of(' ');
    parts.push_back(first == std::string::npos ? "" : part.substr(first, last - first + 1));
  }
  return parts;
}

// The number of a register: Z and T, the constant ones, are the highest.
inline bool register_named(const std::string& text, const char* prefix, char constant, int last, int* at) {
  const size_t n = strlen(prefix);
  if (text.compare(0, n, prefix) || text.size() == n) return false;
  if (text[n] == constant && text.size() == n + 1) return *at = last, true;
  for (size_t i = n; i < text.size(); ++i)
    if (!isdigit(text[i])) return false;
  return *at = atoi(text.c_str() + n), true;
}

constexpr int kZero = 255, kUniformZero = 63, kTrue = 7;

inline void parse_sum(std::string text, Operand* operand) {  // R3+UR4+-0x8
  for (std::string part : split(text, '+')) {
    if (const size_t wide = part.find(".64"); wide != std::string::npos) part.erase(wide), operand->absolute = true;
    int at;
    if (register_named(part, "R", 'Z', kZero, &at)) {
      operand->base = at;
    } else if (register_named(part, "UR", 'Z', kUniformZero, &at)) {
      operand->uniform = at;
    } else {
      operand->offset = strtoll(part.c_str(), nullptr, 16);
    }
  }
}

// An operand; decimal numbers are doubles for instructions on doubles and floats otherwise.
inline Operand parse_operand(std::string text, bool doubles) {
  Operand o;
  if (const size_t bracket = text.find('['); bracket != std::string::npos) {
    const size_t last = text.rfind('[');
    if (text[0] == 'c' && text.compare(0, 6, "c[0x0]")) throw std::runtime_error("sass: constant bank of " + text);
    o.kind = text[0] == 'c' ? 'C' : 'M';
    parse_sum(text.substr(last + 1, text.rfind(']') - last - 1), &o);
    return o;
  }
  if (const size_t reuse = text.find(".reuse"); reuse != std::string::npos) text.erase(reuse, 6);
  const std::string whole = text;
  if (text[0] == '-' || text[0] == '~' || text[0] == '!') {
    o.negative = text[0] == '-', o.inverse = !o.negative;
    text.erase(0, 1);
  }
  if (text[0] == '|') o.absolute = true, text = text.substr(1, text.size() - 2);
  if (const size_t half = text.find(".H"); half != std::string::npos)
    o.upper_half = text[half + 2] == '1', text.erase(half);
  if (register_named(text, "R", 'Z', kZero, &o.at)) return o.kind = 'R', o;
  if (register_named(text, "UR", 'Z', kUniformZero, &o.at)) return o.kind = 'U', o;
  if (register_named(text, "P", 'T', kTrue, &o.at)) return o.kind = 'P', o;
  if (register_named(text, "UP", 'T', kTrue, &o.at)) return o.kind = 'Q', o;
  if (register_named(text, "B", 0, 0, &o.at)) return o.kind = 'B', o;
  if (text.compare(0, 2, "SR") == 0 || text == "PR") return o.kind = 'S', o.name = text, o;
  o.kind = 'I', o.negative = o.inverse = false;
  if (text.compare(0, 2, "0x") == 0) {
    o.bits = static_cast<uint64_t>(strtoll(whole.c_str(), nullptr, 16));
  } else if (doubles) {
    const double number = whole.find("QNAN") != std::string::npos ? NAN : strtod(whole.c_str(), nullptr);
    memcpy(&o.bits, &number, 8);
  } else {
    const float number = whole.find("QNAN") != std::string::npos ? NAN : strtof(whole.c_str(), nullptr);
    uint32_t word;
    memcpy(&word, &number, 4);
    o.bits = word;
  }
  return o;
}

// "@!P0 ISETP.GE.AND P0, PT, R4, 0x1, PT"
inline Instruction parse_instruction(std::string text) {
  Instruction i;
  i.text = text;
  if (text[0] == '@') {
    const size_t end = text.find(' ');
    i.guard = parse_operand(text.substr(1, end - 1), false);
    text = text.substr(text.find_first_not_of(' ', end));
  }
  const size_t end = text.find(' ');
  i.modifiers = split(text.substr(0, end), '.');
  i.name = i.modifiers[0];
  i.modifiers.erase(i.modifiers.begin());
  if (end == std::string::npos) return i;
  std::string rest = text.substr(end);
  if (i.name == "RET") rest = rest.substr(0, rest.find(" 0x"));  // RET.REL.NODEC R2 0x0
  for (const std::string& part : split(rest, ',')) i.operands.push_back(parse_operand(part, i.name[0] == 'D'));
  if (!i.operands.empty() && i.operands.back().kind == 'I') i.target = static_cast<uint32_t>(i.operands.back().bits);
  return i;
}

// Sets how and by what an instruction is executed, in sass_execute.h.
void decode(Instruction* instruction);

// The kernels of a file that `cuobjdump --dump-sass --gpu-architecture sm_90` wrote, parsed when first asked for.
class Library {
 public:
  explicit Library(const char* path) : file(path) {
    if (!file) throw std::runtime_error(std::string("sass: cannot read ") + path);
    std::string line;
    while (std::getline(file, line))
      if (const size_t at = line.find("Function : "); at != std::string::npos)
        places.emplace(short_name(line.substr(at + 11)), file.tellg());
  }
  const Kernel& kernel(const std::string& name) {
    auto found = kernels.find(name);
    if (found == kernels.end()) found = kernels.emplace(name, read(name)).first;
    return found->second;
  }

 private:
  Kernel read(const std::string& name) {
    const auto place = places.find(name);
    if (place == places.end()) throw std::runtime_error("sass: no machine code of " + name);
    Kernel kernel;
    kernel.name = name;
    file.clear();
    file.seekg(place->second);
    std::string line;
    while (std::getline(file, line) && line.find("......") == std::string::npos) {
      const size_t start = line.find("/*"), code = line.find("*/");
      const size_t semicolon = line.find(';');
      if (start == std::string::npos || semicolon == std::string::npos || semicolon < code) continue;
      if (strtoul(line.c_str() + start + 2, nullptr, 16) != 16 * kernel.code.size())
        throw std::runtime_error("sass: an instruction of " + name + " is missing before " + line);
      const size_t first = line.find_first_not_of(' ', code + 2), last = line.find_last_not_of(' ', semicolon - 1);
      kernel.code.push_back(parse_instruction(line.substr(first, last - first + 1)));
      decode(&kernel.code.back());
      for (const Operand& o : kernel.code.back().operands)
        if (o.kind == 'R' && o.at != kZero) kernel.registers = std::max(kernel.registers, o.at + 4);
    }
    return kernel;
  }

  std::ifstream file;
  std::unordered_map<std::string, std::streampos> places;
  std::unordered_map<std::string, Kernel> kernels;
};

}  // namespace sass
