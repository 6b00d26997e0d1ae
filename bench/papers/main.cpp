// SPDX-License-Identifier: Apache-2.0
// Checks what the papers claim, row by row, and writes a table, JSON and plots.
#include "report.hpp"
#include "rows.hpp"

#include <limber/core/clock.hpp>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#if !defined(LIMBER_SOURCE_DIR) || !defined(LIMBER_BINARY_DIR)
#error "define LIMBER_SOURCE_DIR and LIMBER_BINARY_DIR: the text to learn without data, and where reports go"
#endif

namespace {

using namespace limber::papers;

struct arguments {
  effort how = effort::full;
  std::optional<std::filesystem::path> json;
  std::filesystem::path out = std::filesystem::path(LIMBER_BINARY_DIR) / "reports" / "papers";
  std::vector<std::string> only;
  int seeds = 0;
};

/// @return nothing if help was printed. @throws example::bad_input
std::optional<arguments> parse(int argc, char** argv) {
  arguments a;
  bool quick = false, exact = false;
  CLI::App app{"Checks the claims of the papers on a virtual cluster, with real gradients.", "papers"};
  app.get_formatter()->column_width(28);
  auto* const fast =
      app.add_flag("--quick", quick, "Small sweeps: below 3 minutes on 2 cores (full: below 40)");
  app.add_flag("--exact", exact, "Only rows without sampling error; fails if one does not hold")
      ->excludes(fast);
  app.add_option("--json", a.json, "Also write the rows to this file, or to papers.json in this folder")
      ->type_name("PATH");
  app.add_option("--out", a.out, "Folder of the table, JSON and plots (default: " + a.out.string() + ")")
      ->type_name("DIR")
      ->take_last();
  app.add_option("--only", a.only, "Only these rows: 1a, 3, ...")->type_name("ROW")->delimiter(',');
  app.add_option("--seeds", a.seeds, "Seeds of sampled rows (default: 10, with --quick 5)")
      ->check(CLI::Range(2, 1000));
  try {
    app.parse(argc, argv);
  } catch (CLI::CallForHelp const&) {
    std::fputs(app.help().c_str(), stdout);
    return std::nullopt;
  } catch (CLI::ParseError const& e) { throw example::bad_input(e.what()); }
  for (auto const& id : a.only)
    example::require(!id.empty() && id[0] >= '1' && id[0] <= '6', "--only: there is no row '", id,
                     "'; rows begin with 1 to 6");
  if (exact) a.how = effort::exact;
  if (quick) a.how = effort::quick;
  if (a.seeds == 0) a.seeds = a.how == effort::full ? 10 : 5;
  return a;
}

int run(arguments const& a) {
  std::filesystem::create_directories(a.out);
  auto const data = load_task(LIMBER_SOURCE_DIR);
  std::printf("data: %s, %lld samples to train on, %lld held out\n", data.source().c_str(),
              static_cast<long long>(data.train_size()),
              static_cast<long long>(data.size() - data.train_size()));
  session s(data, a.how, a.seeds, a.only);
  double const begin = limber::steady_seconds();
  for (auto* const rows :
       {dynamic_sgd_rows, local_sgd_rows, abs_sgd_rows, race_rows, dbs_rows, scaling_rows, relatives_rows})
    rows(s);
  double const seconds = limber::steady_seconds() - begin;

  auto const table = table_of(s.rows);
  std::printf("\n%s\n", table.c_str());
  auto const report = json_of(s, seconds).dump(1, ' ', false, json::error_handler_t::replace);
  write(a.out / "papers.md", table);
  write(a.out / "papers.json", report);
  if (a.json) write(std::filesystem::is_directory(*a.json) ? *a.json / "papers.json" : *a.json, report);
  for (auto const& f : s.figures) std::printf("%s\n", draw(a.out, f).c_str());

  auto const broken =
      std::ranges::count_if(s.rows, [](row const& r) { return r.kind == evidence::exact && !r.holds; });
  auto const open = std::ranges::count(s.rows, false, &row::holds) - broken;
  std::printf("%zu rows in %.0f s: %td exact and %td sampled ones do not hold; %s\n", s.rows.size(), seconds,
              broken, open, (a.out / "papers.md").string().c_str());
  return broken > 0 ? 1 : 0;  // what has no sampling error is a mistake of ours
}

}  // namespace

int main(int argc, char** argv) {
  try {
    auto const a = parse(argc, argv);
    return a ? run(*a) : 0;
  } catch (std::exception const& e) {
    std::fprintf(stderr, "papers: %s\n", e.what());
    return 2;
  }
}
