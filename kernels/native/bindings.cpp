// The kernels as a Python module. Shapes and types were checked on the Python side.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "kernels.hpp"
#include "layers.hpp"
#include "plan.hpp"

namespace nb = nanobind;
using namespace gradscore;

namespace {

template <class T, std::size_t Rank>
using Array = nb::ndarray<const T, nb::ndim<Rank>, nb::c_contig, nb::device::cpu>;
template <class T>
using AnyArray = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
template <class T>
using Result = nb::ndarray<nb::numpy, T>;

Index size(const nb::ndarray<>& array, std::size_t axis) { return static_cast<Index>(array.shape(axis)); }

std::vector<Index> spatial(const nb::ndarray<>& array) {
  std::vector<Index> sizes;
  for (std::size_t axis = 2; axis < array.ndim(); ++axis) sizes.push_back(size(array, axis));
  return sizes;
}

// Let `fill` write a new array while other Python threads run.
template <class T, class Fill>
Result<T> filled(const std::vector<std::size_t>& shape, const Fill& fill) {
  T* values = new T[std::accumulate(shape.begin(), shape.end(), std::size_t{1}, std::multiplies<std::size_t>())];
  const nb::capsule owner(values, [](void* memory) noexcept { delete[] static_cast<T*>(memory); });
  {
    const nb::gil_scoped_release released;
    fill(values);
  }
  return Result<T>(values, shape.size(), shape.data(), owner);
}

template <class Fill>
Result<double> rows(Index batch, Index columns, const Fill& fill) {
  return filled<double>({static_cast<std::size_t>(batch), static_cast<std::size_t>(columns)}, fill);
}

template <class Fill>
Result<double> accumulators(Index batch, const Fill& fill) {
  return rows(batch, kAccumulator, fill);
}

Geometry geometry_of(const nb::object& object) {
  const auto axes = [&object](const char* name) { return nb::cast<std::vector<Index>>(object.attr(name)); };
  return {axes("kernel"), axes("strides"), axes("dilations"), axes("pads"), nb::cast<Index>(object.attr("groups"))};
}

// Windows of a pooling. The tables belong to Python, which keeps them for the next call.
struct Pool {
  template <std::size_t Rank>
  using Table = nb::ndarray<const Index, nb::ndim<Rank>, nb::c_contig, nb::device::cpu>;
  Table<1> windows;
  Table<2> cells;
  PoolPlan plan{};

