#include "exports.h"

SIMT_EXPORT simt_order(int order, unsigned long long seed) {
  simt::order = static_cast<simt::Order>(order);
  simt::seed = seed;
  return nullptr;
}
