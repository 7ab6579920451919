"""Section 2: the training step in each precision and memory format, against the time that its memory traffic takes.

Each setting is warmed up and timed on its own: the median over rounds of several steps in a row. `times_the_limit` is
the step over the time that its bytes take: what every operator reads and writes, forward and backward, each tensor once
in the type that it has there (see traffic.py), over the bandwidth of a large copy on the same device. In
`times_the_fused_limit`, pointwise operators and casts cost nothing, as if they were part of their neighbours.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

import torch
from bare import Setting, Step
from figures import NEEDS_GPU, arguments, attempt, device_of, figure, in_words, median_seconds, seconds, size, wait
from torch.utils.flop_counter import FlopCounterMode
from traffic import copy_bandwidth, counted

EAGER = "eager float32"
DEFAULT = "bf16, channels last"
SETTINGS = {
    EAGER: Setting(tf32=False),
    "TF32": Setting(),
    "TF32, channels last": Setting(channels_last=True),
    "bf16": Setting("bf16"),
    "fp16": Setting("fp16"),
    DEFAULT: Setting("bf16", channels_last=True),
    "fp16, channels last": Setting("fp16", channels_last=True),
    "bf16, channels last, CUDA graph": Setting("bf16", channels_last=True, graph=True),
    "bf16, channels last, compiled": Setting("bf16", channels_last=True, compiled=True),
    "bf16, channels last, compiled, CUDA graph": Setting("bf16", channels_last=True, compiled=True, graph=True),
}
TARGET = "at most 1.3 times the limit"
TOP = 10


class Patch:
    """The settings on one patch.

    Args:
        patch: (z, y, x).
        device: Where steps run.
        bandwidth: Bytes per second of a copy there.
        small: Tiny widths, few rounds, and no code generation.
    """

    def __init__(self, patch: tuple[int, int, int], device: torch.device, bandwidth: float, small: bool) -> None:
        self.patch, self.device, self.bandwidth, self.small = patch, device, bandwidth, small
        self.name = in_words(patch)
        self.width = [2, 3, 4, 5] if small else None
        self.limits: dict[str, tuple[float, float]] = {}
        self.eager_s = 0.0

    def step(self, setting: Setting) -> Step:
        """Make a step."""
        return Step(self.patch, self.device, setting, self.width, "aot_eager" if self.small else "inductor")

    def limit(self, amp: str) -> None:
        """Count the traffic of a step, and tell the time that it takes."""
        step = self.step(Setting(amp))
        step()  # the optimiser makes its state
        traffic = counted(step)
        self.limits[amp] = traffic.total / self.bandwidth, traffic.fused / self.bandwidth
        with FlopCounterMode(display=False) as flops:
            step()
        most = ", ".join(f"{name} {moved / traffic.total:.0%}" for name, moved in traffic.by_operator.most_common(5))
        figure(
            f"{self.name}, limit of {'float32' if amp == 'off' else amp}",
            gib=traffic.total / 2**30, fused_gib=traffic.fused / 2**30, tflop=flops.get_total_flops() / 1e12,
            limit_ms=self.limits[amp][0] * 1e3, fused_limit_ms=self.limits[amp][1] * 1e3, note=most,
        )  # fmt: skip

    def attempt(self, name: str) -> bool:
        """Time a setting, leave nothing of it in memory, and return whether that went well."""
        went_well = attempt(f"{self.name}, {name}", lambda: self.measure(name, SETTINGS[name]))
        gc.collect()
        torch._dynamo.reset()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return went_well

    def measure(self, name: str, setting: Setting) -> None:
        """Time a setting and tell its figures."""
        if self.device.type == "cpu" and setting.needs_gpu:
            figure(f"{self.name}, {name}", note=NEEDS_GPU)
            return
        case = f"{self.name}, {name}" + (", without generated code" if self.small and setting.compiled else "")
        step = self.step(setting)
        for _ in range(1 if self.small else 4):
            step()
        wait(self.device)
        memory: dict[str, Any] = {}
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        one = seconds(step, 1, self.device)
        steps = 2 if self.small else max(3, min(50, int(0.4 / one)))
        taken = median_seconds(step, steps, self.device)
        if self.device.type == "cuda":
            memory["peak_mib"] = torch.cuda.max_memory_reserved(self.device) >> 20
            memory["used_mib"] = torch.cuda.max_memory_allocated(self.device) >> 20
        if name == EAGER:
            self.eager_s = taken
        every, fused = self.limits.get(setting.amp, self.limits.get("bf16", (0.0, 0.0)))
        shares = {"times_the_limit": taken / every, "times_the_fused_limit": taken / fused} if every else {}
        faster = {"eager_over_this": self.eager_s / taken} if self.eager_s else {}
        figure(case, step_ms=taken * 1e3, **faster, **memory, **shares, target=TARGET)

    def kernels(self) -> None:
        """Tell the kernels that take the longest, in the default setting."""
        step, steps = self.step(SETTINGS[DEFAULT]), 2 if self.small else 5
        for _ in range(steps):
            step()
        wait(self.device)
        kinds = torch.profiler.ProfilerActivity
        gpu = self.device.type == "cuda"
        with torch.profiler.profile(activities=[kinds.CPU, kinds.CUDA] if gpu else [kinds.CPU]) as profile:
            for _ in range(steps):
                step()
            wait(self.device)
        top = longest(profile.key_averages(), gpu)
        whole = sum(us for _, us, _ in top)
        for rank, (name, us, calls) in enumerate(top[:TOP], 1):
            figure(
                f"{self.name}, {DEFAULT}, kernel {rank}",
                ms=us / steps / 1e3, share=us / whole, calls=calls / steps, note=name[:160],
            )  # fmt: skip


def longest(averages: Sequence[Any], gpu: bool) -> list[tuple[str, float, int]]:
    """Return (name, microseconds, calls) of what ran on the device itself, the longest first."""
    if gpu:
        on_device = torch.autograd.DeviceType.CUDA
        found = [(e.key, e.self_device_time_total, e.count) for e in averages if e.device_type == on_device]
    else:
        found = [(e.key, e.self_cpu_time_total, e.count) for e in averages if "#" not in e.key]
    return sorted(found, key=lambda entry: -entry[1])


def main() -> None:
    """Measure all settings on all patches."""
    args = arguments(__doc__, ("--patch", {"type": size, "nargs": "+", "required": True}))
    device = device_of(args.small)
    went_well = True
    bandwidth = copy_bandwidth(device, args.small)
    figure("copy from memory to memory", gb_per_s=bandwidth / 1e9)
    patches = [Patch(patch, device, bandwidth, args.small) for patch in args.patch]
    for here in patches:
        for amp in ("off", "bf16"):
            went_well &= attempt(f"{here.name}, limit in {amp}", lambda h=here, a=amp: h.limit(a))
        for name in (name for name, setting in SETTINGS.items() if not setting.compiled):
            went_well &= here.attempt(name)
        went_well &= attempt(f"{here.name}, kernels", here.kernels)
    for here in patches:  # last, since compiling takes longer than all else
        for name in (name for name, setting in SETTINGS.items() if setting.compiled):
            went_well &= here.attempt(name)
    raise SystemExit(not went_well)


if __name__ == "__main__":
    main()
