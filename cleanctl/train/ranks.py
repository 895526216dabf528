"""The processes of one training run, as torchrun starts them: each computes its share of every batch.

Every rank holds the whole network, draws the same steps and sees the same batch. Its network computes one share of the
images; logits are gathered, so that loss, targets and whatever a method keeps of each sample are the same everywhere,
and gradients are added up. Batch norms take mean and variance over all shares. So the numbers are those of one process,
but for the order of sums and for dropout, whose masks belong to a share.

Rank 0 alone writes, prints and keeps the run's lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import MethodType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from cleanctl.errors import InterruptedRun
from cleanctl.runtime import torchrun_place

BUCKET = 2**23  # gradients that are added up in one call
KEPT = "Rank 0 keeps the state of a run after each epoch, and every five minutes."
PATIENCE = timedelta(days=1)  # the first rank may read or pack a large set while the others wait
T = TypeVar("T")


class Ranks:
    """This process's place among `count`; with a count of 1 every method does nothing."""

    def __init__(self, number: int = 0, count: int = 1) -> None:
        self.number, self.count = number, count

    @property
    def first(self) -> bool:
        return self.number == 0

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` gives in rank 0, which alone calls it."""
        if self.count == 1:
            return make()
        found: list[Any] = [make() if self.first else None]
        with naming_the_lost():
            dist.broadcast_object_list(found, src=0)
        value: T = found[0]
        return value

    def first_first(self, make: Callable[[], T]) -> T:
        """`make` in rank 0, and when it is done, in the others: for what writes a file that all of them read."""
        made = [make()] if self.first else []
        self.wait()
        return made[0] if made else make()

    def wait(self) -> None:
        """Until every rank is here."""
        if self.count > 1:
            with naming_the_lost():
                dist.barrier()

    def any(self, *flags: bool) -> list[bool]:
        """For each flag whether it is set in any rank. All ranks must call it, in one order."""
        if self.count == 1:
            return [bool(flag) for flag in flags]
        set_anywhere = torch.tensor([int(flag) for flag in flags])
        with naming_the_lost():
            dist.all_reduce(set_anywhere, op=dist.ReduceOp.MAX)
        return [bool(flag) for flag in set_anywhere.tolist()]

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Every rank's tensor, all of one shape, in the order of ranks."""
        found = [torch.empty_like(tensor) for _ in range(self.count)]
        with naming_the_lost():
            dist.all_gather(found, tensor.contiguous())
        return found

    def union(self, values: set[int]) -> set[int]:
        """Of every rank's set."""
        if self.count == 1:
            return values
        found: list[set[int]] = [set() for _ in range(self.count)]
        with naming_the_lost():
            dist.all_gather_object(found, values)
        return set().union(*found)

    def share(self, network: nn.Module) -> nn.Module:
        """`network` as one that computes this rank's share of the images it is given, and returns all logits.

        Batch norms are torch's SyncBatchNorm on a GPU; on a processor, where that does not run, `_shared_batch_norm`.
        """
        if self.count == 1:
            return network
        with naming_the_lost(), torch.no_grad():
            for value in network.state_dict().values():
                dist.broadcast(value, src=0)
        if next(network.parameters()).is_cuda:
            from timm.layers import convert_sync_batchnorm  # knows timm's batch norms with activation too

            network = convert_sync_batchnorm(network)
        else:
            for module in network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.forward = MethodType(_shared_batch_norm, module)  # type: ignore[method-assign]
        # Networks that are one module of several, each of which a method calls alone (methods/pair.py).
        for one in getattr(network, "each", [network]):
            one.forward = _shared(one.forward, self)
        return network

    def add_gradients(self, network: nn.Module) -> None:
        """Every parameter's gradient becomes its sum over the ranks."""
        if self.count == 1:
            return
        gradients = [one.grad for one in network.parameters() if one.grad is not None]
        with naming_the_lost(), torch.no_grad():
            for bucket in _buckets(gradients):
                flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
                dist.all_reduce(flat)
                for gradient, added in zip(bucket, flat.split([gradient.numel() for gradient in bucket])):
                    gradient.copy_(added.view_as(gradient))


@contextmanager
def open_ranks(device: str) -> Iterator[Ranks]:
    """The processes that torchrun started, else this one alone. device: "cuda" takes one GPU a rank.

    CUDA tensors travel by NCCL, others by gloo.
    """
    number, count = torchrun_place()
    if count == 1:
        yield Ranks()
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Ranks(number, count)
    finally:
        dist.destroy_process_group()


@contextmanager
def naming_the_lost(so: str = KEPT) -> Iterator[None]:
    """A call that all ranks take part in fails where one of them has ended. so: what that leaves of the run."""
    try:
        yield
    except RuntimeError as exc:
        raise InterruptedRun(
            f"Another process of this torchrun has ended: {' '.join(str(exc).split())[:200]}",
            so=so,
            do="See what the other process says; the same command goes on.",
        ) from exc


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for gradient in gradients:
        if bucket and sum(one.numel() for one in bucket) + gradient.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


# ---- a share of the images


def _shared(forward: Callable[[Tensor], Tensor], ranks: Ranks) -> Callable[[Tensor], Tensor]:
    def shared(image_BCHW: Tensor) -> Tensor:
        count = len(image_BCHW)
        each = -(-count // ranks.count)
        begin, end = min(ranks.number * each, count), min((ranks.number + 1) * each, count)
        logit = forward(image_BCHW[begin:end]).float()
        gathered: Tensor = _Gather.apply(logit, each, begin)[:count]
        return gathered

    return shared


class _Gather(torch.autograd.Function):
    """Rows of all ranks, `each` a rank. Every rank computes the same loss from them, so the gradient of its own rows is
    its part of the gradient that all ranks hold."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, each: int, begin: int) -> Tensor:
        ctx.begin, ctx.count = begin, len(own)
        padded = F.pad(own, (0, 0, 0, each - len(own))).contiguous()
        rows = [torch.empty_like(padded) for _ in range(dist.get_world_size())]
        with naming_the_lost():
            dist.all_gather(rows, padded)
        return torch.cat(rows)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient[0][ctx.begin : ctx.begin + ctx.count], None, None


# ---- batch norms over all shares


class _AddUp(torch.autograd.Function):
    """The sum over the ranks. Each holds the part of the gradient that comes through its own share: they add up."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        added = value.clone()
        with naming_the_lost():
            dist.all_reduce(added)
        return added

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Tensor:
        added = gradient[0].contiguous().clone()
        with naming_the_lost():
            dist.all_reduce(added)
        return added


def _shared_batch_norm(self: Any, x: Tensor) -> Tensor:
    """In place of the forward of a batch norm: in training, statistics over all ranks' images, in float32."""
    if self.training:
        out = _normalised(self, x)
    else:
        out = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
    if hasattr(self, "act"):  # timm's batch norms end with dropout and activation
        out = self.act(self.drop(out))
    return out


def _normalised(self: Any, x: Tensor) -> Tensor:
    over = [dimension for dimension in range(x.dim()) if dimension != 1]
    shape = [1, -1] + [1] * (x.dim() - 2)
    exact = x.float()
    # Sum and number of values in one call; the variance in a second one, because Σx² − (Σx)² loses its digits.
    number = exact.new_tensor([x.numel() // x.shape[1]])
    added: Tensor = _AddUp.apply(torch.cat([exact.sum(over), number]))
    total = added[-1].detach()
    mean = added[:-1] / total
    centred = exact - mean.view(shape)
    variance = _AddUp.apply((centred * centred).sum(over)) / total
    with torch.no_grad():
        self.num_batches_tracked += 1
        factor = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, factor)
        self.running_var.lerp_(variance * total / (total - 1), factor)
    out = centred * torch.rsqrt(variance + self.eps).view(shape)
    if self.weight is not None:
        out = out * self.weight.view(shape) + self.bias.view(shape)
    return out.to(x.dtype)
