// The picture of a scene: which triangle each sample of each pixel sees, from the camera and from the sun.
//
// A pixel has kGrid × kGrid samples. Visibility is found for every sample; color is computed once for each garment that
// a pixel sees and weighted by its samples, so that edges are anti-aliased while labels stay whole: a pixel's label is
// the (person, label) that most of its samples see. Camera space: x right, y up, z depth, in decimeters.
#pragma once

#include <memory>

#include "material.h"
#include "mesh.h"

namespace rpcnn::rendered {

constexpr int kGrid = 3, kSamples = kGrid * kGrid;
constexpr float kNear = 0.8f;

struct Draw {
  std::shared_ptr<const Mesh> mesh;
  std::shared_ptr<const Material> material;
  std::vector<float> points, normals;  // [N, 3], camera space
  std::vector<uint8_t> labels;         // [T]
  std::vector<uint8_t> keep;           // [T] or empty: triangles that are not hidden
  std::vector<float> clip;             // [N] or empty: kept where the interpolated value is >= 0
  float bias;                          // how far the surface counts as nearer, so that cloth covers what is under it
  int person;
};

struct Sight {
  float depth;
  int32_t draw, triangle;
  float w0, w1;  // perspective-correct weights of the first two corners
};

struct Projected {
  float x, y, inverse_depth;
};

// Calls visit(x, y, w0, w1, w2, depth) for the samples at (x + 0.5, y + 0.5) inside a triangle.
template <class Visit>
void for_samples(const Projected* p, int width, int height, const Visit& visit) {
  const float x_min = std::min({p[0].x, p[1].x, p[2].x}), x_max = std::max({p[0].x, p[1].x, p[2].x});
  const float y_min = std::min({p[0].y, p[1].y, p[2].y}), y_max = std::max({p[0].y, p[1].y, p[2].y});
  if (!(x_max >= 0.f && y_max >= 0.f && x_min <= static_cast<float>(width) && y_min <= static_cast<float>(height)))
    return;
  const float area = (p[1].y - p[2].y) * (p[0].x - p[2].x) + (p[2].x - p[1].x) * (p[0].y - p[2].y);
  if (!(std::fabs(area) > 1e-9f && std::fabs(area) < 1e30f)) return;  // also where a coordinate is not a number
  const int x0 = static_cast<int>(std::max(x_min - 0.5f, 0.f)), y0 = static_cast<int>(std::max(y_min - 0.5f, 0.f));
  const int x1 = static_cast<int>(std::min(x_max, width - 0.5f)), y1 = static_cast<int>(std::min(y_max, height - 0.5f));
  const float inverse = 1 / area;
  const float dx0 = (p[1].y - p[2].y) * inverse, dy0 = (p[2].x - p[1].x) * inverse;
  const float dx1 = (p[2].y - p[0].y) * inverse, dy1 = (p[0].x - p[2].x) * inverse;
  // b0, b1 and b2 grow by these from sample to sample
  const float step[3] = {dx0, dx1, -dx0 - dx1};
  for (int y = y0; y <= y1; ++y) {
    const float offset_y = y + 0.5f - p[2].y, offset_x = x0 + 0.5f - p[2].x;
    const float first0 = dx0 * offset_x + dy0 * offset_y, first1 = dx1 * offset_x + dy1 * offset_y;
    const float first[3] = {first0, first1, 1 - first0 - first1};
    float begin = 0, end = static_cast<float>(x1 - x0);
    for (int k = 0; k < 3; ++k) {  // the stretch in which first + step · i >= −1e-5
      if (step[k] > 0)
        begin = std::max(begin, (-1e-5f - first[k]) / step[k]);
      else if (step[k] < 0)
        end = std::min(end, (first[k] + 1e-5f) / -step[k]);
      else if (first[k] < -1e-5f)
        end = -1;
    }
    if (!(begin <= end)) continue;
    const int i1 = static_cast<int>(end);
    int i = static_cast<int>(begin);
    i += static_cast<float>(i) < begin;
    for (; i <= i1; ++i) {
      const float b0 = first[0] + step[0] * i, b1 = first[1] + step[1] * i, b2 = 1 - b0 - b1;
      const float w0 = b0 * p[0].inverse_depth, w1 = b1 * p[1].inverse_depth, w2 = b2 * p[2].inverse_depth;
      const float depth = 1 / (w0 + w1 + w2);
      visit(x0 + i, y, w0 * depth, w1 * depth, w2 * depth, depth);
    }
  }
}

// Thresholds for alpha, in 0..255, spread over the samples of a pixel: alpha becomes coverage.
inline float alpha_threshold(int x, int y) {
  static constexpr int order[kSamples] = {0, 5, 2, 7, 4, 8, 3, 6, 1};
  return (order[(y % kGrid) * kGrid + x % kGrid] + 0.5f) * (255.f / kSamples);
}

struct Camera {
  float focal, center_x, center_y;  // in samples