  Pool(const nb::object& object, Index planes, const std::vector<Index>& input, const std::vector<Index>& output) {
    const auto axes = [&object](const char* name) { return nb::cast<std::vector<Index>>(object.attr(name)); };
    const std::vector<Index> two(2, 2), one(2, 1), none(4, 0);
    plan.planes = planes;
    plan.plane = product(input);
    plan.pooled_plane = product(output);
    if (axes("kernel") == two && axes("strides") == two && axes("dilations") == one && axes("pads") == none &&
        output[0] == input[0] / 2 && output[1] == input[1] / 2) {
      plan.square_columns = input[1];
      plan.window_count = plan.pooled_plane;
      return;
    }
    const nb::object tables = object.attr("windows")(nb::cast(input), nb::cast(output));
    windows = nb::cast<Table<1>>(tables[0]);
    cells = nb::cast<Table<2>>(tables[1]);
    plan.window_count = static_cast<Index>(cells.shape(0));
    plan.kernel_size = static_cast<Index>(cells.shape(1));
    plan.window = windows.data();
    plan.cell = cells.data();
  }
};

template <class T>
void bind(nb::module_& module) {
  using namespace nb::literals;
  module.def(
      "outer_moments",
      [](const Array<T, 2>& a, const Array<T, 2>& delta, int threads) {
        const Index batch = a.shape(0), inputs = a.shape(1), outputs = delta.shape(1);
        return accumulators(batch, [&](double* out) {
          outer_moments<T>(a.data(), delta.data(), batch, inputs, outputs, threads, out);
        });
      },
      "a"_a.noconvert(), "delta"_a.noconvert(), "threads"_a);
  module.def(
      "conv_moments",
      [](const AnyArray<T>& a, const AnyArray<T>& delta, const nb::object& object, int threads) {
        const Geometry geometry = geometry_of(object);
        const std::vector<Index> input = spatial(nb::ndarray<>(a)), output = spatial(nb::ndarray<>(delta));
        const Index batch = a.shape(0), channels = a.shape(1), filters = delta.shape(1);
        return accumulators(batch, [&](double* out) {
          conv_moments<T>(a.data(), delta.data(), batch, channels, filters, input, output, geometry, threads, out);
        });
      },
      "a"_a.noconvert(), "delta"_a.noconvert(), "geometry"_a, "threads"_a);
  module.def(
      "unpooled_conv_moments",
      [](const AnyArray<T>& a, const AnyArray<T>& activation, const AnyArray<T>& pooled, const nb::object& conv,
         const nb::object& object, int threads) {
        const Geometry geometry = geometry_of(conv);
        const std::vector<Index> input = spatial(nb::ndarray<>(a)), output = spatial(nb::ndarray<>(activation));
        const Index batch = a.shape(0), channels = a.shape(1), filters = activation.shape(1);
        const Pool pool(object, filters, output, spatial(nb::ndarray<>(pooled)));
        return accumulators(batch, [&](double* out) {
          unpooled_conv_moments<T>(a.data(), activation.data(), pooled.data(), batch, channels, filters, input, output,
                                   geometry, pool.plan, threads, out);
        });
      },
      "a"_a.noconvert(), "activation"_a.noconvert(), "pooled_delta"_a.noconvert(), "geometry"_a, "pool"_a, "threads"_a);
  module.def(
      "unpooled_conv_input",
      [](const AnyArray<T>& a, const AnyArray<T>& activation, const AnyArray<T>& pooled, const AnyArray<T>& weight,
         const nb::object& conv, const nb::object& object, double slope, int threads) {
        const Geometry geometry = geometry_of(conv);
        const std::vector<Index> input = spatial(nb::ndarray<>(a)), output = spatial(nb::ndarray<>(activation));
        const Index batch = a.shape(0), channels = a.shape(1), filters = activation.shape(1);
        const Pool pool(object, filters, output, spatial(nb::ndarray<>(pooled)));
        std::vector<std::size_t> shape;
        for (std::size_t axis = 0; axis < a.ndim(); ++axis) shape.push_back(a.shape(axis));
        return filled<T>(shape, [&](T* out) {
          unpooled_conv_input<T>(a.data(), activation.data(), pooled.data(), weight.data(), static_cast<T>(slope),
                                 batch, channels, filters, input, output, geometry, pool.plan, threads, out);
        });
      },
      "a"_a.noconvert(), "activation"_a.noconvert(), "pooled_delta"_a.noconvert(), "weight"_a.noconvert(),
      "geometry"_a, "pool"_a, "slope"_a, "threads"_a);
  module.def(
      "sequence_moments",
      [](const Array<T, 3>& a, const Array<T, 3>& delta, int threads) {
        const Index batch = a.shape(0);
        const SequenceShape shape{Index(a.shape(1)), Index(a.shape(2)), Index(delta.shape(2))};
        return accumulators(
            batch, [&](double* out) { sequence_moments<T>(a.data(), delta.data(), batch, shape, threads, out); });
      },
      "a"_a.noconvert(), "delta"_a.noconvert(), "threads"_a);
  module.def(
      "direct_moments",
      [](const Array<T, 2>& g, int threads) {
        const Index batch = g.shape(0), count = g.shape(1);
        return accumulators(batch, [&](double* out) { direct_moments<T>(g.data(), batch, count, threads, out); });
      },
      "g"_a.noconvert(), "threads"_a);
  module.def(
      "position_sum_moments",
      [](const Array<T, 3>& delta, int threads) {
        const Index batch = delta.shape(0), channels = delta.shape(1), positions = delta.shape(2);
        return accumulators(batch, [&](double* out) {
          position_sum_moments<T>(delta.data(), batch, channels, positions, threads, out);
        });
      },
      "delta"_a.noconvert(), "threads"_a);
  module.def(
      "sequence_sum_moments",
      [](const Array<T, 3>& delta, int threads) {
        const Index batch = delta.shape(0), positions = delta.shape(1), channels = delta.shape(2);
        return accumulators(batch, [&](double* out) {
          sequence_sum_moments<T>(delta.data(), batch, positions, channels, threads, out);
        });
      },
      "delta"_a.noconvert(), "threads"_a);
  module.def(
      "embedding_moments",
      [](const Array<std::int64_t, 2>& ids, const Array<T, 3>& delta, Index vocabulary, int threads) {
        const Index batch = delta.shape(0), positions = delta.shape(1), width = delta.shape(2);
        return accumulators(batch, [&](double* out) {
          embedding_moments<T>(ids.data(), delta.data(), batch, positions, width, vocabulary, threads, out);
        });
      },
      "ids"_a.noconvert(), "delta"_a.noconvert(), "vocabulary"_a, "threads"_a);
}

}  // namespace

NB_MODULE(_native, module) {
  module.def("simd_levels", &simd_levels);
  module.def("simd_level", &simd_level);
  module.def("force_simd_level", &force_simd_level, nb::arg("name"));
  module.def(
      "layer_statistics",
      [](const std::vector<Array<double, 2>>& parts, const std::vector<Index>& layer, const Array<double, 1>& scale) {
        std::vector<const double*> values;
        for (const Array<double, 2>& part : parts) values.push_back(part.data());
        const Index batch = scale.shape(0), columns = (layer.back() + 2) * kAccumulator;
        return rows(batch, columns, [&](double* out) { layer_statistics(values, layer, scale.data(), batch, out); });
      },
      nb::arg("accumulators"), nb::arg("layers"), nb::arg("scale").noconvert());
  bind<float>(module);
  bind<double>(module);
}
