"""Pictures as a training step sees them: cut, turned, mirrored and coloured anew each time."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.tune.recipe import Recipe

#: how far brightness, contrast, saturation and white balance move at colour=1
JITTER = (0.2, 0.2, 0.25, 0.06)
#: the logarithm of the largest ratio of a cut's sides
STRETCH = 0.6 * math.log(4 / 3)


def augmented(pictures: Tensor, size: tuple[int, int], recipe: Recipe, draw: torch.Generator) -> Tensor:
    """Pixels (N, 3, *size) in [0, 1] of pictures (N, 3, H, W) of uint8; one affine map and one colour map for each.

    The map cuts out crop to 1 of the area, turned by up to `turn` degrees and mirrored by chance; what it reads past
    the border is reflected. Pictures more than a quarter larger than `size` are shrunk first, so that nothing aliases.
    """
    n, height, width = len(pictures), *size
    scale = 1.25 * max(height / pictures.shape[2], width / pictures.shape[3])
    if scale < 1:
        smaller = [round(scale * length) for length in pictures.shape[2:]]
        pictures = F.interpolate(pictures, size=smaller, mode="bilinear", antialias=True, align_corners=False)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=draw)

    def around(reach: float, *shape: int) -> Tensor:
        return 1 + reach * recipe.colour * (2 * uniform(*shape) - 1)

    area = recipe.crop + (1 - recipe.crop) * uniform()
    stretch = torch.exp(STRETCH * (2 * uniform() - 1)) if recipe.crop < 1 else torch.ones(n)
    across, down = (area * stretch).sqrt().clamp(max=1), (area / stretch).sqrt().clamp(max=1)
    angle = (2 * uniform() - 1) * math.radians(recipe.turn)
    mirror = (uniform() < 0.5).float() * 2 - 1
    right, lower = (1 - across) * (2 * uniform() - 1), (1 - down) * (2 * uniform() - 1)
    cos, sin = angle.cos(), angle.sin()
    tall = height / width  # the grid's coordinates go from -1 to 1 either way
    rows = (
        torch.stack([cos * across * mirror, -sin * down * tall, right], 1),
        torch.stack([sin * across * mirror / tall, cos * down, lower], 1),
    )
    grid = F.affine_grid(torch.stack(rows, 1), [n, 3, height, width], align_corners=False).to(pictures.device)
    read = F.grid_sample(
        pictures.float().contiguous(), grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    flat = read.flatten(2)
    brightness, contrast, saturation = (around(reach, 1, 1).to(flat.device) for reach in JITTER[:3])
    gain = brightness * around(JITTER[3], 3, 1).to(flat.device) / 255
    mean = flat.mean((1, 2)).view(n, 1, 1)
    mixing = (saturation * torch.eye(3, device=flat.device) + (1 - saturation) / 3) * contrast * gain
    return torch.baddbmm(mean * (1 - contrast) * gain, mixing, flat).clamp_(0, 1).view_as(read)


def mixed(pixels: Tensor, targets: Tensor, recipe: Recipe, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each picture mixed with that at the other end of the batch, and the targets likewise (Zhang et al. 2018, mixup).

    The weight λ is Beta(mixup, mixup), taken as the larger of λ and 1 − λ.
    """
    if recipe.mixup <= 0 or float(torch.rand(1, generator=draw)) >= recipe.mixup_share:
        return pixels, targets
    seed = int(torch.randint(2**62, (1,), generator=draw))
    share = float(np.random.default_rng(seed).beta(recipe.mixup, recipe.mixup))
    share = max(share, 1 - share)
    return torch.lerp(pixels.flip(0), pixels, share), torch.lerp(targets.flip(0), targets, share)
