"""Pixels on their way from arrays to the network: uint8 until they are on the device."""

import numpy as np
import torch
from torch import Tensor


def to_tensor(pixels: np.ndarray) -> Tensor:
    """Tensor (3, H, W) or (N, 3, H, W) on the memory of an array (H, W, 3) or (N, H, W, 3)."""
    return torch.from_numpy(pixels).movedim(-1, -3)


def to_float(images: Tensor, device: torch.device) -> Tensor:
    """Moves uint8 images of any shape to the device, where they become float32 in [0, 1]."""
    return images.to(device, non_blocking=True).float() / 255
