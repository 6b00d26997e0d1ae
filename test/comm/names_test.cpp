// SPDX-License-Identifier: Apache-2.0
// labels: unit gloo
// needs: gloo
#define BOOST_TEST_MODULE limber.comm.names
#include <limber/batch/policies.hpp>
#include <limber/comm/gloo.hpp>
#include <limber/comm/threads.hpp>
#include <limber/limber.hpp>
#include <limber/sync/strategies.hpp>

#include <boost/test/unit_test.hpp>

#include <fcntl.h>
#include <gloo/context.h>
#include <grp.h>
#include <netdb.h>
#include <poll.h>
#include <pwd.h>
#include <regex.h>
#include <sched.h>
#include <search.h>
#include <semaphore.h>
#include <signal.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ctime>
#include <memory>
#include <vector>

// A trainer that opens the whole namespace beside what POSIX and Gloo declare: every name of either is used
// without a qualification, so none is ambiguous.
using namespace limber;

namespace {

std::shared_ptr<gloo::Context> const no_context;  // Gloo's
using of_limber = limber::gloo_engine::communicator;

[[nodiscard]] gid_t group_of(group const* g) { return g != nullptr ? g->gr_gid : 0; }  // POSIX's

}  // namespace

BOOST_AUTO_TEST_CASE(the_namespace_can_be_opened_beside_those_of_posix_and_gloo) {
  BOOST_TEST(access("/", R_OK) == 0);
  BOOST_TEST(group_of(getgrgid(0)) == 0);
  BOOST_TEST(time(nullptr) > 0);
  BOOST_TEST(clock() >= 0);
  BOOST_TEST(index("ab", 'b') != nullptr);
  pollfd nothing{-1, POLLIN, 0};
  BOOST_TEST(poll(&nothing, 1, 0) == 0);
  BOOST_TEST(!no_context);
  ::sync();  // a call: its name is that of a namespace here

  std::vector<float> w{1}, g{1};
  limber::self alone;
  parameter_group<sgd> const all{.tensors = {{"w", w, g}}, .rule = {}};
  optimizer opt{groups(all), constant(0.5), sync::allreduce{}, alone};
  opt.step(1);
  BOOST_TEST(w[0] == 0.5f);
  of_limber const single(0, 1, nullptr);
  BOOST_TEST(single.size() == 1);
  try {
    opt.step(-1);
  } catch (std::invalid_argument const&) {
  } catch (error const&) { BOOST_ERROR("of the engine"); }
}
