// Triangle meshes, skinning, and clothes bound to the body.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace rpcnn::rendered {

struct Mesh {
  int64_t vertices;
  std::vector<int32_t> triangles, uv_triangles;  // [T, 3] each
  std::vector<float> uv;                         // [U, 2]

  int64_t count() const { return static_cast<int64_t>(triangles.size()) / 3; }
};

// Linear blend skinning with four bones a vertex: blended [N, 12] = Σ_k weights × transforms; posed = blended · (x, 1).
inline void skin(int64_t count, const float* points, const int32_t* bones, const float* weights,
                 const float* transforms, float* blended, float* posed) {
  for (int64_t i = 0; i < count; ++i) {
    float a[12] = {};
    for (int k = 0; k < 4; ++k) {
      const float w = weights[4 * i + k];
      if (w == 0) continue;
      const float* m = transforms + 12 * static_cast<int64_t>(bones[4 * i + k]);
      for (int j = 0; j < 12; ++j) a[j] += w * m[j];
    }
    std::memcpy(blended + 12 * i, a, sizeof a);
    const float* p = points + 3 * i;
    for (int r = 0; r < 3; ++r)
      posed[3 * i + r] = a[4 * r] * p[0] + a[4 * r + 1] * p[1] + a[4 * r + 2] * p[2] + a[4 * r + 3];
  }
}

// Vertices bound to three of the body each: Σ_k weights × body + offsets at rest, then moved by the blended transforms
// of the three. Fitting at rest and then moving turns the offsets with the limb.
inline void fit(int64_t count, const int32_t* body_vertices, const float* weights, const float* offsets,
                const float* body, const float* blended, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    float p[3] = {offsets[3 * i], offsets[3 * i + 1], offsets[3 * i + 2]}, a[12] = {};
    for (int k = 0; k < 3; ++k) {
      const int64_t b = body_vertices[3 * i + k];
      const float w = weights[3 * i + k];
      for (int r = 0; r < 3; ++r) p[r] += w * body[3 * b + r];
      if (blended)
        for (int j = 0; j < 12; ++j) a[j] += w * blended[12 * b + j];
    }
    for (int r = 0; r < 3; ++r)
      out[3 * i + r] = blended ? a[4 * r] * p[0] + a[4 * r + 1] * p[1] + a[4 * r + 2] * p[2] + a[4 * r + 3] : p[r];
  }
}

// Unit normals, weighted by the area of the triangles around a vertex.
inline void normals(const Mesh& mesh, const float* points, float* out) {
  std::memset(out, 0, sizeof(float) * 3 * mesh.vertices);
  const int32_t* t = mesh.triangles.data();
  for (int64_t i = 0; i < mesh.count(); ++i, t += 3) {
    const float *a = points + 3 * int64_t{t[0]}, *b = points + 3 * int64_t{t[1]}, *c = points + 3 * int64_t{t[2]};
    float e[3], f[3];
    for (int r = 0; r < 3; ++r) e[r] = b[r] - a[r], f[r] = c[r] - a[r];
    const float g[3] = {e[1] * f[2] - e[2] * f[1], e[2] * f[0] - e[0] * f[2], e[0] * f[1] - e[1] * f[0]};
    for (int k = 0; k < 3; ++k)
      for (int r = 0; r < 3; ++r) out[3 * int64_t{t[k]} + r] += g[r];
  }
  for (int64_t i = 0; i < mesh.vertices; ++i) {
    float* g = out + 3 * i;
    const float scale = 1 / (std::sqrt(g[0] * g[0] + g[1] * g[1] + g[2] * g[2]) + 1e-12f);
    for (int r = 0; r < 3; ++r) g[r] *= scale;
  }
}

}  // namespace rpcnn::rendered
