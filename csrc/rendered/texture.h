// Textures with mip-maps: RGBA bytes, repeated outside 0..1, v upwards as in OBJ files.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

namespace rpcnn::rendered {

// std::floor is a library call on plain x86-64.
inline int floor_int(float x) {
  const int i = static_cast<int>(x);
  return i - (static_cast<float>(i) > x);
}

// sRGB bytes to linear light in 0..1.
inline const std::array<float, 256>& linear_of_byte() {
  static const std::array<float, 256> table = [] {
    std::array<float, 256> t{};
    for (int i = 0; i < 256; ++i) {
      const double s = i / 255.0;
      t[i] = static_cast<float>(s <= 0.04045 ? s / 12.92 : std::pow((s + 0.055) / 1.055, 2.4));
    }
    return t;
  }();
  return table;
}

struct Level {
  int height, width;
  std::vector<uint8_t> pixels;  // [height, width, 4]
};

class Texture {
 public:
  Texture(int height, int width, std::vector<uint8_t> pixels) {
    levels_.push_back({height, width, std::move(pixels)});
    while (levels_.back().height > 1 || levels_.back().width > 1) levels_.push_back(half(levels_.back()));
    log_size_ = 0.5f * std::log2(static_cast<float>(height) * static_cast<float>(width));
  }

  // Bilinear sample; log_scale is log2 of the uv distance between neighboring pixels of the picture. rgb and alpha in
  // 0..255.
  void sample(float u, float v, float log_scale, float* out) const {
    const float want = log_scale + log_size_ + 0.3f;
    const int last = static_cast<int>(levels_.size()) - 1;
    const Level& level = levels_[!(want > 0) ? 0 : (want >= last ? last : static_cast<int>(want))];
    if (!(std::fabs(u) < 1e6f && std::fabs(v) < 1e6f)) u = v = 0;  // of a triangle whose points are far out of range
    float x = u - floor_int(u), y = 1 - v;
    y -= floor_int(y);
    x = x * level.width - 0.5f, y = y * level.height - 0.5f;
    const int xi = floor_int(x), yi = floor_int(y);
    const float fx = x - xi, fy = y - yi;
    const int x0 = wrap(xi, level.width), x1 = wrap(xi + 1, level.width);
    const int y0 = wrap(yi, level.height), y1 = wrap(yi + 1, level.height);
    const uint8_t* p = level.pixels.data();
    const uint8_t *a = p + 4 * (y0 * level.width + x0), *b = p + 4 * (y0 * level.width + x1);
    const uint8_t *c = p + 4 * (y1 * level.width + x0), *d = p + 4 * (y1 * level.width + x1);
    const float wa = (1 - fx) * (1 - fy), wb = fx * (1 - fy), wc = (1 - fx) * fy, wd = fx * fy;
    for (int k = 0; k < 4; ++k) out[k] = wa * a[k] + wb * b[k] + wc * c[k] + wd * d[k];
  }

  float sample_alpha(float u, float v, float log_scale) const {
    float c[4];
    sample(u, v, log_scale, c);
    return c[3];
  }

 private:
  static int wrap(int i, int n) { return i < 0 ? i + n : (i >= n ? i - n : i); }

  // The mean of 2 × 2 pixels, color weighted by alpha so that what is transparent does not bleed.
  static Level half(const Level& from) {
    Level to{std::max(from.height / 2, 1), std::max(from.width / 2, 1), {}};
    to.pixels.resize(size_t{4} * to.height * to.width);
    for (int y = 0; y < to.height; ++y)
      for (int x = 0; x < to.width; ++x) {
        int sum[3] = {0, 0, 0}, weight = 0;
        for (int k = 0; k < 4; ++k) {
          const int yy = std::min(2 * y + k / 2, from.height - 1), xx = std::min(2 * x + k % 2, from.width - 1);
          const uint8_t* p = &from.pixels[size_t{4} * (yy * from.width + xx)];
          const int w = p[3] + 1;  // at least 1: a garment's alpha is its ambient occlusion
          for (int c = 0; c < 3; ++c) sum[c] += w * p[c];
          weight += w;
        }
        uint8_t* q = &to.pixels[size_t{4} * (y * to.width + x)];
        for (int c = 0; c < 3; ++c) q[c] = static_cast<uint8_t>(sum[c] / weight);
        q[3] = static_cast<uint8_t>((weight - 4) / 4);
      }
    return to;
  }

  std::vector<Level> levels_;
  float log_size_;
};

}  // namespace rpcnn::rendered
