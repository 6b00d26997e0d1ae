#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The tasks of bench/gpu through PyTorch: fused, foreach and unfused, on the same lists of tensors.

    bench_gpu --lists >lists.json
    torch_peers.py --lists lists.json --out torch.json [--filter REGEX]
    bench_gpu --torch=torch.json

One process; the file has the form of Google Benchmark's JSON, a row for every repetition, named
gpu/<kernel>/<list>/<dtype>/torch-<form>. Rows whose "same_work" is false move other bytes than the task
(PyTorch keeps the state of bf16 parameters in bf16) and are for orientation only.

Tensors are views of one flat buffer, each on a line of 32 elements, in as many copies as it takes to leave
the cache. Time is between two CUDA events over batches of about two milliseconds; gradients are renewed
between batches, untimed. Without PyTorch or a GPU nothing is written, and one line says so.
"""

import argparse
import datetime
import json
import re
import sys

REPETITIONS, SECONDS, BATCH_SECONDS = 5, 0.02, 2e-3
RATE, MAX_NORM, UNSCALE = 1e-3, 0.5, 0.5


def skip(reason):
    print(f"skipped: PyTorch peers: {reason}")
    sys.exit(0)


try:
    import torch
except ImportError:
    skip("PyTorch is not installed")


class Arrays:
    """`copies` times one array over the list: flat buffers, and their views per tensor."""

    def __init__(self, lengths, dtype, copies, fill=0.0):
        padded = [(n + 31) // 32 * 32 for n in lengths]
        self.flat = [torch.zeros(sum(padded), dtype=dtype, device="cuda") for _ in range(copies)]
        self.views = []
        for flat in self.flat:
            pieces = flat.split(padded)
            self.views.append([piece[:n] for piece, n in zip(pieces, lengths)])
        self.fill = fill
        self.renew()

    def renew(self):
        if self.fill:
            for flat in self.flat:
                flat.uniform_(-self.fill, self.fill)


def copies_of(lengths, bytes_per_element):
    cache = getattr(torch.cuda.get_device_properties(0), "L2_cache_size", 64 << 20)
    size = max(1, sum(lengths) * bytes_per_element)
    return max(1, min(16, -(-4 * cache // size)))


def samples_of(step, renew):
    """Seconds per call of step(k), one number for each repetition."""
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    calls = 0

    def batch(n):
        nonlocal calls
        renew()
        start.record()
        for _ in range(n):
            step(calls)
            calls += 1
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop) / 1e3

    one = batch(1)
    if one < 1:
        one = batch(1)
    if one < 0.1:
        one = batch(4) / 4
    n = max(1, min(256, int(BATCH_SECONDS / one)))
    out = []
    for _ in range(REPETITIONS):
        total, passes = 0.0, 0
        while total < SECONDS:
            total += batch(n)
            passes += n
        out.append(total / passes)
    return out


def total_norm(tensors):
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))


def parameters(lengths, dtype, copies):
    """Parameters with gradients of their own type."""
    values, gradients = Arrays(lengths, dtype, copies, 0.01), Arrays(lengths, dtype, copies, 0.01)
    out = []
    for views, grads in zip(values.views, gradients.views):
        out.append([torch.nn.Parameter(v) for v in views])
        for p, g in zip(out[-1], grads):
            p.grad = g
    return out, gradients


def optimizer(kernel, params, form):
    flags = {"fused": {"fused": True}, "foreach": {"foreach": True}, "unfused": {"foreach": False}}[form]
    if kernel.startswith("adamw"):
        return torch.optim.AdamW(params, lr=RATE, **flags)
    decay = 1e-4 if kernel == "sgd-decayed" else 0.0
    return torch.optim.SGD(params, lr=RATE, momentum=0.9, weight_decay=decay, nesterov=kernel == "nesterov", **flags)


def update(kernel, lengths, dtype, form):
    """The update alone: no finite test, gradients kept."""
    state = 2 if kernel == "adamw" else 1
    params, gradients = parameters(lengths, dtype, copies_of(lengths, dtype.itemsize * (2 + state)))
    opts = [optimizer(kernel, p, form) for p in params]
    return (lambda k: opts[k % len(opts)].step()), gradients.renew


def whole_step(kernel, lengths, form):
    """Unscale, norm with finite test, update, zeroing."""
    params, gradients = parameters(lengths, torch.float32, copies_of(lengths, 16))
    opts = [optimizer(kernel, p, form) for p in params]
    scale = torch.full((), 1 / UNSCALE, device="cuda")

    def step(k):
        k %= len(opts)
        grads = gradients.views[k]
        total = total_norm(grads)
        if form == "fused":
            opts[k].grad_scale = scale
            opts[k].found_inf = (~torch.isfinite(total)).float()
            opts[k].step()
        elif torch.isfinite(total):
            torch._foreach_mul_(grads, UNSCALE)
            opts[k].step()
        torch._foreach_zero_(grads)

    return step, gradients.renew


def master_step(kernel, lengths, form):
    """fp32 masters of bf16 parameters: unscale, norm, finite test, clip, update, bf16 copy, zeroing.

    stepwise: each in a pass of its own. folded: unscale and clip are the fused optimizer's grad_scale.
    Gradients are fp32 for SGD, bf16 for AdamW; the latter are cast, since masters need fp32 ones.
    """
    adam = kernel == "adamw"
    copies = copies_of(lengths, 20 if adam else 14)
    params, gradients = parameters(lengths, torch.float32, copies)
    low = Arrays(lengths, torch.bfloat16, copies).views
    wire = Arrays(lengths, torch.bfloat16, copies, 0.01) if adam else None
    opts = [optimizer("adamw" if adam else "sgd-decayed", p, "fused") for p in params]
    inverse, one = torch.full((), UNSCALE, device="cuda"), torch.ones((), device="cuda")

    def step(k):
        k %= len(opts)
        grads = gradients.views[k]
        if adam:
            torch._foreach_copy_(grads, wire.views[k])
        found = torch.zeros((), device="cuda")
        if form == "stepwise":
            torch._amp_foreach_non_finite_check_and_unscale_(grads, found, inverse)
            factor = torch.minimum(MAX_NORM / total_norm(grads), one)
            torch._foreach_mul_(grads, factor)
        else:
            total = total_norm(grads) * inverse
            found = (~torch.isfinite(total)).float()
            opts[k].grad_scale = 1 / (inverse * torch.minimum(MAX_NORM / total, one))
        opts[k].found_inf = found
        opts[k].step()
        torch._foreach_copy_(low[k], [p.data for p in params[k]])
        torch._foreach_zero_(wire.views[k] if adam else grads)

    return step, (wire or gradients).renew


def norm(lengths, dtype, form):
    x = Arrays(lengths, dtype, copies_of(lengths, dtype.itemsize), 0.01).views

    def unfused(k):
        torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(t) for t in x[k % len(x)]]))

    return ((lambda k: total_norm(x[k % len(x)])) if form == "foreach" else unfused), lambda: None


def fusion(kernel, lengths, dtype):
    """Passes over two or three lists; `a` is written. dtype is that of the wire, or of both models."""
    f32 = torch.float32
    types = {
        "pack": (dtype, f32), "unpack": (f32, dtype), "accumulate": (f32, dtype),
        "blend": (dtype, dtype), "difference": (dtype, f32, f32),
    }[kernel]
    copies = copies_of(lengths, sum(t.itemsize for t in types))
    arrays = [Arrays(lengths, t, copies, 0.01) for t in types]

    def step(k):
        a, b, *c = (x.views[k % copies] for x in arrays)
        if kernel == "pack":
            torch._foreach_copy_(a, b)
            torch._foreach_mul_(a, 0.25)
            total_norm(b)
            torch._foreach_zero_(b)
        elif kernel == "unpack":
            torch._foreach_copy_(a, b)
            torch._foreach_mul_(a, 0.5)
        elif kernel == "accumulate":
            torch._foreach_add_(a, b)
        elif kernel == "blend":
            torch._foreach_lerp_(a, b, 0.25)
        else:
            d = torch._foreach_sub(b, c[0])
            torch._foreach_mul_(d, 0.5)
            torch._foreach_copy_(a, d)

    return step, (lambda: [x.renew() for x in arrays])


def tasks(lengths):
    """(kernel, dtype's name, form, same work, what makes step and renew)"""
    f32, bf16 = ("f32", torch.float32), ("bf16", torch.bfloat16)
    forms = ("fused", "foreach", "unfused")
    for kernel in ("sgd", "nesterov", "adamw"):
        for name, dtype in (f32, bf16):
            for form in forms:
                yield kernel, name, form, name == "f32", lambda: update(kernel, lengths, dtype, form)
    for kernel in ("sgd", "adamw"):
        for form in forms:
            yield kernel + "-step", "f32", form, True, lambda: whole_step(kernel, lengths, form)
        for form in ("stepwise", "folded"):
            yield f"master-{kernel}-step", "bf16", form, True, lambda: master_step(kernel, lengths, form)
    for name, dtype in (f32, bf16):
        for form in ("foreach", "unfused"):
            yield "norm", name, form, True, lambda: norm(lengths, dtype, form)
        for kernel in ("pack", "unpack", "accumulate", "blend", "difference"):
            yield kernel, name, "foreach", True, lambda: fusion(kernel, lengths, dtype)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--lists", required=True, help="JSON of bench_gpu --lists")
    arguments.add_argument("--out", required=True, help="where the rows go")
    arguments.add_argument("--filter", default="", help="only rows in whose name this is found, or in their task's")
    options = arguments.parse_args()
    if not torch.cuda.is_available():
        skip("no CUDA device")

    rows = []
    with open(options.lists) as file:
        lists = json.load(file)
    for list_name, lengths in lists.items():
        for kernel, dtype, form, same_work, make in tasks(lengths):
            name = f"gpu/{kernel}/{list_name}/{dtype}/torch-{form}"
            if not (re.search(options.filter, name) or re.search(options.filter, name[:name.rindex("/")])):
                continue
            try:
                step, renew = make()
                times = samples_of(step, renew)
            except (RuntimeError, TypeError, AttributeError) as reason:
                # Out of memory, or a form that this version of PyTorch does not have.
                print(f"{name}: skipped: {str(reason).splitlines()[0]}", file=sys.stderr)
                times = []
            step = renew = None
            torch.cuda.empty_cache()
            for k, seconds in enumerate(times):
                rows.append({
                    "name": name, "run_name": name, "run_type": "iteration", "repetitions": REPETITIONS,
                    "repetition_index": k, "threads": 1, "iterations": 1, "real_time": seconds * 1e6,
                    "cpu_time": seconds * 1e6, "time_unit": "us", "same_work": same_work,
                })
            if times:
                print(f"{name}  {sorted(times)[len(times) // 2] * 1e6:.1f} us", file=sys.stderr)
    context = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "torch": f"torch      {torch.__version__}, CUDA {torch.version.cuda}",
    }
    with open(options.out, "w") as file:
        json.dump({"context": context, "benchmarks": rows}, file, indent=1)


if __name__ == "__main__":
    main()
