"""The group of processes that mlx.launch started."""

import mlx.core as mx
import numpy as np

from fpo_core.backend.process_group import lost_process


class MlxGroup:
    """`Group` of `fpo_core.backend` on mx.distributed, with the backend that mlx.launch chose."""

    def __init__(self) -> None:
        self._group = mx.distributed.init(strict=True)
        self.rank, self.size = self._group.rank(), self._group.size()

    def sum(self, array: np.ndarray) -> np.ndarray:
        """See `fpo_core.backend.process_group.Group`."""
        return np.array(self.sum_native(mx.array(array)))

    def sum_native(self, array: mx.array) -> mx.array:
        """See `fpo_core.backend.process_group.Group`."""
        try:
            total = mx.distributed.all_sum(array, group=self._group)
            mx.eval(total)  # here, where the loss of a process can be told
        except RuntimeError as error:
            raise lost_process(error) from None
        return total
