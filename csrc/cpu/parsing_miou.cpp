// parsing_miou: per RoI the mean over present classes of |prediction ∩ truth| / |prediction ∪ truth|.
//
// Fewest bytes: the logits and the target read once, 4 bytes written per RoI: 21 MB for 16 RoIs × 20 classes × 128².
// The arithmetic is one comparison per logit. A block of 1024 pixels keeps its running maximum and label in cache while
// the classes stream past, then feeds three counts per class; no label map is stored. One RoI per work item. Where a
// pixel's logits lie together, 4096 of them at a time are transposed to planes in the L1 cache.
//
// Ladder, times faster than argmax and bincount at 16 / 512 RoIs, two cores:
//   planes         31 to 38 / 38 to 43: half of the copying speed; the rest is counting, three increments a pixel
//   channels last  2.4 / 2.8 pixel by pixel; 6.5 / 8.7 transposed. The baseline is 4 times as fast there as on planes:
//                  reading the logits at copying speed would be 14 to 17 times as fast
#include "class_maps.h"

namespace rpcnn {
namespace {

constexpr int64_t kPixels = 1024;
constexpr int64_t kMostClasses = 4096;  // the most that the CUDA kernel can count in shared memory

// label[i] = the first class of the largest logit where a pixel's logits lie together: by few pixels, made planes.
template <typename T, typename A>
void argmax_pixels(const T* logits, int64_t K, int64_t count, int32_t* label) {
  const int64_t piece = std::min(count, pixels_in_cache(K));
  std::vector<A> planes(K * piece), best(piece);
  for (int64_t i = 0; i < count; i += piece) {
    const int64_t some = std::min(piece, count - i);
    planes_of<T, A>(logits + i * K, K, K, some, planes.data(), some);
    argmax_planes<A, A>(planes.data(), K, some, some, best.data(), label + i);
  }
}

// Integer labels of any width as int32; values outside [0, K) and `ignored` become `other`.
template <typename I>
void load(const I* from, int64_t count, int64_t K, int64_t ignored, int32_t other, int32_t* to) {
  for (int64_t i = 0; i < count; ++i) {
    const int64_t value = int64_t(from[i]);
    to[i] = value < 0 || value >= K || value == ignored ? other : int32_t(value);
  }
}

void load(const Tensor& labels, int64_t offset, int64_t count, int64_t K, int64_t ignored, int32_t other, int32_t* to) {
  const auto from = [&](auto type) {
    load(static_cast<const decltype(type)*>(labels.const_data_ptr()) + offset, count, K, ignored, other, to);
  };
  switch (labels.scalar_type()) {
    case ScalarType::Byte:
      return from(uint8_t{});
    case ScalarType::Char:
      return from(int8_t{});
    case ScalarType::Short:
      return from(int16_t{});
    case ScalarType::Int:
      return from(int32_t{});
    case ScalarType::Long:
      return from(int64_t{});
    default:
      break;
  }
  STD_TORCH_CHECK(false, "parsing_miou: labels must be integers");
}

template <typename Predict>
void score(const Tensor& target, int64_t K, int64_t ignored, float* out, const Predict& predict) {
  const int64_t pixels = target.size(1) * target.size(2);
  parallel(target.size(0), 1, [&](int64_t begin, int64_t end) {
    std::array<int32_t, kPixels> prediction, truth;
    for (int64_t n = begin; n < end; ++n) {
      Counts counts(K);
      for (int64_t start = 0; start < pixels; start += kPixels) {
        const int64_t count = std::min(kPixels, pixels - start);
        predict(n, start, count, prediction.data());
        load(target, n * pixels + start, count, K, ignored, -1, truth.data());
        counts.add(prediction.data(), truth.data(), count);
      }
      out[n] = counts.mean_iou();
    }
  });
}

Tensor parsing_miou(Tensor logits_or_labels, Tensor target, int64_t num_classes, int64_t ignore_index) {
  const bool logits = logits_or_labels.dim() == 4;
  STD_TORCH_CHECK(
      target.dim() == 3 && target.is_cpu() && logits_or_labels.is_cpu() && logits_or_labels.dim() == (logits ? 4 : 3),
      "parsing_miou: wants [N, K, H, W] logits or [N, H, W] labels and a [N, H, W] target, on the CPU");
  STD_TORCH_CHECK(num_classes > 0 && num_classes <= kMostClasses, "parsing_miou: num_classes must be 1 to ",
                  kMostClasses, ", got ", num_classes);
  STD_TORCH_CHECK(!logits || logits_or_labels.size(1) == num_classes,
                  "parsing_miou: num_classes must be the logits' channels");
  const int64_t at = logits ? 2 : 1;
  STD_TORCH_CHECK(logits_or_labels.size(0) == target.size(0) && logits_or_labels.size(at) == target.size(1) &&
                      logits_or_labels.size(at + 1) == target.size(2),
                  "parsing_miou: target must cover the prediction's RoIs and pixels");
  const Tensor truth = target.is_contiguous() ? target : torch::stable::contiguous(target);
  const int64_t N = target.size(0), K = num_classes, pixels = target.size(1) * target.size(2);
  Tensor out = empty_cpu({N}, ScalarType::Float);
  float* result = out.mutable_data_ptr<float>();
  if (!logits) {
    const Tensor labels =
        logits_or_labels.is_contiguous() ? logits_or_labels : torch::stable::contiguous(logits_or_labels);
    score(truth, K, ignore_index, result, [&](int64_t n, int64_t start, int64_t count, int32_t* prediction) {
      load(labels, n * pixels + start, count, K, -1, int32_t(K), prediction);
    });
    return out;
  }
  const bool channels_last = is_channels_last(logits_or_labels);
  const Tensor source = dense(logits_or_labels, channels_last);
  dispatch_floating("parsing_miou", source.scalar_type(), [&](auto type) {
    using T = decltype(type);
    using A = accumulate_t<T>;
    const T* data = source.const_data_ptr<T>();
    score(truth, K, ignore_index, result, [&](int64_t n, int64_t start, int64_t count, int32_t* prediction) {
      if (channels_last) {
        argmax_pixels<T, A>(data + (n * pixels + start) * K, K, count, prediction);
      } else {
        std::array<A, kPixels> best;
        argmax_planes<T, A>(data + n * K * pixels + start, K, pixels, count, best.data(), prediction);
      }
    });
  });
  return out;
}

STABLE_TORCH_LIBRARY_IMPL(rpcnn, CPU, m) {
  m.impl("parsing_miou", TORCH_BOX(&parsing_miou));
}

}  // namespace
}  // namespace rpcnn
