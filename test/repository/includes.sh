#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The order of the rooms: reads every #include of every header below include/ and cuda/, and of the definitions (.ipp)
# that headers of the same room include.
source "$(dirname "${BASH_SOURCE[0]}")/tree.sh"

mapfile -t headers < <(files | grep -E '^(include|cuda)/.*\.(hpp|ipp|cuh)$' || true)
[[ ${#headers[@]} -gt 0 ]] || { echo "no header found below include/"; exit 1; }

# A room may include itself and what stands here; "everything" is any header but those of engines.
# An engine (anything but the standard library) is met in the headers listed with it, nowhere else.
awk '
BEGIN {
  below["core"] = ""
  below["schedule"] = below["rule"] = below["batch"] = below["comm"] = below["state"] = "core"
  below["fuse"] = "core rule"
  below["sync"] = "core rule fuse comm"
  below["optimizer.hpp"] = "core schedule rule batch comm fuse sync"
  below["elastic"] = "core batch comm state optimizer.hpp"
  below["sim"] = "core schedule rule batch comm state fuse sync optimizer.hpp elastic"
  below["cuda"] = "core schedule rule fuse"
  below["adapt"] = below["limber.hpp"] = below["impl"] = "everything"

  # The optimizer keeps its parts in a folder.
  part_of["optimizer"] = "optimizer.hpp"

  engine["^mpi\\.h$"] = "^limber/comm/mpi\\.hpp$"
  engine["^nccl\\.h$"] = "^limber/comm/nccl\\.hpp$"
  engine["^gloo/"] = "^limber/comm/(gloo|detail/gloo_[a-z]*)\\.hpp$"
  engine["^zmq\\.hpp$"] = "^limber/comm/detail/message_sockets\\.hpp$"
  engine["^(torch|ATen|c10)/"] = "^limber/(comm/c10d|adapt/torch)\\.hpp$"
  engine["^(cuda|cub|thrust|nvtx3)/"] = "^limber/(cuda/|adapt/thrust\\.)"
  engine["^(cuda|cooperative_groups|nvToolsExt)[a-z_0-9]*\\.h$"] = "^limber/(cuda/|comm/nccl\\.)"
  engine["^Eigen/"] = "^limber/adapt/eigen\\.hpp$"
  engine["^dlpack/"] = "^limber/adapt/dlpack\\.hpp$"
  engine["^boost/context/"] = engine["^(cxxabi\\.h|sanitizer/)"] = "^limber/sim/"
  engine["^omp\\.h$"] = "^limber/fuse/impl/host\\.ipp$"
  engine["^pthread\\.h$"] = "^limber/comm/impl/threads\\.ipp$"
  engine["^nlohmann/"] = "^limber/state/json\\.hpp$"
  engine["^((sys|netinet|arpa)/.*|fcntl|netdb|unistd|poll)\\.h$"] = "^limber/(state|elastic|comm/detail/gloo_|comm/impl/threads\\.ipp$)"
}

function room_of(path,  rest, n, parts) {
  rest = path
  sub(/^limber\//, "", rest)
  n = split(rest, parts, "/")
  return parts[1] in part_of ? part_of[parts[1]] : parts[1]
}

function allowed(room, other) {
  if (room == other) return 1
  if (below[room] == "everything") return 1
  return index(" " below[room] " ", " " other " ") > 0
}

function complain(what) { print FILENAME ":" FNR ": " what; wrong = 1 }

FNR == 1 {
  header = FILENAME
  sub(/^(include|cuda)\//, "", header)
  room = room_of(header)
  if (!(room in below)) complain("no room \"" room "\" is known")
  in_cuda = FILENAME ~ /^cuda\//
  if (in_cuda != (room == "cuda")) complain("cuda/ holds limber/cuda/, and nothing else does")
}

/(steady|system|high_resolution)_clock|clock_gettime|gettimeofday/ && !/^[ \t]*\/\// {
  if (header != "limber/core/impl/clock.ipp") complain("reads real time; only limber/core/impl/clock.ipp may")
}

/^[ \t]*#[ \t]*include/ {
  line = $0
  sub(/^[ \t]*#[ \t]*include[ \t]*/, "", line)
  if (line !~ /^</) { complain("include <limber/...>, not " line); next }
  name = line
  sub(/^</, "", name)
  sub(/>.*$/, "", name)

  if (name ~ /^limber\//) {
    other = room_of(name)
    if (!(other in below)) complain("<" name ">: no room \"" other "\" is known")
    else if (!allowed(room, other)) complain(room " must not include <" name ">: " other " is not below it")
    if (name !~ /\.ipp$/) includes[header] = includes[header] " " name
    next
  }
  if (name ~ /^[a-z0-9_]+$/) next  # the standard library
  for (pattern in engine)
    if (name ~ pattern) {
      if (header !~ engine[pattern]) complain("<" name "> is not met here, only in " engine[pattern])
      next
    }
  complain("<" name "> is neither the standard library nor an engine that this check knows")
}

# Does `from` come to include `to`? Definitions are not followed.
function reaches(from, to,  n, names, k) {
  if (from == to) return 1
  if ((from, to) in reached) return reached[from, to]
  reached[from, to] = 0
  n = split(includes[from], names, " ")
  for (k = 1; k <= n; ++k)
    if (reaches(names[k], to)) return reached[from, to] = 1
  return 0
}

# A header that is included first brings the definitions of those below it before its own declarations. So definitions
# must need none of the headers that include theirs; what lies in impl/ is included by definitions alone.
END {
  for (file in includes) {
    if (file !~ /\.ipp$/) continue
    own = file
    sub(/impl\//, "", own)
    sub(/\.ipp$/, ".hpp", own)
    n = split(includes[file], names, " ")
    for (k = 1; k <= n; ++k)
      if (names[k] != own && names[k] !~ /\/impl\// && reaches(names[k], own)) {
        print file ": includes <" names[k] ">, which includes <" own ">"
        wrong = 1
      }
  }
  exit wrong
}
' "${headers[@]}"