  Projected project(const float* p) const {
    const float inverse = 1 / p[2];
    return {center_x + focal * p[0] * inverse, center_y - focal * p[1] * inverse, inverse};
  }
};

// Distance in uv between neighboring pixels, as log2; constant on a triangle, which is small.
inline float uv_log_scale(const Projected* p, const float* a, const float* b, const float* c, float per_pixel) {
  const float uv_area = std::fabs((b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1]));
  const float area = std::fabs((p[1].x - p[0].x) * (p[2].y - p[0].y) - (p[2].x - p[0].x) * (p[1].y - p[0].y));
  return 0.5f * std::log2((uv_area + 1e-12f) * per_pixel * per_pixel / (area + 1e-3f));
}

class Canvas {
 public:
  Canvas(int height, int width, float focal)
      : height_(height),
        width_(width),
        sights_(size_t(height) * width * kSamples, Sight{1e9f, -1, -1, 0, 0}),
        camera_{focal * kGrid, 0.5f * width * kGrid, 0.5f * height * kGrid} {}

  int height() const { return height_; }
  int width() const { return width_; }
  const Camera& camera() const { return camera_; }
  const std::vector<Draw>& draws() const { return draws_; }
  const Sight* pixel(int y, int x, int sample) const {
    const int sy = y * kGrid + sample / kGrid, sx = x * kGrid + sample % kGrid;
    return &sights_[size_t(sy) * width_ * kGrid + sx];
  }

  void add(Draw draw) {
    const int number = static_cast<int>(draws_.size());
    const Mesh& mesh = *draw.mesh;
    const int w = width_ * kGrid, h = height_ * kGrid;
    std::vector<Projected> seen(mesh.vertices);
    for (int64_t i = 0; i < mesh.vertices; ++i) {
      const float* p = &draw.points[3 * i];
      seen[i] = p[2] >= kNear ? camera_.project(p) : Projected{0, 0, 0};
    }
    for (int64_t i = 0; i < mesh.count(); ++i) {
      if (!draw.keep.empty() && !draw.keep[i]) continue;
      const int32_t* t = &mesh.triangles[3 * i];
      const Projected p[3] = {seen[t[0]], seen[t[1]], seen[t[2]]};
      if (p[0].inverse_depth == 0 || p[1].inverse_depth == 0 || p[2].inverse_depth == 0) continue;
      const float* clip = draw.clip.empty() ? nullptr : draw.clip.data();
      if (clip && clip[t[0]] < 0 && clip[t[1]] < 0 && clip[t[2]] < 0) continue;
      const int32_t* q = &mesh.uv_triangles[3 * i];
      const float *a = &mesh.uv[2 * q[0]], *b = &mesh.uv[2 * q[1]], *c = &mesh.uv[2 * q[2]];
      const bool cut_out = draw.material->cut_out;
      const float log_scale = cut_out ? uv_log_scale(p, a, b, c, kGrid) : 0;
      for_samples(p, w, h, [&](int x, int y, float w0, float w1, float w2, float depth) {
        Sight& sight = sights_[size_t(y) * w + x];
        const float z = depth - draw.bias;
        if (z >= sight.depth) return;
        if (clip && w0 * clip[t[0]] + w1 * clip[t[1]] + w2 * clip[t[2]] < 0) return;
        if (cut_out) {
          const float u = w0 * a[0] + w1 * b[0] + w2 * c[0], v = w0 * a[1] + w1 * b[1] + w2 * c[1];
          if (draw.material->base->sample_alpha(u, v, log_scale) < alpha_threshold(x, y)) return;
        }
        sight = {z, number, static_cast<int32_t>(i), w0, w1};
      });
    }
    draws_.push_back(std::move(draw));
  }

 private:
  int height_, width_;
  std::vector<Sight> sights_;
  Camera camera_;
  std::vector<Draw> draws_;
};

}  // namespace rpcnn::rendered
