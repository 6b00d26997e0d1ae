// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What GPU kernels must reach, checked on the table that was just measured.

#include "../support/results.hpp"
#include "../support/table.hpp"

#include <limber/core/error.hpp>

#include <algorithm>
#include <functional>
#include <initializer_list>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

namespace limber::bench {

/// Checks goals on results, and writes a line for each. What was not measured is said to be open.
class goals {
 public:
  goals(std::ostream& out, results const& all) : out_(out), all_(all) {
    out_ << "\n| goal | at least | worst | of row | |\n|---|---:|---:|---|---|\n";
  }

  /// Every subject named gpu/<kernel>/<list>/<dtype> of these, by value(row); 0: not measured.
  void at_least(std::string const& what, double bound, std::initializer_list<char const*> kernels,
                std::initializer_list<char const*> lists, std::function<double(row const&)> const& value) {
    double worst = 0;
    row const* where = nullptr;
    for (auto const& r : all_.rows) {
      if (r.as != role::subject || !in(kernels, part(r.name, 1)) || !in(lists, part(r.name, 2))) continue;
      double const x = value(r);
      if (x == 0 || (where != nullptr && x >= worst)) continue;
      worst = x;
      where = &r;
    }
    out_ << "| " << what << " | " << format("%.2f", bound) << " | ";
    if (where == nullptr)
      out_ << "– | – | not measured |\n";
    else
      out_ << format("%.2f", worst) << " | " << where->name << " | "
           << (worst >= bound ? "reached" : "missed") << " |\n";
  }

  /// Time of peer `label` over the subject's, 0 if either was not measured.
  [[nodiscard]] double over(row const& r, std::string_view label) const {
    double const mine = all_.median(r.name), other = all_.median(text(r.name, '/', label));
    return mine > 0 && other > 0 ? other / mine : 0;
  }

 private:
  [[nodiscard]] static bool in(std::initializer_list<char const*> all, std::string_view x) {
    return all.size() == 0 || std::ranges::find(all, x) != all.end();
  }
  // gpu/<1>/<2>/<3>
  [[nodiscard]] static std::string_view part(std::string_view name, int k) {
    for (; k > 0; --k) {
      auto const cut = name.find('/');
      if (cut == std::string_view::npos) return {};
      name.remove_prefix(cut + 1);
    }
    return name.substr(0, name.find('/'));
  }

  std::ostream& out_;
  results const& all_;
};

/// All goals of the GPU kernels.
inline void write_goals(std::ostream& out, results const& all) {
  goals g(out, all);
  auto of_copy = [&](row const& r) { return all.of_copy(r); };
  auto launches = [&](row const& r) {
    auto const n = all.counters(r.name);
    auto const at = n.find("launches");
    return at == n.end() ? 0 : at->second;
  };
  g.at_least("of copy, over 100 million parameters", 0.95, {"sgd", "adamw", "sgd-step", "adamw-step"},
             {"gpt2", "llama1b", "flat1e9"}, of_copy);
  g.at_least("of copy, ResNet-50", 0.85, {"sgd", "adamw", "sgd-step", "adamw-step"}, {"resnet50"}, of_copy);
  g.at_least("beside PyTorch's best, everywhere", 1, {}, {}, [&](row const& r) {
    for (auto const& [peer, value] : all.beside(r))
      if (peer->family() == "torch") return value;
    return 0.0;
  });
  g.at_least("SGD beside fused, where that is below 0.79 of copy", 1.2, {"sgd"}, {}, [&](row const& r) {
    row const* const fused = all.find(r.name + "/torch-fused");
    double const theirs = fused == nullptr || fused->as != role::peer ? 0 : all.of_copy(*fused);
    return theirs > 0 && theirs < 0.79 ? g.over(r, "torch-fused") : 0.0;
  });
  // 0.9 of the ratio of bytes: 50 step by step and 38 with the clip in grad_scale, to our 30.
  g.at_least("30 B step beside PyTorch's 50 B", 0.9 * 50 / 30, {"master-sgd-step"}, {},
             [&](row const& r) { return g.over(r, "torch-stepwise"); });
  g.at_least("30 B step beside PyTorch's 38 B", 0.9 * 38 / 30, {"master-sgd-step"}, {},
             [&](row const& r) { return g.over(r, "torch-folded"); });
  g.at_least("10,000 small tensors beside foreach", 5, {"sgd", "adamw"}, {"small10000"},
             [&](row const& r) { return g.over(r, "torch-foreach"); });
  // A launch is one too many: the bound is on 2 / launches and 3 / launches.
  g.at_least("two launches an update (advance not counted), over launches", 1,
             {"sgd-step", "adamw-step", "master-sgd-step", "master-adamw-step"}, {},
             [&](row const& r) { return launches(r) > 0 ? 2 / launches(r) : 0.0; });
  g.at_least("three launches an update of clipped LAMB (advance not counted), over launches", 1,
             {"lamb-step", "clipped-lamb-step"}, {},
             [&](row const& r) { return launches(r) > 0 ? 3 / launches(r) : 0.0; });
  out << std::flush;
}

}  // namespace limber::bench
