// What a surface looks like: its own picture tinted, or dyes mixed by a pattern over the picture's light and dark.
#pragma once

#include <memory>

#include "texture.h"

namespace rpcnn::rendered {

struct Material {
  std::shared_ptr<const Texture> base;         // colors; alpha is coverage (cut_out) or ambient occlusion
  std::shared_ptr<const Texture> pattern;      // may be null: how much of dyes 1..3 lies over dye 0
  std::shared_ptr<const Texture> fold_slopes;  // may be null: slopes along u and v in red and green
  bool cut_out = false;
  bool dyed = false;
  float tint[12] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0};  // own color: matrix [3, 4] on linear rgb and 1
  float dyes[12] = {};                                    // [4, 3], linear
  float pattern_to_uv[6] = {1, 0, 0, 0, 1, 0};            // [2, 3]
  float mean = 0.5f;       // mean lightness of the picture, so that dark cloth can be dyed light
  float contrast = 1;      // exponent of the picture's light and dark under a dye
  float occlusion = 0.7f;  // share of the ambient occlusion in alpha that is applied
  float folds = 0;         // strength of the folds' slopes
  float fold_scale = 4;    // folds per unit of uv
  float shine = 0;         // specular strength
  float gloss = 20;        // specular exponent
  float softness = 0;      // light that reaches around edges, as in skin; 0..1

  // Linear rgb at uv; log_scale is log2 of the uv distance of neighboring pixels.
  void color(float u, float v, float log_scale, float* rgb) const {
    const auto& linear = linear_of_byte();
    float own[4];
    base->sample(u, v, log_scale, own);
    if (dyed) {
      float share[4] = {0, 0, 0, 0};
      if (pattern) {
        const float* m = pattern_to_uv;
        const float stretch = std::sqrt(std::fabs(m[0] * m[4] - m[1] * m[3]) + 1e-12f);
        pattern->sample(m[0] * u + m[1] * v + m[2], m[3] * u + m[4] * v + m[5], log_scale + std::log2(stretch), share);
      }
      const float light = (own[0] + own[1] + own[2]) / (3 * 255.f) + 0.02f;
      const float shade = std::pow(std::clamp(light / mean, 0.35f, 1.9f), contrast);
      for (int c = 0; c < 3; ++c) {
        float x = dyes[c];
        for (int k = 0; k < 3; ++k) x += share[k] * (1 / 255.f) * (dyes[3 * (k + 1) + c] - x);
        rgb[c] = x * shade;
      }
    } else {
      float p[3];
      for (int c = 0; c < 3; ++c) p[c] = linear[static_cast<int>(own[c] + 0.5f)];
      for (int c = 0; c < 3; ++c) {
        const float* m = tint + 4 * c;
        rgb[c] = std::max(m[0] * p[0] + m[1] * p[1] + m[2] * p[2] + m[3], 0.f);
      }
    }
    if (!cut_out && occlusion > 0) {
      const float keep = 1 - occlusion * (1 - own[3] / 255.f);
      for (int c = 0; c < 3; ++c) rgb[c] *= keep;
    }
  }
};

}  // namespace rpcnn::rendered
