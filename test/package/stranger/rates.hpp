// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/core/progress.hpp>

double rate(limber::progress const& at);
