// Depth of a scene seen along a direction, for cast shadows.
#pragma once

#include "canvas.h"

namespace rpcnn::rendered {

inline float dot(const float* a, const float* b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

inline void cross(const float* a, const float* b, float* out) {
  out[0] = a[1] * b[2] - a[2] * b[1], out[1] = a[2] * b[0] - a[0] * b[2], out[2] = a[0] * b[1] - a[1] * b[0];
}

inline void normalize(float* a) {
  const float scale = 1 / (std::sqrt(dot(a, a)) + 1e-12f);
  for (int k = 0; k < 3; ++k) a[k] *= scale;
}

class ShadowMap {
 public:
  // towards: unit vector to the light, in camera space.
  ShadowMap(const Canvas& canvas, const float* towards, int size) : size_(size) {
    for (int k = 0; k < 3; ++k) towards_[k] = towards[k];
    const float helper[3] = {std::fabs(towards[0]) > 0.8f ? 0.f : 1.f, std::fabs(towards[0]) > 0.8f ? 1.f : 0.f, 0.f};
    cross(towards_, helper, across_);
    normalize(across_);
    cross(towards_, across_, along_);
    float low[2] = {1e9f, 1e9f}, high[2] = {-1e9f, -1e9f};
    for (const Draw& draw : canvas.draws())
      for (size_t i = 0; i + 2 < draw.points.size(); i += 3) {
        const float x = dot(&draw.points[i], across_), y = dot(&draw.points[i], along_);
        if (!(std::fabs(x) < 1e6f && std::fabs(y) < 1e6f)) continue;
        low[0] = std::min(low[0], x), high[0] = std::max(high[0], x);
        low[1] = std::min(low[1], y), high[1] = std::max(high[1], y);
      }
    x0_ = low[0], y0_ = low[1];
    scale_ = size / std::max({high[0] - low[0], high[1] - low[1], 1.f});
    depth_.assign(size_t(size) * size, 1e9f);
    for (const Draw& draw : canvas.draws()) add(draw);
  }

  float texel() const { return 1 / scale_; }

  // Share of the light that reaches p, with the mean over a disk of the radius (decimeters).
  float light(const float* p, float radius, float bias) const {
    static constexpr float taps[12][2] = {{-0.33f, -0.94f}, {0.9f, -0.38f},  {-0.87f, 0.3f},  {0.44f, 0.85f},
                                          {-0.2f, -0.45f},  {0.5f, 0.12f},   {-0.4f, 0.35f},  {0.05f, 0.6f},
                                          {0.4f, -0.65f},   {-0.75f, -0.3f}, {-0.25f, 0.85f}, {0.05f, 0.02f}};
    const float x = (dot(p, across_) - x0_) * scale_, y = (dot(p, along_) - y0_) * scale_;
    const float depth = -dot(p, towards_) - bias, r = radius * scale_;
    if (!(std::fabs(x) < 1e6f && std::fabs(y) < 1e6f && std::fabs(r) < 1e6f)) return 1;
    int lit = 0;
    for (const auto& tap : taps) {
      const int i = floor_int(x + tap[0] * r), j = floor_int(y + tap[1] * r);
      lit += i < 0 || j < 0 || i >= size_ || j >= size_ || depth_[size_t(j) * size_ + i] >= depth;
    }
    return lit / 12.f;
  }

 private:
  void add(const Draw& draw) {
    const Mesh& mesh = *draw.mesh;
    std::vector<Projected> seen(mesh.vertices);
    std::vector<float> depth(mesh.vertices);
    for (int64_t i = 0; i < mesh.vertices; ++i) {
      const float* p = &draw.points[3 * i];
      seen[i] = {(dot(p, across_) - x0_) * scale_, (dot(p, along_) - y0_) * scale_, 1};
      depth[i] = -dot(p, towards_);
    }
    const float* clip = draw.clip.empty() ? nullptr : draw.clip.data();
    for (int64_t i = 0; i < mesh.count(); ++i) {
      if (!draw.keep.empty() && !draw.keep[i]) continue;
      const int32_t *t = &mesh.triangles[3 * i], *q = &mesh.uv_triangles[3 * i];
      if (clip && clip[t[0]] < 0 && clip[t[1]] < 0 && clip[t[2]] < 0) continue;
      const Projected p[3] = {seen[t[0]], seen[t[1]], seen[t[2]]};
      const float *a = &mesh.uv[2 * q[0]], *b = &mesh.uv[2 * q[1]], *c = &mesh.uv[2 * q[2]];
      const float log_scale = draw.material->cut_out ? uv_log_scale(p, a, b, c, 1) : 0;
      for_samples(p, size_, size_, [&](int x, int y, float w0, float w1, float w2, float) {
        if (clip && w0 * clip[t[0]] + w1 * clip[t[1]] + w2 * clip[t[2]] < 0) return;
        if (draw.material->cut_out) {
          const float u = w0 * a[0] + w1 * b[0] + w2 * c[0], v = w0 * a[1] + w1 * b[1] + w2 * c[1];
          if (draw.material->base->sample_alpha(u, v, log_scale) < 128) return;
        }
        float& nearest = depth_[size_t(y) * size_ + x];
        nearest = std::min(nearest, w0 * depth[t[0]] + w1 * depth[t[1]] + w2 * depth[t[2]]);
      });
    }
  }

  int size_;
  float towards_[3], across_[3], along_[3], x0_, y0_, scale_;
  std::vector<float> depth_;
};

}  // namespace rpcnn::rendered
