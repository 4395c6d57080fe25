// The Python module _native: arrays become pointers and shapes, geometries become plans. Python has checked the shapes
// and types; a program checks its types and ids again, as they change from batch to batch.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "kernels.hpp"
#include "layers.hpp"
#include "level.hpp"
#include "plan.hpp"
#include "program.hpp"

namespace nb = nanobind;
using namespace gradscore;

namespace {

template <class T, std::size_t Rank>
using Array = nb::ndarray<const T, nb::ndim<Rank>, nb::c_contig, nb::device::cpu>;
template <class T>
using AnyArray = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
template <class T>
using Result = nb::ndarray<nb::numpy, T>;

using Shape = std::vector<Index>;

template <class Any>
Shape shape_of(const Any& array) {
  Shape sizes;
  for (std::size_t axis = 0; axis < array.ndim(); ++axis) sizes.push_back(static_cast<Index>(array.shape(axis)));
  return sizes;
}

Shape spatial(const Shape& shape) { return {shape.begin() + 2, shape.end()}; }

// Let `fill` write a new array while other Python threads run.
template <class T, class Fill>
Result<T> filled(const Shape& shape, const Fill& fill) {
  const std::vector<std::size_t> sizes(shape.begin(), shape.end());
  T* values = new T[static_cast<std::size_t>(product(shape))];
  const nb::capsule owner(values, [](void* memory) noexcept { delete[] static_cast<T*>(memory); });
  {
    const nb::gil_scoped_release released;
    fill(values);
  }
  return Result<T>(values, sizes.size(), sizes.data(), owner);
}

// Accumulators of a batch.
Result<double> reduced(const Job& job, const std::vector<const void*>& arrays, Index batch, int threads) {
  return filled<double>({batch, kAccumulator}, [&](double* out) { job(arrays.data(), batch, threads, out); });
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

  Pool(const nb::object& object, Index planes, const Shape& input, const Shape& output) {
    const auto axes = [&object](const char* name) { return nb::cast<std::vector<Index>>(object.attr(name)); };
    const Shape two(2, 2), one(2, 1), none(4, 0);
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

// Kernels by the shapes of the arrays and the options that their Python functions take.

template <class T>
Job conv_job(const Shape& a, const Shape& delta, const nb::object& geometry) {
  return conv_moments<T>(a[1], delta[1], spatial(a), spatial(delta), geometry_of(geometry));
}

template <class T>
Job unpooled_conv_job(const Shape& a, const Shape& activation, const nb::object& geometry, const Pool& pool) {
  return unpooled_conv_moments<T>(a[1], activation[1], spatial(a), spatial(activation), geometry_of(geometry),
                                  pool.plan);
}

template <class T>
Job unpooled_input_job(const Shape& a, const Shape& activation, const nb::object& geometry, const Pool& pool,
                       double slope) {
  return unpooled_conv_input<T>(a[1], activation[1], spatial(a), spatial(activation), geometry_of(geometry), pool.plan,
                                static_cast<T>(slope));
}

Pool pool_of(const nb::object& pool, const Shape& activation, const Shape& pooled) {
  return Pool(pool, activation[1], spatial(activation), spatial(pooled));
}

// What a step of a program says: shapes of its kernel's arrays, and its options. Tables of poolings go to `pools`.
struct Described {
  const std::vector<Shape>& shapes;
  const nb::tuple& options;
  std::vector<std::unique_ptr<Pool>>& pools;

  const Shape& shape(std::size_t array) const { return shapes[array]; }
  const Pool& pool() const {
    return *pools.emplace_back(std::make_unique<Pool>(pool_of(options[1], shape(1), shape(2))));
  }
};

// Kernels that a program runs, by the names of their Python functions.
struct Maker {
  const char* name;
  Job (*make)(const Described& d);
};
const Maker kMakers[] = {
    {"conv_moments", [](const Described& d) { return conv_job<float>(d.shape(0), d.shape(1), d.options[0]); }},
    {"direct_moments",
     [](const Described& d) { return direct_moments<float>(product({d.shape(0).begin() + 1, d.shape(0).end()})); }},
    {"embedding_moments",
     [](const Described& d) {
       return embedding_moments<float>(d.shape(1)[1], d.shape(1)[2], nb::cast<Index>(d.options[0]));
     }},
    {"outer_moments", [](const Described& d) { return outer_moments<float>(d.shape(0)[1], d.shape(1)[1]); }},
    {"position_sum_moments",
     [](const Described& d) { return position_sum_moments<float>(d.shape(0)[1], product(spatial(d.shape(0)))); }},
    {"sequence_moments",
     [](const Described& d) { return sequence_moments<float>({d.shape(0)[1], d.shape(0)[2], d.shape(1)[2]}); }},
    {"sequence_sum_moments",
     [](const Described& d) { return sequence_sum_moments<float>(d.shape(0)[1], d.shape(0)[2]); }},
    {"unpooled_conv_input",
     [](const Described& d) {
       return unpooled_input_job<float>(d.shape(0), d.shape(1), d.options[0], d.pool(), nb::cast<double>(d.options[2]));
     }},
    {"unpooled_conv_moments",
     [](const Described& d) { return unpooled_conv_job<float>(d.shape(0), d.shape(1), d.options[0], d.pool()); }},
};

const Maker& maker_of(const std::string& kernel) {
  for (const Maker& maker : kMakers) {
    if (kernel == maker.name) return maker;
  }
  throw std::invalid_argument("no kernel " + kernel);
}

nb::tuple names_of_makers() {
  nb::list names;
  for (const Maker& maker : kMakers) names.append(maker.name);
  return nb::tuple(names);
}

// A program, and the tables of its poolings.
class BoundProgram {
 public:
  using Given = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;

  // Each step is (kernel, places of its arrays, their shapes, options, layer or −1).
  explicit BoundProgram(const nb::list& described) {
    std::vector<Step> steps;
    for (const nb::handle& handle : described) {
      const auto step = nb::cast<nb::tuple>(handle);
      const auto kernel = nb::cast<std::string>(step[0]);
      const auto places = nb::cast<std::vector<std::size_t>>(step[1]);
      const auto shapes = nb::cast<std::vector<Shape>>(step[2]);
      const Shape sample(shapes[0].begin() + 1, shapes[0].end());
      if (kernel == "embedding_moments") ids_.insert(places[0]);
      const auto options = nb::cast<nb::tuple>(step[3]);
      steps.push_back(
          {maker_of(kernel).make({shapes, options, pools_}), places, nb::cast<Index>(step[4]), product(sample)});
    }
    program_ = std::make_unique<const Program>(std::move(steps));
  }

  Result<double> run(const std::vector<Given>& given, const Array<double, 1>& scale, int threads) const {
    std::vector<const void*> arrays;
    for (const Given& array : given) {
      const bool ids = ids_.count(arrays.size()) > 0;
      if (array.dtype() != (ids ? nb::dtype<std::int64_t>() : nb::dtype<float>())) {
        throw nb::type_error(ids ? "ids are not int64" : "an array is not float32");
      }
      arrays.push_back(array.data());
    }
    const Index batch = shape_of(scale)[0], columns = (program_->layers() + 1) * kAccumulator;
    return filled<double>({batch, columns},
                          [&](double* out) { program_->run(arrays, scale.data(), batch, threads, out); });
  }

 private:
  std::vector<std::unique_ptr<Pool>> pools_;
  std::set<std::size_t> ids_;  // places of arrays of ids
  std::unique_ptr<const Program> program_;
};

template <class T>
void bind_convolutions(nb::module_& module) {
  using namespace nb::literals;
  module.def(
      "conv_moments",
      [](const AnyArray<T>& a, const AnyArray<T>& delta, const nb::object& geometry, int threads) {
        const Shape shape = shape_of(a);
        return reduced(conv_job<T>(shape, shape_of(delta), geometry), {a.data(), delta.data()}, shape[0], threads);
      },
      "a"_a.noconvert(), "delta"_a.noconvert(), "geometry"_a, "threads"_a);
  module.def(
      "unpooled_conv_moments",
      [](const AnyArray<T>& a, const AnyArray<T>& activation, const AnyArray<T>& pooled, const nb::object& geometry,
         const nb::object& object, int threads) {
        const Shape shape = shape_of(a);
        const Pool pool = pool_of(object, shape_of(activation), shape_of(pooled));
        const Job job = unpooled_conv_job<T>(shape, shape_of(activation), geometry, pool);
        return reduced(job, {a.data(), activation.data(), pooled.data()}, shape[0], threads);
      },
      "a"_a.noconvert(), "activation"_a.noconvert(), "pooled_delta"_a.noconvert(), "geometry"_a, "pool"_a, "threads"_a);
  module.def(
      "unpooled_conv_input",
      [](const AnyArray<T>& a, const AnyArray<T>& activation, const AnyArray<T>& pooled, const AnyArray<T>& weight,
         const nb::object& geometry, const nb::object& object, double slope, int threads) {
        const Shape shape = shape_of(a);
        const Pool pool = pool_of(object, shape_of(activation), shape_of(pooled));
        const Job job = unpooled_input_job<T>(shape, shape_of(activation), geometry, pool, slope);
        const void* arrays[] = {a.data(), activation.data(), pooled.data(), weight.data()};
        return filled<T>(shape, [&](T* out) { job(arrays, shape[0], threads, out); });
      },
      "a"_a.noconvert(), "activation"_a.noconvert(), "pooled_delta"_a.noconvert(), "weight"_a.noconvert(), "geometry"_a,
      "pool"_a, "slope"_a, "threads"_a);
}

template <class T>
void bind_products(nb::module_& module) {
  using namespace nb::literals;
  module.def(
      "outer_moments",
      [](const Array<T, 2>& a, const Array<T, 2>& delta, int threads) {
        const Shape inputs = shape_of(a), outputs = shape_of(delta);
        return reduced(outer_moments<T>(inputs[1], outputs[1]), {a.data(), delta.data()}, inputs[0], threads);
      },
      "a"_a.noconvert(), "delta"_a.noconvert(), "threads"_a);
  module.def(
      "sequence_moments",
      [](const Array<T, 3>& a, const Array<T, 3>& delta, int threads) {
        const Shape inputs = shape_of(a), outputs = shape_of(delta);
        const Job job = sequence_moments<T>({inputs[1], inputs[2], outputs[2]});
        return reduced(job, {a.data(), delta.data()}, inputs[0], threads);
      },
      "a"_a.noconvert(), "delta"_a.noconvert(), "threads"_a);
}

template <class T>
void bind_sums(nb::module_& module) {
  using namespace nb::literals;
  module.def(
      "direct_moments",
      [](const Array<T, 2>& g, int threads) {
        const Shape shape = shape_of(g);
        return reduced(direct_moments<T>(shape[1]), {g.data()}, shape[0], threads);
      },
      "g"_a.noconvert(), "threads"_a);
  module.def(
      "position_sum_moments",
      [](const Array<T, 3>& delta, int threads) {
        const Shape shape = shape_of(delta);
        return reduced(position_sum_moments<T>(shape[1], shape[2]), {delta.data()}, shape[0], threads);
      },
      "delta"_a.noconvert(), "threads"_a);
  module.def(
      "sequence_sum_moments",
      [](const Array<T, 3>& delta, int threads) {
        const Shape shape = shape_of(delta);
        return reduced(sequence_sum_moments<T>(shape[1], shape[2]), {delta.data()}, shape[0], threads);
      },
      "delta"_a.noconvert(), "threads"_a);
  module.def(
      "embedding_moments",
      [](const Array<std::int64_t, 2>& ids, const Array<T, 3>& delta, Index vocabulary, int threads) {
        const Shape shape = shape_of(delta);
        const Job job = embedding_moments<T>(shape[1], shape[2], vocabulary);
        return reduced(job, {ids.data(), delta.data()}, shape[0], threads);
      },
      "ids"_a.noconvert(), "delta"_a.noconvert(), "vocabulary"_a, "threads"_a);
}

template <class T>
void bind_kernels(nb::module_& module) {
  bind_convolutions<T>(module);
  bind_products<T>(module);
  bind_sums<T>(module);
}

// What is made of accumulators and of logits.
void bind_features(nb::module_& module) {
  using namespace nb::literals;
  module.def(
      "layer_statistics",
      [](const std::vector<Array<double, 2>>& parts, const std::vector<Index>& layer, const Array<double, 1>& scale) {
        std::vector<const double*> values;
        for (const Array<double, 2>& part : parts) values.push_back(part.data());
        const Index batch = shape_of(scale)[0];
        return filled<double>({batch, (layer.back() + 2) * kAccumulator},
                              [&](double* out) { layer_statistics(values, layer, scale.data(), batch, out); });
      },
      "accumulators"_a, "layers"_a, "scale"_a.noconvert());
  module.def(
      "softmax_features",
      [](const Array<double, 2>& logits, const Array<std::int64_t, 1>& labels) {
        const Shape shape = shape_of(logits);
        return filled<double>({shape[0], 3}, [&](double* out) {
          softmax_features(logits.data(), labels.data(), shape[0], shape[1], out);
        });
      },
      "logits"_a.noconvert(), "labels"_a.noconvert());
}

}  // namespace

NB_MODULE(_native, module) {
  module.def("simd_levels", &simd_levels);
  module.def("simd_level", &simd_level);
  module.def("force_simd_level", &force_simd_level, nb::arg("name"));
  module.def("allow_trick", &allow_trick, nb::arg("name"), nb::arg("allowed"));
  bind_kernels<float>(module);
  bind_kernels<double>(module);
  bind_features(module);
  module.attr("PROGRAM_KERNELS") = names_of_makers();
  nb::class_<BoundProgram>(module, "Program")
      .def(nb::init<const nb::list&>(), nb::arg("steps"))
      .def("run", &BoundProgram::run, nb::arg("arrays").noconvert(), nb::arg("scale").noconvert(), nb::arg("threads"));
}
