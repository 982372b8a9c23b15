"""Training in several processes, and the signals that stop it.

Command: `torchrun --nproc-per-node N -m danet train ...`. Batch normalization is synchronized over all processes, on
CPUs too.
"""

import os
import signal
import threading
from dataclasses import dataclass
from types import FrameType

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from danet.errors import InputError
from danet.model.device import resolve_device
from danet.startup import parts_of_timm

with parts_of_timm():
    from timm.layers.norm_act import BatchNormAct2d, convert_sync_batchnorm

_TORCHRUN_DEFAULTS = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


@dataclass(frozen=True)
class Process:
    """One of the processes of a run. Process 0 writes the files.

    Args:
        rank: number of this process, from 0.
        world: number of processes.
        device: the device it computes on.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes."""
        if self.world > 1:
            tensor = tensor.to(self.device)
            dist.all_reduce(tensor)
        return tensor

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return the network for training, with gradients averaged over the processes."""
        if self.world == 1:
            return network
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=devices)


def start(device: str | None) -> Process:
    """Join the processes started by torchrun, or return a single process.

    Args:
        device: "cpu", "cuda" or "cuda:1"; None: a GPU if available.

    Raises:
        InputError: the device is not available.
    """
    rank, world, local = (int(os.environ.get(name, default)) for name, default in _TORCHRUN_DEFAULTS)
    chosen = resolve_device(device, local)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if world > 1 and chosen.type == "mps":
        raise InputError("device", "'mps' trains in a single process", "leave out torchrun, or use 'cpu'")
    if world > 1 and not dist.is_initialized():
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=_store(), rank=rank, world_size=world)
    return Process(rank, world, chosen)


def restarted() -> bool:
    """Return whether torchrun has restarted the processes after losing one."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def _store() -> "dist.Store":  # pyright: ignore[reportPrivateImportUsage]
    """Return the store through which the processes exchange their addresses.

    torchrun (torch 2.15) keeps the store across restarts, with the addresses of lost processes in it. Each restart
    therefore uses its own key prefix, except on several machines, where restarts are counted separately.
    """
    store, _, _ = next(dist.rendezvous("env://"))  # pyright: ignore[reportPrivateImportUsage]
    if os.environ.get("GROUP_WORLD_SIZE", "1") != "1":
        return store
    prefix = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return dist.PrefixStore(prefix, store)  # pyright: ignore[reportPrivateImportUsage]


class Interruption:
    """A context manager that records SIGINT and SIGTERM instead of raising; a second signal ends the process.

    In other threads than the main one, which cannot handle signals, it records nothing.

    Attributes:
        signal: number of the signal received, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def __enter__(self) -> "Interruption":
        caught = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        self._previous = {number: signal.signal(number, self._record) for number in caught}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def agreed(self, process: Process) -> bool:
        """Return whether any process has received a signal, so that all of them stop after the same step."""
        return bool(process.sum(torch.tensor(int(self.signal is not None))))

    def check(self, *_: object) -> None:
        """Raise KeyboardInterrupt if a signal was received. For work that leaves nothing to save."""
        if self.signal is not None:
            raise KeyboardInterrupt

    def _record(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None:
            self.__exit__()
            signal.raise_signal(number)
        self.signal = number


def synchronize_batch_norm(network: nn.Module, process: Process) -> nn.Module:
    """Compute the moments of every batch normalization over all processes. State-dict keys do not change."""
    if process.world == 1:
        return network
    if process.device.type == "cuda":
        return convert_sync_batchnorm(network)
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm):
                setattr(parent, name, CpuSyncBatchNorm(child))
    return network


class CpuSyncBatchNorm(nn.Module):
    """A BatchNorm1d or 2d, or timm's with activation, synchronized on CPUs, where torch.nn.SyncBatchNorm does not work.

    Like those, it computes in float32 or better, and returns the type of its input.
    """

    def __init__(self, norm: _BatchNorm):
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
        """Return the normalized B,C,... features."""
        full = x.to(torch.promote_types(x.dtype, torch.float32))
        mean, var = self._moments(full) if self.training else (self.running_mean, self.running_var)
        normalized = (full - _along_channels(mean, x)) * _along_channels(torch.rsqrt(var + self.eps), x)
        result = torch.addcmul(_along_channels(self.bias, x), normalized, _along_channels(self.weight, x))
        return self.act(result.to(x.dtype))

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and biased variance of each channel over all processes; update the running moments."""
        others = [0, *range(2, x.ndim)]
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums = _Sum.apply(torch.cat([x.sum(others), count]))
        total = sums[-1].detach()
        mean = sums[:-1] / total
        # from centered values: the difference of two large squares loses the digits that the equality test needs
        var = _Sum.apply((x - _along_channels(mean, x)).square().sum(others)) / total
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * total / (total - 1).clamp(min=1), self.momentum)
        return mean, var


class _Sum(torch.autograd.Function):
    """The sum over all processes, forward and backward, because the loss is a sum over processes as well."""

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


def _along_channels(values: Tensor, x: Tensor) -> Tensor:
    """Return a value per channel in a shape that broadcasts with B,C,... features."""
    return values.view(1, -1, *[1] * (x.ndim - 2))
