"""Several processes that train one model together, started by torchrun; alone, everything here does nothing.

Whatever a process decides by its own clock, disk or signals is the main process's (rank 0) to decide, and told to the
others: they must take the same steps.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from reformer_cli.config.schema import RunConfig
from reformer_cli.utils.console import warn
from reformer_cli.utils.errors import UserError

PATIENCE = datetime.timedelta(hours=6)  # that one process waits for another: tokenising and validating take long
LOST = ("connection", "gloo", "nccl", "peer", "socket")  # in what a broken collective says


class OtherProcessFailed(UserError):
    """The main process has said what is wrong; this process only stops."""

    silent = True


@dataclass(frozen=True)
class World:
    """The processes of a job: this one's rank, how many there are, and the device that this one works on."""

    rank: int
    size: int
    device: str

    @property
    def is_main(self) -> bool:
        """Whether this one speaks, writes and decides."""
        return self.rank == 0

    def broadcast_text(self, decide: Callable[[], str]) -> str:
        """What the main process's `decide` returns, in every process. What it raises stops all of them."""
        if self.size == 1:
            return decide()
        text, error = "", None
        if self.is_main:
            try:
                text = decide()
            except BaseException as problem:
                error = problem
        data = torch.tensor(list(text.encode()), dtype=torch.uint8, device=self.device)
        size = torch.tensor([-1 if error else len(data)], device=self.device)
        dist.broadcast(size, 0)
        if error is not None:
            raise error
        if int(size) < 0:
            raise OtherProcessFailed("the first process of this job stopped")
        data = data if self.is_main else torch.empty(int(size), dtype=torch.uint8, device=self.device)
        dist.broadcast(data, 0)
        return bytes(data.tolist()).decode()

    def broadcast(self, values: Sequence[float]) -> list[float]:
        """The main process's numbers."""
        if self.size == 1:
            return list(values)
        shared = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.broadcast(shared, 0)
        return shared.tolist()

    def any_rank(self, flag: bool) -> bool:
        """Whether it is so in any process."""
        if self.size == 1:
            return flag
        found = torch.tensor([float(flag)], device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return bool(found > 0)

    def all_reduce_sum(self, values: Sequence[float]) -> list[float]:
        """Sums over the processes."""
        if self.size == 1:
            return list(values)
        found = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(found)
        return found.tolist()

    def all_reduce_mean_(self, tensors: Sequence[Tensor]) -> None:
        """Means over the processes, in place."""
        for x in tensors if self.size > 1 else ():
            dist.all_reduce(x)
            x /= self.size

    def barrier(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()

    def local_rows(self, rows: Tensor) -> Tensor:
        """This process's part of a batch's rows."""
        each = len(rows) // self.size
        return rows[self.rank * each : (self.rank + 1) * each]

    def wrap(self, module: nn.Module, shard: bool) -> nn.Module:
        """The module with gradients averaged over the processes, or (shard) parameters and optimiser in parts."""
        if self.size == 1:
            return module
        if shard:
            from torch.distributed.fsdp import fully_shard

            fully_shard(module)
            return module
        return nn.parallel.DistributedDataParallel(module)

    @contextmanager
    def no_sync(self, module: Any) -> Iterator[None]:
        """Gradients of a `wrapped` module stay this process's own: a later backward averages the sum."""
        if isinstance(module, nn.parallel.DistributedDataParallel):
            with module.no_sync():
                yield
            return
        sharded = self.size > 1
        if sharded:
            module.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            if sharded:
                module.set_requires_gradient_sync(True)


@contextmanager
def world_of(device: str) -> Iterator[World]:
    """The job that torchrun started this process in, or this process alone. device: as picked for the first of them.

    Raises UserError when another process is lost.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(0, 1, device)
        return
    on_gpu = device.startswith("cuda")
    if on_gpu:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    rank = dist.get_rank()
    try:
        yield World(rank, size, device)
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or any(sign in str(error).lower() for sign in LOST):
            raise UserError(
                f"process {rank} of {size} lost another one ({str(error).splitlines()[0][:200]})",
                "its checkpoints are whole: start the same command with --resume",
            ) from None
        raise
    finally:
        dist.destroy_process_group()


def whole(x: Tensor) -> Tensor:
    """A tensor that may be in parts, in one piece; all processes must ask."""
    full: Any = getattr(x, "full_tensor", None)
    return full() if full is not None else x


def check_world(config: RunConfig, world: World) -> None:
    """Whether so many processes can share the work."""
    parts = world.size * config.train.accumulation_steps
    if config.train.batch_size % parts:
        size, steps = config.train.batch_size, config.train.accumulation_steps
        each = f" in {steps} parts each" if steps > 1 else ""
        raise UserError(
            f"train.batch_size {size} contexts a step cannot be shared by {world.size} processes{each}",
            f"set it to a multiple of {parts}",
        )
    if config.train.fsdp and world.size > 1 and config.train.optimizer != "adamw":
        raise UserError(
            f"train.fsdp does not go with train.optimizer {config.train.optimizer}", "use adamw, or no train.fsdp"
        )
    if world.size == 1 and config.train.fsdp:
        warn("train.fsdp has no effect on one process; start it with torchrun")
