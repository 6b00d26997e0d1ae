// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The whole program but for main(), so that tests can call it.

#include "compare.hpp"
#include "digits.hpp"
#include "input.hpp"
#include "options.hpp"
#include "text.hpp"

#include <exception>
#include <ostream>

namespace example {

/// Does what the command line asks for.
/// @return the exit status: 0, 2 if an argument or a file cannot be used, 1 for any other failure;
///         whatever went wrong is one line on `errors`
[[nodiscard]] inline int run(int argc, char const* const* argv, std::ostream& errors) {
  try {
    auto const o = parse(argc, argv);
    if (!o) return 0;
    auto const begin = [&](auto const& data) {
      prepare(*o);
      compare(data, *o);
    };
    if (o->data) {
      begin(load_digits(*o->data));
    } else {
      begin(o->text ? load_text(*o->text) : project_text(o->project));
    }
    return 0;
  } catch (bad_input const& e) {
    errors << "language_model: " << e.what() << std::endl;
    return 2;
  } catch (std::exception const& e) {
    errors << "language_model: failed: " << e.what() << std::endl;
    return 1;
  }
}

}  // namespace example
