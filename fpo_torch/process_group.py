"""The group of processes that torchrun started."""

import atexit
import os

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from fpo_core.backend.process_group import lost_process


class TorchGroup:
    """`Group` of `fpo_core.backend` on torch.distributed: gloo on CPUs, NCCL on CUDA."""

    def __init__(self) -> None:
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
        atexit.register(dist.destroy_process_group)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def sum(self, array: np.ndarray) -> np.ndarray:
        """See `fpo_core.backend.process_group.Group`."""
        # A copy, for all_reduce writes over its input.
        return self.sum_native(torch.from_numpy(np.array(array))).numpy()

    def sum_native(self, array: Tensor) -> Tensor:
        """See `fpo_core.backend.process_group.Group`; in place."""
        try:
            dist.all_reduce(array)
        except RuntimeError as error:
            raise lost_process(error) from None
        return array
