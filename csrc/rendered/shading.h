// Light on what the canvas sees: sun with cast shadows, fill light, sky and ground, occlusion by what is near.
#pragma once

#include "shadow.h"

namespace rpcnn::rendered {

// Directions are unit vectors towards the light in camera space; colors are linear rgb.
struct Lighting {
  float sun_direction[3], sun[3];
  float fill_direction[3], fill[3];
  float up[3], sky[3], ground[3];
  float softness;   // radius of the shadows' edges in decimeters
  float occlusion;  // 0..1: how much nearby surfaces in front darken the light of the sky
};

struct Picture {
  float* color;             // [H, W, 3] linear rgb, premultiplied by coverage
  float* coverage;          // [H, W] share of the samples that see somebody
  float* depth;             // [H, W] mean depth of the samples that see somebody, 0 for none
  uint8_t *label, *person;  // [H, W]
};

// Mean over a square of radius r of the values where weight is not 0, by running sums.
inline std::vector<float> masked_mean(const std::vector<float>& value, const std::vector<float>& weight, int height,
                                      int width, int r) {
  std::vector<float> v(value.size()), w(value.size()), mean(value.size());
  for (int y = 0; y < height; ++y) {
    float sv = 0, sw = 0;
    const size_t row = size_t(y) * width;
    for (int x = -r; x < width; ++x) {
      if (x + r < width) sv += value[row + x + r] * weight[row + x + r], sw += weight[row + x + r];
      if (x - r - 1 >= 0) sv -= value[row + x - r - 1] * weight[row + x - r - 1], sw -= weight[row + x - r - 1];
      if (x >= 0) v[row + x] = sv, w[row + x] = sw;
    }
  }
  std::vector<float> sv(width), sw(width);
  for (int y = -r; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      if (y + r < height) sv[x] += v[size_t(y + r) * width + x], sw[x] += w[size_t(y + r) * width + x];
      if (y - r - 1 >= 0) sv[x] -= v[size_t(y - r - 1) * width + x], sw[x] -= w[size_t(y - r - 1) * width + x];
      if (y >= 0) mean[size_t(y) * width + x] = sw[x] > 0.5f ? sv[x] / sw[x] : 0;
    }
  return mean;
}

class Shader {
 public:
  Shader(const Canvas& canvas, const Lighting& lighting)
      : canvas_(canvas), light_(lighting), shadows_(canvas, lighting.sun_direction, 512) {}

