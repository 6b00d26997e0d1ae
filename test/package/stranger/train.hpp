// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/comm/threads.hpp>
#include <limber/limber.hpp>

/// Trains w towards 1 on every rank of `comm`. @return the worst |w − 1| of this rank
double train(limber::threads::communicator& comm);
