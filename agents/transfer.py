"""Arrays to the device, without waiting for what it still computes."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(array: NDArray[Any], device: torch.device | str) -> Tensor:
    """Return an array as a tensor; on the CPU they have their memory in common.

    `torch.as_tensor(array, device=...)` waits until the device has computed everything that was asked before.
    """
    return torch.as_tensor(array).to(device, non_blocking=True)
