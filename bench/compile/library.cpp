// SPDX-License-Identifier: Apache-2.0
// The one unit of limber::compiled.
#include <limber/impl/src.hpp>
