// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The rows, a function for each paper.

#include "session.hpp"

namespace limber::papers {

/// 1a to 1d: Lin et al., Dynamic Mini-batch SGD for Elastic Distributed Training, arXiv:1904.12043.
void dynamic_sgd_rows(session& s);

/// 2a to 2d: Lin, Stich, Patel and Jaggi, Don't Use Large Mini-Batches, Use Local SGD, arXiv:1808.07217.
void local_sgd_rows(session& s);

/// 3a, 3b, 3d: Zhou, Chen and Wu, ABS-SGD, arXiv:2308.15164.
void abs_sgd_rows(session& s);

/// 3c: ABS-SGD beside all others.
void race_rows(session& s);

/// 4a to 4c: Ye, Zhou, Shi, Sun and Lv, DBS: Dynamic Batch Size, arXiv:2007.11831.
void dbs_rows(session& s);

/// 5a to 5d: Jin, Yuan, Iandola and Keutzer, How to scale distributed deep learning?, arXiv:1611.04581.
void scaling_rows(session& s);

/// 6: AdaScale, stochastic gradient push, SlowMo, DiLoCo, EASGD, LARS, LAMB, DC-ASGD, gradient noise.
void relatives_rows(session& s);

}  // namespace limber::papers
