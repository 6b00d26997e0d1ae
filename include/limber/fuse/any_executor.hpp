// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Any executor as one type, with the library's list operations.

#include <limber/core/box.hpp>
#include <limber/fuse/executor.hpp>
#include <limber/fuse/host.hpp>
#include <limber/fuse/list_operations.hpp>
#include <limber/fuse/rule_table.hpp>

#include <concepts>
#include <type_traits>
#include <utility>
#include <vector>

namespace limber {

namespace detail {

/// One operation on an executor E. `to` null: `each`, or `norm`; else `measure` into it.
using operation_function = norm_report const* (*)(void* e, norm_memory* to, void const* f,
                                                  tensor_list const* const* lists);

/// What is done to an executor that is not the host, by functions of its type.
struct executor_functions {
  slab (*make)(void*, layout const&);
  norm_report const& (*report)(void*, norm_memory const&);
  shared_array<std::byte> (*share)(void*, i64 bytes);
  void (*publish)(void*, shared_array<std::byte> const&);
  void (*collect)(void*, shared_array<std::byte> const&);
  void (*synchronize)(void*);
  operation_function const* operations;  ///< by number; null where an executor was not compiled for it
};

template <class E, class Operation>
struct operation_on;
template <class E, class F, access_mode... A>
struct operation_on<E, each_of<F, A...>> {
  static norm_report const* run(void* e, norm_memory*, void const* f, tensor_list const* const* lists) {
    [&]<std::size_t... K>(std::index_sequence<K...>) {
      static_cast<E*>(e)->each(*static_cast<F const*>(f), operand<A>{lists[K]}...);
    }
    (std::index_sequence_for<operand<A>...>{});
    return nullptr;
  }
};
template <class E, class F, access_mode... A>
struct operation_on<E, measure_of<F, A...>> {
  static norm_report const* run(void* e, norm_memory* to, void const* f, tensor_list const* const* lists) {
    return [&]<std::size_t... K>(std::index_sequence<K...>)->norm_report const* {
      if (to == nullptr) return &static_cast<E*>(e)->norm(*static_cast<F const*>(f), operand<A>{lists[K]}...);
      static_cast<E*>(e)->measure(*to, *static_cast<F const*>(f), operand<A>{lists[K]}...);
      return nullptr;
    }
    (std::index_sequence_for<operand<A>...>{});
  }
};

template <class E, class List, class Some>
struct operations_on;
template <class E, class... All, class... Some>
struct operations_on<E, operation_list<All...>, operation_list<Some...>> {
  template <class Operation>
  static constexpr operation_function one() {
    if constexpr ((std::is_same_v<Operation, Some> || ...))
      return &operation_on<E, Operation>::run;
    else
      return nullptr;
  }
  static constexpr operation_function table[] = {one<All>()...};
};

/// The functions of executor type E, compiled for the operations `Some`.
template <class E, class Some>
inline constexpr executor_functions executor_functions_of{
    [](void* e, layout const& where) { return static_cast<E*>(e)->make(where); },
    [](void* e, norm_memory const& m) -> norm_report const& { return static_cast<E*>(e)->report(m); },
    [](void* e, i64 bytes) { return static_cast<E*>(e)->template share<std::byte>(bytes); },
    [](void* e, shared_array<std::byte> const& a) { static_cast<E*>(e)->publish(a); },
    [](void* e, shared_array<std::byte> const& a) { static_cast<E*>(e)->collect(a); },
    [](void* e) { static_cast<E*>(e)->wait(static_cast<E*>(e)->record()); },
    operations_on<E, list_operations, Some>::table};

}  // namespace detail

/// Owns any executor, or refers to one; what strategies and updaters work on.
///
/// The host is reached directly. Of another executor the operations of `detail::list_operations` and the
/// rules that were named by `learn` are compiled, each once; `as<E>()` gives the executor itself, for
/// functors of one's own. Errors   std::logic_error from an operation that the executor was not compiled for.
class any_executor {
 public:
  /// Owns `e`.
  template <class E>
    requires(!std::same_as<E, any_executor> && !std::is_lvalue_reference_v<E>)
  explicit any_executor(E e) : any_executor(new E(std::move(e)), functions<E, detail::list_operations>()) {
    destroy_ = [](void* p) noexcept { delete static_cast<E*>(p); };
  }
  /// Refers to `e`, compiled for some operations alone.
  template <class E, class Some>
  any_executor(E& e, Some) : any_executor(&e, functions<E, Some>()) {}

  any_executor(any_executor&& other) noexcept
      : executor_(std::exchange(other.executor_, nullptr)),
        destroy_(std::exchange(other.destroy_, nullptr)),
        functions_(other.functions_),
        type_(other.type_),
        rules_(std::move(other.rules_)) {}
  any_executor& operator=(any_executor&&) = delete;
  ~any_executor() {
    if (destroy_ != nullptr) destroy_(executor_);
  }

