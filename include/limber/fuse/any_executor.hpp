// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Any executor as one type, with the library's list operations.

#include <limber/core/box.hpp>
#include <limber/fuse/executor.hpp>
#include <limber/fuse/host.hpp>
#include <limber/fuse/rule_functors.hpp>
#include <limber/fuse/rule_table.hpp>
#include <limber/fuse/strategy_functors.hpp>

#include <concepts>
#include <type_traits>
#include <utility>
#include <vector>

namespace limber {

namespace detail {

/// An operation on an executor E: `each`, or `measure` into `to`.
using operation_function = void (*)(void* e, norm_memory* to, void const* f, tensor_list const* const* lists);

/// Functor F over operands A: for `each`, or with norms of what it returns for `measure`.
template <bool Measured, class F, access_mode... A>
struct list_operation {
  template <class E>
  static void run(void* e, norm_memory* to, void const* f, tensor_list const* const* lists) {
    on(*static_cast<E*>(e), to, *static_cast<F const*>(f), lists, std::index_sequence_for<operand<A>...>{});
  }

 private:
  template <class E, std::size_t... K>
  static void on(E& e, [[maybe_unused]] norm_memory* to, F const& f, tensor_list const* const* lists,
                 std::index_sequence<K...>) {
    if constexpr (Measured)
      e.measure(*to, f, operand<A>{lists[K]}...);
    else
      e.each(f, operand<A>{lists[K]}...);
  }
};
template <class F, access_mode... A>
using each_of = list_operation<false, F, A...>;
template <class F, access_mode... A>
using measure_of = list_operation<true, F, A...>;

/// Operations by number: what an executor is compiled for once.
template <class... All>
struct operation_list {
  /// −1 for one that is not in the list.
  template <class Operation>
  static constexpr int number = [] {
    int at = -1, k = 0;
    ((at = __is_same(Operation, All) ? k : at, ++k), ...);
    return at;
  }();
  template <class E, class Some, class Operation>
  [[nodiscard]] static constexpr operation_function function() noexcept {
    if constexpr (Some::template number<Operation> >= 0)
      return &Operation::template run<E>;
    else
      return nullptr;
  }
  /// Those of `Some` on executor E, by their numbers here.
  template <class E, class Some>
  static constexpr operation_function table[] = {function<E, Some, All>()...};
};

/// What strategies, updaters and the handshake are made of.
using list_operations = operation_list<
    each_of<zero, access_mode::out>, each_of<copy, access_mode::out, access_mode::in>,
    each_of<scaled_copy, access_mode::out, access_mode::in>,
    each_of<accumulate, access_mode::inout, access_mode::in>,
    each_of<step_back, access_mode::out, access_mode::in, access_mode::in>,
    each_of<blend, access_mode::inout, access_mode::in>,
    each_of<pack_with_error, access_mode::out, access_mode::inout, access_mode::in>,
    each_of<sync::half_and_half, access_mode::inout, access_mode::in>,
    each_of<sync::ratio, access_mode::out, access_mode::in>,
    each_of<sync::join_halves, access_mode::out, access_mode::out, access_mode::in, access_mode::in>,
    each_of<sync::add_weighted, access_mode::inout, access_mode::in>, measure_of<identity, access_mode::in>,
    measure_of<gradient_and_value, access_mode::in, access_mode::in>,
    measure_of<pack, access_mode::out, access_mode::inout>,
    measure_of<pack, access_mode::inout, access_mode::inout>,
    measure_of<pack, access_mode::out, access_mode::in, access_mode::inout>,
    measure_of<pack_with_error, access_mode::out, access_mode::inout, access_mode::in, access_mode::inout>,
    measure_of<pack_with_error, access_mode::out, access_mode::out, access_mode::in, access_mode::inout>,
    measure_of<difference, access_mode::out, access_mode::in, access_mode::in>,
    measure_of<weighted, access_mode::out, access_mode::in>,
    measure_of<sync::follow, access_mode::out, access_mode::in, access_mode::in>,
    measure_of<sync::pull_centre, access_mode::inout, access_mode::inout>,
    measure_of<sync::delay_compensation, access_mode::out, access_mode::in, access_mode::in, access_mode::in>,
    measure_of<sync::adaptive_delay_compensation, access_mode::out, access_mode::in, access_mode::in,
               access_mode::in, access_mode::in, access_mode::out>>;

/// What an updater alone needs: for executors that are used without a strategy.
using update_operations =
    operation_list<each_of<zero, access_mode::out>, each_of<copy, access_mode::out, access_mode::in>,
                   measure_of<identity, access_mode::in>,
                   measure_of<gradient_and_value, access_mode::in, access_mode::in>>;

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

/// The functions of executor type E, compiled for the operations `Some`.
template <class E, class Some>
inline constexpr executor_functions executor_functions_of{
    [](void* e, layout const& where) { return static_cast<E*>(e)->make(where); },
    [](void* e, norm_memory const& m) -> norm_report const& { return static_cast<E*>(e)->report(m); },
    [](void* e, i64 bytes) { return static_cast<E*>(e)->template share<std::byte>(bytes); },
    [](void* e, shared_array<std::byte> const& a) { static_cast<E*>(e)->publish(a); },
    [](void* e, shared_array<std::byte> const& a) { static_cast<E*>(e)->collect(a); },
    [](void* e) { static_cast<E*>(e)->wait(static_cast<E*>(e)->record()); },
    list_operations::table<E, Some>};

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
        rules_(std::move(other.rules_)),
        own_(std::move(other.own_)) {}
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
      rules_.push_back({&detail::rule_type_of<R>, &detail::rule_on<R, E>::run});
  }
  /// The kernel of a rule on this executor; null if it was compiled for another one alone.
  [[nodiscard]] detail::rule_kernel kernel_of(detail::erased_rule const& rule) const noexcept {
    if (rule.executor == type_) return rule.kernel;
    for (auto const& r : rules_)
      if (*r.rule == *rule.type) return r.kernel;
    return nullptr;
  }
  [[nodiscard]] bool is_host() const noexcept { return functions_ == nullptr; }
  /// For the kernel of a rule.
  [[nodiscard]] void* get() noexcept { return executor_; }

