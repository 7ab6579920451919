"""The bare step: forward, loss, backward and optimiser as a user would write them by hand, on one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deepem.loss import AffinityLoss, BCELoss
from deepem.models import rsunet

HEADS = {"affinity": 3, "mitochondria": 1}
WEIGHTS = {"affinity": 1.0, "mitochondria": 0.5}
EDGES = ((0, 0, 1), (0, 1, 0), (1, 0, 0))
TASKS = "--aff 1 --mit 0.5"
"""The same heads and weights on the command line."""

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Setting:
    """How a step computes.

    Attributes:
        amp: off, bf16 or fp16.
        tf32: Whether float32 products may round to TF32 on a GPU.
        channels_last: The memory format.
        compiled: Whether the network is compiled.
        graph: Whether the step is captured as a CUDA graph and replayed.
    """

    amp: str = "off"
    tf32: bool = True
    channels_last: bool = False
    compiled: bool = False
    graph: bool = False

    @property
    def needs_gpu(self) -> bool:
        """Whether a CPU cannot do this, or does it so slowly that it says nothing."""
        return self.amp == "fp16" or self.graph or (self.amp == "off" and self.tf32)

    @property
    def words(self) -> list[str]:
        """The same on the command line of training."""
        return [
            *("--amp", self.amp),
            "--tf32" if self.tf32 else "--no-tf32",
            "--channels_last" if self.channels_last else "--no-channels_last",
            "--compile" if self.compiled else "--no-compile",
        ]


def network(patch: Sequence[int], width: Sequence[int] | None = None) -> torch.nn.Module:
    """Create the default network with these heads, always with the same weights."""
    torch.manual_seed(0)
    outputs = {name: (channels, *patch) for name, channels in HEADS.items()}
    return rsunet.create_model(
        in_spec={"input": (1, *patch)}, out_spec=outputs, width=None if width is None else [*width]
    )


def batch_of(patch: Sequence[int], device: torch.device) -> dict[str, Tensor]:
    """Make a batch of random voxels: image, blocks of instance ids, a binary label, and masks."""
    torch.manual_seed(1)
    coarse = torch.randint(0, 50, (1, 1, *(-(-n // 4) for n in patch)))
    ids = torch.nn.functional.interpolate(coarse.float(), size=tuple(patch)).int()
    made = {"input": torch.rand(1, 1, *patch), "affinity": ids, "mitochondria": (ids % 7 == 3).float()}
    made |= {f"{name}_mask": torch.ones(1, 1, *patch) for name in HEADS}
    return {key: value.to(device) for key, value in made.items()}


def use_precision(setting: Setting, device: torch.device) -> None:
    """Set what torch keeps for the whole process; cuDNN picks its fastest algorithms, as in training."""
    if device.type == "cuda":
        precision = "tf32" if setting.tf32 else "ieee"
        torch.backends.cuda.matmul.fp32_precision = precision
        torch.backends.cudnn.conv.fp32_precision = precision
        torch.backends.cudnn.benchmark = True


class Step:
    """A training step on one batch, callable again and again.

    Args:
        patch: Of the network, (z, y, x).
        device: Where it runs.
        setting: How it computes.
        width: Of the network; None for the default.
        backend: Of torch.compile.
    """

    def __init__(
        self,
        patch: Sequence[int],
        device: torch.device,
        setting: Setting,
        width: Sequence[int] | None = None,
        backend: str = "inductor",
    ) -> None:
        use_precision(setting, device)
        self.device, self.setting = device, setting
        self.layout = torch.channels_last_3d if setting.channels_last else torch.contiguous_format
        net = network(patch, width).to(device, memory_format=self.layout)
        self.model = torch.compile(net, backend=backend) if setting.compiled else net
        self.optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True, capturable=setting.graph)
        self.scaler = torch.amp.GradScaler(device.type, 2.0**8, enabled=setting.amp == "fp16")
        self.batch = batch_of(patch, device)
        voxelwise = BCELoss(size_average=False)
        self.criteria = {"affinity": AffinityLoss(EDGES, voxelwise), "mitochondria": voxelwise}
        self.call: Callable[[], object] = self.eager
        if setting.graph:
            self.call = self.captured()

    def __call__(self) -> None:
        """Take the step."""
        self.call()

    def eager(self) -> None:
        """Take the step, operator by operator."""
        half = HALVES.get(self.setting.amp)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, half, enabled=half is not None):
            outputs = self.model(self.batch["input"].contiguous(memory_format=self.layout))
        losses = [
            WEIGHTS[name] * criterion(outputs[name], self.batch[name], self.batch[f"{name}_mask"])[0]
            for name, criterion in self.criteria.items()
        ]
        self.scaler.scale(torch.stack(losses).sum()).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def captured(self) -> Callable[[], None]:
        """Capture the whole step as a CUDA graph and return what replays it."""
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(4):  # algorithms are chosen, the optimiser makes its state
                self.eager()
        torch.cuda.current_stream(self.device).wait_stream(side)
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.eager()
        return graph.replay