  /// The executor, if it is an E; else null.
  template <class E>
  [[nodiscard]] E* as() noexcept {
    return type_ == detail::type_key<E> ? static_cast<E*>(executor_) : nullptr;
  }

  /// Compiles rule R, which some strategy holds as an any_rule, for executor E, which this must be. Nothing
  /// to do for the host.
  template <update_rule R, class E>
  void learn() {
    if constexpr (!std::same_as<E, host>)
      rules_.push_back({&detail::rule_type_of<R>, &detail::rule_kernels_of<R, E>});
  }
  /// The kernels of a rule on this executor; null if they were compiled for another one alone.
  [[nodiscard]] detail::rule_kernels const* kernels_of(detail::erased_rule const& rule) const noexcept {
    if (rule.executor == type_) return rule.kernels;
    for (auto const& r : rules_)
      if (*r.rule == *rule.type) return r.kernels;
    return nullptr;
  }
  [[nodiscard]] bool is_host() const noexcept { return functions_ == nullptr; }
  /// For the kernels of a rule.
  [[nodiscard]] void* get() noexcept { return executor_; }

  [[nodiscard]] slab make(layout const& where) {
    return is_host() ? on_host().make(where) : functions_->make(executor_, where);
  }
  template <class F, access_mode... A>
  void each(F const& f, operand<A>... lists) {
    static_assert(
        detail::operation_number<detail::each_of<F, A...>> >= 0,
        "limber: this operation is not among those that every executor has; call each() of the executor "
        "itself, as<limber::host>()");
    if (is_host()) return on_host().each(f, lists...);
    tensor_list const* const all[] = {lists.list...};
    (void)run(detail::operation_number<detail::each_of<F, A...>>, nullptr, &f, all);
  }
  template <class F, access_mode... A>
  void measure(norm_memory& to, F const& f, operand<A>... lists) {
    static_assert(detail::operation_number<detail::measure_of<F, A...>> >= 0,
                  "limber: this operation is not among those that every executor has; call measure() of the "
                  "executor itself, as<limber::host>()");
    if (is_host()) return on_host().measure(to, f, lists...);
    tensor_list const* const all[] = {lists.list...};
    (void)run(detail::operation_number<detail::measure_of<F, A...>>, &to, &f, all);
  }
  template <class F, access_mode... A>
  norm_report const& norm(F const& f, operand<A>... lists) {
    static_assert(
        detail::operation_number<detail::measure_of<F, A...>> >= 0,
        "limber: this operation is not among those that every executor has; call norm() of the executor "
        "itself, as<limber::host>()");
    if (is_host()) return on_host().norm(f, lists...);
    tensor_list const* const all[] = {lists.list...};
    return *run(detail::operation_number<detail::measure_of<F, A...>>, nullptr, &f, all);
  }
  norm_report const& report(norm_memory const& m) {
    return is_host() ? on_host().report(m) : functions_->report(executor_, m);
  }
  template <class T>
  [[nodiscard]] shared_array<T> share(i64 n) {
    return share_bytes(n * static_cast<i64>(sizeof(T))).template as<T>();
  }
  template <class T>
  void publish(shared_array<T> const& a) {
    if (!is_host()) functions_->publish(executor_, a.template as<std::byte>());
  }
  template <class T>
  void collect(shared_array<T> const& a) {
    if (!is_host()) functions_->collect(executor_, a.template as<std::byte>());
  }
  /// The host waits for all that was started before: what comes next may read or write the memory itself.
  void synchronize() {
    if (!is_host()) functions_->synchronize(executor_);
  }

 private:
  struct known_rule {
    detail::rule_type const* rule;
    detail::rule_kernels const* kernels;
  };

  template <class E, class Some>
  [[nodiscard]] static constexpr detail::executor_functions const* functions() noexcept {
    if constexpr (std::same_as<E, host>)
      return nullptr;
    else
      return &detail::executor_functions_of<E, Some>;
  }
  template <class E>
  any_executor(E* e, detail::executor_functions const* functions)
      : executor_(e), functions_(functions), type_(detail::type_key<E>) {}

  [[nodiscard]] host& on_host() noexcept { return *static_cast<host*>(executor_); }
  [[nodiscard]] shared_array<std::byte> share_bytes(i64 bytes) {
    return is_host() ? on_host().share_bytes(bytes) : functions_->share(executor_, bytes);
  }
  norm_report const* run(int number, norm_memory* to, void const* f, tensor_list const* const* lists) {
    auto const operation = functions_->operations[number];
    if (operation == nullptr)
      throw std::logic_error(text("limber: this executor was not compiled for list operation ", number));
    return operation(executor_, to, f, lists);
  }

  void* executor_;
  void (*destroy_)(void*) noexcept = nullptr;
  detail::executor_functions const* functions_;  // null: it is a host
  detail::type_identity type_;
  std::vector<known_rule> rules_;
};

}  // namespace limber
