// draw_samples: the boxes of each kind are listed with their sort key, the drawn ones selected (quickselect) and
// sorted. Reads 12 bytes a box, and moves 8 bytes a box that may be drawn some three times. Not timed yet.
#include "../geometry/samples.h"

#include <tuple>

#include "common.h"

namespace rpcnn {
namespace {

// The first `count` of them in ascending order.
void select(std::vector<uint64_t>& items, int64_t count) {
  if (count < int64_t(items.size())) {
    std::nth_element(items.begin(), items.begin() + count, items.end());
    items.resize(count);
  }
  std::sort(items.begin(), items.end());
}

std::tuple<Tensor, Tensor> draw_samples(Tensor matched, Tensor keys, int64_t count, int64_t max_positive,
                                        bool negatives) {
  STD_TORCH_CHECK(matched.dim() == 1 && matched.is_cpu() && matched.scalar_type() == ScalarType::Long,
                  "draw_samples: matched must be int64 [n] on the CPU");
  const int64_t n = matched.size(0);
  STD_TORCH_CHECK(keys.dim() == 1 && keys.size(0) == n && keys.is_cpu() && keys.scalar_type() == ScalarType::Float,
                  "draw_samples: keys must be float32 [n] on the CPU");
  STD_TORCH_CHECK(n <= INT32_MAX, "draw_samples: at most 2^31 - 1 boxes, got ", n);
  STD_TORCH_CHECK(count >= 0 && max_positive >= 0, "draw_samples: count and max_positive must be >= 0");
  const Tensor truth = dense(matched, false), random = dense(keys, false);
  const int64_t* of = truth.const_data_ptr<int64_t>();
  const float* numbers = random.const_data_ptr<float>();
  std::vector<uint64_t> positive, negative;  // sort key and index
  negative.reserve(negatives ? n : 0);
  for (int64_t i = 0; i < n; ++i) {
    const int32_t key = sample_key(of[i], numbers[i], negatives);
    if (key != kNotDrawn) (of[i] < 0 ? negative : positive).push_back(uint64_t(key) << 32 | uint64_t(i));
  }
  const int64_t size = std::min(count, n);
  select(positive, std::min(size, max_positive));
  select(negative, size - int64_t(positive.size()));
  Tensor samples = empty_cpu({size}, ScalarType::Long), people = empty_cpu({size}, ScalarType::Long);
  int64_t *index = samples.mutable_data_ptr<int64_t>(), *person = people.mutable_data_ptr<int64_t>();
  for (const auto* items : {&positive, &negative})
    for (const uint64_t item : *items) *index = int64_t(item & UINT32_MAX), *person++ = of[*index], ++index;
  std::fill(index, samples.mutable_data_ptr<int64_t>() + size, 0);
  std::fill(person, people.mutable_data_ptr<int64_t>() + size, kIgnored);
  return {samples, people};
}

STABLE_TORCH_LIBRARY_IMPL(rpcnn, CPU, m) {
  m.impl("draw_samples", TORCH_BOX(&draw_samples));
}

}  // namespace
}  // namespace rpcnn
