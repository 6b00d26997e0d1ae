// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/core/order.hpp>
#include <limber/fuse/updater.hpp>

namespace limber {

LIMBER_COLD LIMBER_FN updater::updater(tensor_list values)
    : values_(std::move(values)), frozen_(values_.size(), 0) {
  for (std::size_t i = 1; i < values_.size(); ++i)
    expects(values_[i - 1].name < values_[i].name, "updater: '", values_[i].name, "' follows '",
            values_[i - 1].name, "'; the list must be sorted by name, without repetition");
  for (auto const& v : values_) {
    origin_.push_back(elements_);
    elements_ += v.length;
  }
  gradients_ = values_;
}

LIMBER_COLD LIMBER_FN void updater::assign(i64 index, detail::erased_rule const& rule, double lr_scale) {
  tensor_view const& value = values_[static_cast<std::size_t>(index)];
  rule.type->check(rule.rule.get());
  expects(lr_scale >= 0 && math::finite(lr_scale), "'", value.name,
          "': lr_scale must be a number of at least 0, got ", lr_scale);
  detail::updater_part* part = nullptr;
  for (auto const& p : parts_)
    if (*p->type == *rule.type) part = p.get();
  if (part == nullptr) {
    parts_.emplace_back(part = new detail::updater_part);
    part->type = rule.type;
  }
  part->rules.push_back({rule, lr_scale});
  part->index.push_back(index);
  part->all.push_back(value);
}

LIMBER_COLD LIMBER_FN void updater::allocate(any_executor& e) {
  std::size_t assigned = 0;
  for (auto const& p : parts_) assigned += p->index.size();
  expects(assigned == values_.size(), "updater: ", assigned, " rules for ", values_.size(), " tensors");
  for (auto const& owned : parts_) {
    detail::updater_part& p = *owned;
    p.kernel = e.kernel_of(p.rules[0].rule);
    expects(p.kernel != nullptr, "updater: the rule of '", p.all[0].name,
            "' was not compiled for this executor: any_rule holds kernels for the host alone; give the "
            "rule's own type");
    int used = 0;
    for (auto const& r : p.rules) used = detail::greatest(used, p.type->slots_used(r.rule.rule.get()));
    for (int k = 0; k < used; ++k) {
      p.slots.push_back(e.make(layout_of(p.all)));
      p.working.push_back(p.slots.back().parts);
    }
    auto const n = static_cast<i64>(p.index.size());
    p.values = p.gradients = p.all;
    p.seeded.assign(p.index.size(), 0);
    detail::rule_memory& m = p.memory;
    m.entries = e.share<std::byte>(n * p.type->entry_bytes);
    m.narrow = e.share<std::byte>(n * p.type->narrow_bytes);
    m.wide = e.share<std::byte>(n * p.type->wide_bytes);
    m.seen = e.share<i64>(n);
    m.previous_rate = e.share<double>(n);
    m.round = e.share<rounding>(n);
    m.position = e.share<i64>(n);
    m.origin = e.share<i64>(n);
    for (std::size_t t = 0; t < p.index.size(); ++t) {
      p.type->put(m.entries.host + static_cast<i64>(t) * p.type->entry_bytes, p.rules[t].rule.rule.get(),
                  p.rules[t].lr_scale);
      p.flags(t) = {p.all[t].type == dtype::f64 ? 1 : 0, 0};
      m.position[t] = p.index[t];
      m.origin[t] = origin_[static_cast<std::size_t>(p.index[t])];
    }
    e.publish(m.entries);
    e.publish(m.position);
    e.publish(m.origin);
    if (p.type->two_pass) p.directions = make_norms(e, n, p.type->value_norm ? 2 : 1);
    wants_value_norm_ = wants_value_norm_ || (p.type->value_norm && !p.type->two_pass);
  }
  hyper_ = e.share<hyper_block>(1);
  norms_ = make_norms(e, static_cast<i64>(values_.size()), wants_value_norm_ ? 2 : 1);
  measured_ = model();
}

namespace detail {

LIMBER_COLD LIMBER_FN void seed(any_executor& e, updater_part& p) {
  for (std::size_t k = 0; k < p.slots.size(); ++k) {
    if (p.type->slots[k] != slot::weight) continue;
    tensor_list to = p.slots[k].parts, from = p.all;
    for (std::size_t t = 0; t < to.size(); ++t) {
      if (p.seeded[t] != 0) to[t].length = 0;
      from[t].length = to[t].length;
    }
    e.each(copy{}, out(to), in(from));
  }
  for (i64& s : p.seeded) s = 1;
}

}  // namespace detail

LIMBER_FN void updater::seed(any_executor& e) {
  for (auto const& p : parts_) {
    bool all = true;
    for (i64 const s : p->seeded) all = all && s != 0;
    if (!all) detail::seed(e, *p);
  }
}

LIMBER_FN step_result updater::step(any_executor& e, tensor_list const& gradients, double rate, double scale,
                                    bool zero) {
  hyper_[0] = hyper_block(rate, scale);
  e.publish(hyper_);
  seed(e);
  mask(e);
  for (auto const& p : parts_) p->run(e, detail::rule_pass::prepare, hyper_.device);
  launch(e, gradients, zero);
  for (auto const& p : parts_) p->run(e, detail::rule_pass::commit, hyper_.device, norms_.facts());
  norm_report const& report = e.report(norms_);
  return {report.total.finite, report.culprit, report.total.square * scale * scale};
}

LIMBER_FN void updater::launch(any_executor& e, tensor_list const& gradients, bool zero) {
  expects(gradients.size() == values_.size(), "updater: ", gradients.size(), " gradients for ",
          values_.size(), " parameters");
  bool any_frozen = false;
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    gradients_[i] = gradients[i];
    if (frozen_[i] == 0) continue;
    gradients_[i].length = 0;
    any_frozen = true;
  }
  if (wants_value_norm_)
    e.measure(norms_, detail::gradient_and_value{}, in(gradients_), in(measured_));
  else
    e.measure(norms_, identity{}, in(gradients_));
  norm_facts const value = wants_value_norm_ ? norms_.facts(1) : norm_facts{};
  for (auto const& owned : parts_) {
    detail::updater_part& p = *owned;
    for (std::size_t t = 0; t < p.index.size(); ++t) {
      p.gradients[t] = gradients_[static_cast<std::size_t>(p.index[t])];
      p.gradients[t].length = p.values[t].length;
    }
    p.run(e, detail::rule_pass::update, hyper_.device, norms_.facts(), value, zero);
  }
  if (zero && any_frozen) e.each(limber::zero{}, out(gradients));
}