  void paint(const Picture& out) const {
    const int height = canvas_.height(), width = canvas_.width();
    const size_t count = size_t(height) * width;
    std::vector<float> depth(count), covered(count);
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) {
        float sum = 0;
        int n = 0;
        for (int s = 0; s < kSamples; ++s) {
          const Sight* sight = canvas_.pixel(y, x, s);
          if (sight->draw >= 0) sum += sight->depth, ++n;
        }
        const size_t o = size_t(y) * width + x;
        depth[o] = n ? sum / n : 0, covered[o] = n ? 1.f : 0.f;
      }
    const float focal = canvas_.camera().focal / kGrid;
    float near_depth = 0, seen = 0;
    for (size_t i = 0; i < count; ++i) near_depth += depth[i], seen += covered[i];
    near_depth = seen ? near_depth / seen : 10;
    const int wide = std::clamp(static_cast<int>(0.7f * focal / near_depth), 2, 24);
    const int fine = std::clamp(static_cast<int>(0.2f * focal / near_depth), 1, 8);
    const std::vector<float> far_mean = masked_mean(depth, covered, height, width, wide);
    const std::vector<float> near_mean = masked_mean(depth, covered, height, width, fine);
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) {
        const size_t o = size_t(y) * width + x;
        const float behind = std::clamp((depth[o] - far_mean[o]) / 1.5f, 0.f, 1.f) +
                             std::clamp((depth[o] - near_mean[o]) / 0.35f, 0.f, 0.7f);
        out.depth[o] = depth[o];
        pixel(y, x, 1 - light_.occlusion * std::min(behind, 1.f), out.color + 3 * o, out.coverage + o, out.label + o,
              out.person + o);
      }
  }

  // Light of the sun that reaches the ground, and of the sky by a map from above, per pixel; 1 where no ground is seen.
  // The ground is where dot(up, p) = level.
  void ground(float level, float* sun, float* sky) const {
    const int height = canvas_.height(), width = canvas_.width();
    const ShadowMap above(canvas_, light_.up, 192);
    const Camera& camera = canvas_.camera();
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) {
        const float ray[3] = {(kGrid * (x + 0.5f) - camera.center_x) / camera.focal,
                              (camera.center_y - kGrid * (y + 0.5f)) / camera.focal, 1};
        const float along = dot(ray, light_.up), t = level / along;
        float* out[2] = {sun + size_t(y) * width + x, sky + size_t(y) * width + x};
        *out[0] = *out[1] = 1;
        if (!(std::fabs(along) > 1e-4f && t > 0.5f && t < 1000)) continue;
        const float p[3] = {ray[0] * t, ray[1] * t, ray[2] * t};
        *out[0] = shadows_.light(p, std::max(light_.softness, shadows_.texel()), 0.05f);
        *out[1] = 0.5f * above.light(p, 1.2f, 0) + 0.5f * above.light(p, 3.f, 0);
      }
  }

 private:
  struct Group {
    int draw, label, count;
    const Sight* middle;
    float nearness;
  };

  void pixel(int y, int x, float open, float* rgb, float* coverage, uint8_t* label, uint8_t* person) const {
    Group groups[kSamples];
    int used = 0, covered = 0;
    for (int s = 0; s < kSamples; ++s) {
      const Sight* sight = canvas_.pixel(y, x, s);
      if (sight->draw < 0) continue;
      ++covered;
      const int labelled = canvas_.draws()[sight->draw].labels[sight->triangle];
      const float nearness = s == kSamples / 2 ? 2 : s % 2;
      int g = 0;
      while (g < used && (groups[g].draw != sight->draw || groups[g].label != labelled)) ++g;
      if (g == used) groups[used++] = {sight->draw, labelled, 0, sight, nearness};
      ++groups[g].count;
      if (nearness > groups[g].nearness) groups[g].middle = sight, groups[g].nearness = nearness;
    }
    rgb[0] = rgb[1] = rgb[2] = 0, *coverage = covered / static_cast<float>(kSamples), *label = *person = 0;
    for (int g = 0; g < used; ++g) {
      float c[3];
      shade(*groups[g].middle, open, c);
      for (int k = 0; k < 3; ++k) rgb[k] += c[k] * groups[g].count / kSamples;
    }
    int people = 0, most = 0;
    for (int g = 0; g < used; ++g)
      if (canvas_.draws()[groups[g].draw].person) people += groups[g].count;
    if (2 * people < kSamples) return;
    for (int g = 0; g < used; ++g) {
      int votes = 0;
      const int who = canvas_.draws()[groups[g].draw].person;
      if (!who) continue;
      for (int j = 0; j < used; ++j)
        if (groups[j].label == groups[g].label && canvas_.draws()[groups[j].draw].person == who)
          votes += groups[j].count;
      if (votes > most)
        most = votes, *label = static_cast<uint8_t>(groups[g].label), *person = static_cast<uint8_t>(who);
    }
  }

  void shade(const Sight& sight, float open, float* rgb) const {
    const Draw& draw = canvas_.draws()[sight.draw];
    const Mesh& mesh = *draw.mesh;
    const Material& material = *draw.material;
    const int32_t *t = &mesh.triangles[size_t{3} * sight.triangle], *q = &mesh.uv_triangles[size_t{3} * sight.triangle];
    const float w[3] = {sight.w0, sight.w1, 1 - sight.w0 - sight.w1};
    float p[3] = {}, n[3] = {}, uv[2] = {};
    for (int k = 0; k < 3; ++k) {
      for (int r = 0; r < 3; ++r) {
        p[r] += w[k] * draw.points[size_t{3} * t[k] + r];
        n[r] += w[k] * draw.normals[size_t{3} * t[k] + r];
      }
      for (int r = 0; r < 2; ++r) uv[r] += w[k] * mesh.uv[size_t{2} * q[k] + r];
    }
    normalize(n);
    Projected corners[3];
    for (int k = 0; k < 3; ++k) corners[k] = canvas_.camera().project(&draw.points[size_t{3} * t[k]]);
    const float *ua = &mesh.uv[size_t{2} * q[0]], *ub = &mesh.uv[size_t{2} * q[1]], *uc = &mesh.uv[size_t{2} * q[2]];
    const float log_scale = uv_log_scale(corners, ua, ub, uc, kGrid);
    float view[3] = {-p[0], -p[1], -p[2]};
    normalize(view);
    if (dot(n, view) < 0)
      for (float& x : n) x = -x;
    if (material.folds > 0 && material.fold_slopes) fold(draw, t, ua, ub, uc, uv, log_scale, n);
    float albedo[3];
    material.color(uv[0], uv[1], log_scale, albedo);

    const float lit =
        shadows_.light(p, std::max(light_.softness, 0.7f * shadows_.texel()), 0.12f + 2.f * shadows_.texel());
    const float facing = dot(n, light_.sun_direction), filled = dot(n, light_.fill_direction);
    const float skyward = 0.5f + 0.5f * dot(n, light_.up), edge = 1 - std::max(dot(n, view), 0.f);
    const float shine_sun = highlight(material, n, view, light_.sun_direction) * lit;
    const float shine_fill = highlight(material, n, view, light_.fill_direction);
    const float rim = material.shine * 0.5f * edge * edge * edge * edge;
    static constexpr float reach[3] = {1, 0.5f, 0.35f};  // red light goes farthest in skin
    for (int c = 0; c < 3; ++c) {
      const float around = material.softness * reach[c];
      const float sun = std::max((facing + around) / (1 + around), 0.f) * lit;
      const float fill = std::max((filled + around) / (1 + around), 0.f);
      const float sky = (light_.ground[c] + (light_.sky[c] - light_.ground[c]) * skyward) * open;
      rgb[c] = albedo[c] * (sky + light_.sun[c] * sun + light_.fill[c] * fill) + shine_sun * light_.sun[c] +
               shine_fill * light_.fill[c] + rim * sky;
    }
  }

  static float highlight(const Material& material, const float* n, const float* view, const float* light) {
    if (material.shine <= 0) return 0;
    float h[3] = {view[0] + light[0], view[1] + light[1], view[2] + light[2]};
    normalize(h);
    const float d = dot(n, h);
    return d > 0 && dot(n, light) > 0 ? material.shine * std::pow(d, material.gloss) : 0;
  }

  // Tilts the normal by the slopes of the folds, along the directions in which u and v grow.
  static void fold(const Draw& draw, const int32_t* t, const float* ua, const float* ub, const float* uc,
                   const float* uv, float log_scale, float* n) {
    const Material& material = *draw.material;
    float slopes[4];
    const float s = material.fold_scale;
    material.fold_slopes->sample(uv[0] * s, uv[1] * s, log_scale + std::log2(s), slopes);
    const float gu = (slopes[0] / 127.5f - 1) * material.folds, gv = (slopes[1] / 127.5f - 1) * material.folds;
    const float u1 = ub[0] - ua[0], v1 = ub[1] - ua[1], u2 = uc[0] - ua[0], v2 = uc[1] - ua[1];
    const float area = u1 * v2 - u2 * v1;
    if (!(std::fabs(area) > 1e-12f)) return;
    const float *a = &draw.points[size_t{3} * t[0]], *b = &draw.points[size_t{3} * t[1]],
                *c = &draw.points[size_t{3} * t[2]];
    float along_u[3], along_v[3];
    for (int r = 0; r < 3; ++r) {
      along_u[r] = ((b[r] - a[r]) * v2 - (c[r] - a[r]) * v1) / area;
      along_v[r] = ((c[r] - a[r]) * u1 - (b[r] - a[r]) * u2) / area;
    }
    normalize(along_u), normalize(along_v);
    for (int r = 0; r < 3; ++r) n[r] -= gu * along_u[r] + gv * along_v[r];
    normalize(n);
  }

  const Canvas& canvas_;
  Lighting light_;
  ShadowMap shadows_;
};

}  // namespace rpcnn::rendered