  [[nodiscard]] slab make(layout const& where) {
    return is_host() ? on_host().make(where) : functions_->make(executor_, where);
  }
  template <class F, access_mode... A>
  void each(F const& f, operand<A>... lists) {
    tensor_list const* const all[] = {lists.list...};
    run<detail::each_of<F, A...>>(nullptr, &f, all);
  }
  template <class F, access_mode... A>
  void measure(norm_memory& to, F const& f, operand<A>... lists) {
    tensor_list const* const all[] = {lists.list...};
    run<detail::measure_of<F, A...>>(&to, &f, all);
  }
  template <class F, access_mode... A>
  norm_report const& norm(F const& f, operand<A>... lists) {
    tensor_list const* const all[] = {lists.list...};
    auto const n = static_cast<i64>(all[0]->size());
    if (own_.tensors != n || own_.narrow.n == 0) own_ = make_norms(*this, n);
    run<detail::measure_of<F, A...>>(&own_, &f, all);
    return report(own_);
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
    detail::rule_kernel kernel;
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
  template <class Operation>
  void run(norm_memory* to, void const* f, tensor_list const* const* lists) {
    constexpr int number = detail::list_operations::number<Operation>;
    static_assert(number >= 0,
                  "limber: this operation is not among those that every executor has; call each(), measure() "
                  "or norm() of the executor itself, as<limber::host>()");
    if (is_host()) return Operation::template run<host>(executor_, to, f, lists);
    run_elsewhere(number, to, f, lists);
  }
  LIMBER_COLD void run_elsewhere(int number, norm_memory* to, void const* f,
                                 tensor_list const* const* lists) {
    auto const operation = functions_->operations[number];
    if (operation == nullptr)
      throw std::logic_error(text("limber: this executor was not compiled for list operation ", number));
    operation(executor_, to, f, lists);
  }

  void* executor_;
  void (*destroy_)(void*) noexcept = nullptr;
  detail::executor_functions const* functions_;  // null: it is a host
  detail::type_identity type_;
  std::vector<known_rule> rules_;
  norm_memory own_;
};

}  // namespace limber
