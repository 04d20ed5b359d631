// torch's stable sort of a vector, called through the stable ABI.
#pragma once

#include <array>
#include <optional>

#include "common.h"

namespace rpcnn {

struct Sorted {
  Tensor keys, indices;
};
// The keys in ascending order, equal keys in input order.
inline Sorted stable_sort(const Tensor& keys) {
  std::array<StableIValue, 4> stack{torch::stable::detail::from(keys),
                                    torch::stable::detail::from(std::optional<bool>(true)),
                                    torch::stable::detail::from(int64_t(0)), torch::stable::detail::from(false)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION));
  return {torch::stable::detail::to<Tensor>(stack[0]), torch::stable::detail::to<Tensor>(stack[1])};  // takes ownership
}

}  // namespace rpcnn
