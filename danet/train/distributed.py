"""Several processes as one: `torchrun --nproc-per-node N -m danet train ...`. Batch normalization over all of them, on
CPUs too.
"""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from timm.layers.norm_act import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from danet.model import device as devices


@dataclass(frozen=True)
class Process:
    """Which of how many processes this is, and the device it computes on. Process 0 writes the files."""

    rank: int
    world: int
    device: torch.device

    @property
    def main(self) -> bool:
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all processes, on each of them."""
        if self.world > 1:
            tensor = tensor.to(self.device)
            dist.all_reduce(tensor)
        return tensor

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network for training: gradients averaged over the processes."""
        if self.world == 1:
            return network
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=devices)


def start(device: str | None) -> Process:
    """Join the processes that torchrun started, or be the only one.

    Args:
        device: "cpu", "cuda" or "cuda:1"; None: a GPU if there is one.

    Raises:
        InputError: a device that is not there.
    """
    rank, world, local = (int(os.environ.get(name, default)) for name, default in _TORCHRUN)
    chosen = devices.choose(device, local)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if world > 1 and not dist.is_initialized():
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=_meeting_place(), rank=rank, world_size=world)
    return Process(rank, world, chosen)


def restarted() -> bool:
    """Whether torchrun has started these processes again, since one was lost."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def _meeting_place() -> "dist.Store":  # pyright: ignore[reportPrivateImportUsage]
    """Where the processes tell each other their addresses. torchrun keeps it when it starts them again (torch 2.15),
    with the addresses of the lost ones in it; so each start uses names of its own. On several machines the starts are
    counted apart, and the names are left as they are.
    """
    store, _, _ = next(dist.rendezvous("env://"))  # pyright: ignore[reportPrivateImportUsage]
    if os.environ.get("GROUP_WORLD_SIZE", "1") != "1":
        return store
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return dist.PrefixStore(start, store)  # pyright: ignore[reportPrivateImportUsage]


_TORCHRUN = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


def synchronize_batch_norm(network: nn.Module, process: Process) -> nn.Module:
    """Let every BatchNorm2d take its moments over all processes; state-dict keys stay as they are."""
    if process.world == 1:
        return network
    if process.device.type == "cuda":
        return convert_sync_batchnorm(network)
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, CpuSyncBatchNorm(child))
    return network


class CpuSyncBatchNorm(nn.Module):
    """A BatchNorm2d (or timm's, with its activation) whose moments are those of all processes. torch.nn.SyncBatchNorm
    refuses CPU tensors.
    """

    def __init__(self, norm: nn.BatchNorm2d):
        super().__init__()
        assert norm.momentum is not None
        self.eps, self.momentum = norm.eps, norm.momentum
        self.weight, self.bias = norm.weight, norm.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.act: nn.Module = norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity()  # pyright: ignore
        self.running_mean: Tensor
        self.running_var: Tensor
        self.num_batches_tracked: Tensor

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self._moments(x) if self.training else (self.running_mean, self.running_var)
        normalized = (x - _along_channels(mean)) * _along_channels(torch.rsqrt(var + self.eps))
        return self.act(torch.addcmul(_along_channels(self.bias), normalized, _along_channels(self.weight)))

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance, per channel, over all processes; the running ones are updated."""
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums = _Sum.apply(torch.cat([x.sum((0, 2, 3)), count]))
        total = sums[-1].detach()
        mean = sums[:-1] / total
        # centered first: a difference of large squares would lose the digits that the test of equality asks for
        var = _Sum.apply((x - _along_channels(mean)).square().sum((0, 2, 3))) / total
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * total / (total - 1).clamp(min=1), self.momentum)
        return mean, var


class _Sum(torch.autograd.Function):
    """The sum over all processes, forward and backward: each process's loss is a part of the whole."""

    @staticmethod
    def forward(_ctx, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx, grad: Tensor) -> Tensor:
        total = grad.clone()
        dist.all_reduce(total)
        return total


def _along_channels(values: Tensor) -> Tensor:
    return values[None, :, None, None]