LIMBER_FN void updater::mask(any_executor& e) {
  for (auto const& p : parts_) mask(e, *p);
  if (wants_value_norm_)
    for (std::size_t i = 0; i < values_.size(); ++i)
      measured_[i].length = frozen_[i] != 0 ? 0 : values_[i].length;
}

// Frozen tensors have length 0 in the lists of a step.
LIMBER_FN void updater::mask(any_executor& e, detail::updater_part& p) const {
  bool changed = false;
  for (std::size_t t = 0; t < p.index.size(); ++t) {
    i64 const now = frozen_[static_cast<std::size_t>(p.index[t])];
    if (p.flags(t).frozen == now) continue;
    changed = true;
    p.flags(t).frozen = now;
    p.values[t].length = now != 0 ? 0 : p.all[t].length;
    for (auto& s : p.working) s[t].length = p.values[t].length;
  }
  if (changed) e.publish(p.memory.entries);
}

LIMBER_COLD LIMBER_FN tensor_list updater::model() const {
  tensor_list out = values_;
  for (auto const& p : parts_) {
    if (p->type->master_slot < 0) continue;
    auto const& masters = p->slots[static_cast<std::size_t>(p->type->master_slot)].parts;
    for (std::size_t t = 0; t < p->index.size(); ++t) out[static_cast<std::size_t>(p->index[t])] = masters[t];
  }
  return out;
}

LIMBER_FN void updater::copy_to_parameters(any_executor& e) {
  for (auto const& p : parts_)
    if (p->type->master_slot >= 0)
      e.each(copy{}, out(p->all), in(p->slots[static_cast<std::size_t>(p->type->master_slot)].parts));
}

LIMBER_FN void updater::slots(slot_visitor f) const {
  for (auto const& p : parts_)
    for (std::size_t k = 0; k < p->slots.size(); ++k)
      if (static_cast<int>(k) != p->type->master_slot) f(p->type->slots[k], p->slots[k].parts);
}

LIMBER_COLD LIMBER_FN void updater::reset_moments(any_executor& e) {
  for (auto const& p : parts_) {
    mask(e, *p);
    for (std::size_t k = 0; k < p->slots.size(); ++k)
      if (p->type->slots[k] == slot::moment) e.each(zero{}, out(p->working[k]));
    p->run(e, detail::rule_pass::forget);
  }
}

namespace detail {

template <class T>
[[nodiscard]] tensor_view device_view(shared_array<T> const& a) noexcept {
  return {reinterpret_cast<std::byte*>(a.device), a.n, dtype_of<T>, {}};
}

}  // namespace detail

LIMBER_COLD LIMBER_FN void updater::visit(std::string const& prefix, piece_visitor f) {
  f(prefix + "frozen", view(frozen_), true);
  int number = 0;
  for (auto const& owned : parts_) {
    detail::updater_part& p = *owned;
    std::string const of = text(prefix, "rule", number++, "/");
    f(of + "seen", detail::device_view(p.memory.seen), false);
    f(of + "seeded", view(p.seeded), false);
    f(of + "previous_rate", detail::device_view(p.memory.previous_rate), false);
    for (std::size_t k = 0; k < p.slots.size(); ++k)
      for (std::size_t t = 0; t < p.index.size(); ++t)
        f(text(of, "slot", k, "/", p.all[t].name), p.slots[k].parts[t], p.type->slots[k] == slot::weight);
  }
}

LIMBER_COLD LIMBER_FN void updater::describe(
    function_ref<void(std::string_view tensor, std::string_view rule, double lr_scale)> f) const {
  for (auto const& p : parts_)
    for (std::size_t t = 0; t < p->index.size(); ++t) {
      fingerprint h;
      p->type->mix(h, p->rules[t].rule.rule.get());
      f(p->all[t].name, text(p->type->name, ", hyper-parameters #", h.value() % 1000000),
        p->rules[t].lr_scale);
    }
}

LIMBER_COLD LIMBER_FN void updater::mix(fingerprint& h) const {
  for (auto const& p : parts_)
    for (auto const& r : p->rules) {
      p->type->mix(h, r.rule.rule.get());
      h.mix(r.lr_scale);
    }
}

LIMBER_FN std::uint64_t updater::frozen_hash() const noexcept {
  std::uint64_t h = 0;
  for (std::size_t i = 0; i < frozen_.size(); ++i)
    if (frozen_[i] != 0) h += (i + 1) * 0x9e37'79b9'7f4a'7c15u;
  return h;
}

LIMBER_FN i64 updater::slot_bytes() const noexcept {
  i64 sum = 0;
  for (auto const& p : parts_)
    for (auto const& s : p->slots) sum += s.bytes;
  return sum;
}

LIMBER_FN detail::updater_part const* updater::part_of(detail::rule_type const& type) const noexcept {
  for (auto const& p : parts_)
    if (*p->type == type) return p.get();
  return nullptr;
}

}  // namespace limber
