"""What is optimised in an image's stead, how it becomes pixels in [0, 1], and the small moves between two steps."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.rng import generator

#: eigenvalues and eigenvectors (columns) of the covariance of ImageNet's colours, RGB in [0, 1]: the PCA of Krizhevsky,
#: Sutskever & Hinton 2012 (section 4.1), in the numbers that ImageNet training recipes have used since
VARIANCES = (0.2175, 0.0188, 0.0045)
COMPONENTS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


def colours() -> Tensor:
    """The matrix (3, 3) that gives independent values ImageNet's correlation of colours; its longest row is of length 1.

    >>> (colours() @ colours().T).round(decimals=2)[0]
    tensor([0.9600, 0.8400, 0.7600])
    """
    root = torch.tensor(COMPONENTS) * torch.tensor(VARIANCES).sqrt()
    return root / root.norm(dim=1).max()


def frequencies(height: int, width: int) -> Tensor:
    """The length of each frequency (height, width // 2 + 1) of a real transform, in cycles a pixel."""
    return torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])


class Parametrization(ABC):
    """Numbers that make an image: `start` draws them, `image` makes pixels (n, 3, H, W) in [0, 1] of them."""

    @abstractmethod
    def start(self, draws: Sequence[torch.Generator]) -> Tensor:
        """The first parameters (n, …), one image a generator."""

    @abstractmethod
    def image(self, parameters: Tensor) -> Tensor:
        """The pixels, differentiable."""


@dataclass(frozen=True)
class Pixels(Parametrization):
    """σ(C·p) of a value p for each pixel and colour, C correlating the colours (`colours()`) or None."""

    size: tuple[int, int]
    mix: Tensor | None = None
    spread: float = 0.01

    def start(self, draws: Sequence[torch.Generator]) -> Tensor:
        return self.spread * torch.stack([torch.randn((3, *self.size), generator=draw) for draw in draws])

    def image(self, parameters: Tensor) -> Tensor:
        return _squashed(parameters, self.mix)


@dataclass(frozen=True)
class Frequencies(Parametrization):
    """σ(C·F⁻¹(s/4f)) of a spectrum s, real and imaginary parts (n, 3, H, W//2+1, 2), f at least one cycle a picture.

    F⁻¹ is orthonormal. Low frequencies move further than high ones, as natural images have it.
    Source: Olah, Mordvintsev & Schubert 2017, doi:10.23915/distill.00007, "preconditioning".
    """

    size: tuple[int, int]
    mix: Tensor | None = None
    spread: float = 0.01

    def start(self, draws: Sequence[torch.Generator]) -> Tensor:
        height, width = self.size
        shape = (3, height, width // 2 + 1, 2)
        return self.spread * torch.stack([torch.randn(shape, generator=draw) for draw in draws])

    @property
    def scale(self) -> Tensor:
        """What each frequency is multiplied by, (H, W//2+1)."""
        return 0.25 / frequencies(*self.size).clamp_min(1 / max(self.size))

    def image(self, parameters: Tensor) -> Tensor:
        return _squashed(self.field(parameters), self.mix)

    def field(self, parameters: Tensor) -> Tensor:
        """The values (n, 3, H, W) before colours and sigmoid: linear in the parameters."""
        scale = _kept(self, "scale", parameters)
        return torch.fft.irfft2(torch.view_as_complex(parameters) * scale, s=self.size, norm="ortho")

    def inverse(self, field: Tensor) -> Tensor:
        """The parameters of values (n, 3, H, W)."""
        spectrum = torch.fft.rfft2(field, norm="ortho") / _kept(self, "scale", field)
        return torch.view_as_real(spectrum)


@dataclass(frozen=True)
class Phases(Parametrization):
    """σ of F⁻¹(m·e^{iφ}), standardised over each image and its colours correlated: the magnitudes m (3, H, W//2+1) of a
    spectrum stay, the phases φ (n, 3, H, W//2+1) are what is optimised.

    Source: Fel et al. 2023, "MACO", arXiv 2306.06805.
    """

    magnitudes: Tensor
    size: tuple[int, int]
    mix: Tensor | None = None

    def start(self, draws: Sequence[torch.Generator]) -> Tensor:
        shape = tuple(self.magnitudes.shape)
        return torch.stack([math.tau * torch.rand(shape, generator=draw) - math.pi for draw in draws])

    def image(self, parameters: Tensor) -> Tensor:
        field = self.field(parameters)
        centred = field - field.mean((1, 2, 3), keepdim=True)
        return _squashed(centred / centred.std((1, 2, 3), keepdim=True).clamp_min(1e-12), self.mix)

    def field(self, parameters: Tensor) -> Tensor:
        """The values (n, 3, H, W) whose spectrum has these magnitudes and phases."""
        magnitudes = self.magnitudes.to(parameters.device, parameters.dtype)
        return torch.fft.irfft2(torch.polar(magnitudes.expand_as(parameters), parameters), s=self.size, norm="ortho")


def natural(size: tuple[int, int]) -> Tensor:
    """Magnitudes (3, H, W//2+1) by the law of natural images, 1/f (Field 1987); no mean."""
    scale = 1 / frequencies(*size).clamp_min(1 / max(size))
    scale[0, 0] = 0
    return scale.expand(3, -1, -1).clone()


def measured(pixels: Tensor, mix: Tensor | None) -> Tensor:
    """The mean magnitudes (3, H, W//2+1) of photographs (n, 3, H, W), their colours decorrelated by the inverse of `mix`."""
    values = pixels.detach().cpu().float() - 0.5
    if mix is not None:
        values = torch.einsum("ij,njhw->nihw", torch.linalg.inv(mix), values)
    return torch.fft.rfft2(values, norm="ortho").abs().mean(0)


def _kept(of: Frequencies, name: str, like: Tensor) -> Tensor:
    """A table of a parametrization as a tensor like another, made once."""
    key = f"_{name}"
    kept: Tensor | None = of.__dict__.get(key)
    if kept is None or kept.device != like.device or kept.dtype != like.dtype:
        kept = getattr(of, name).to(like.device, like.dtype)
        object.__setattr__(of, key, kept)
    return kept


def _squashed(field: Tensor, mix: Tensor | None) -> Tensor:
    if mix is not None:
        matrix = mix.to(field.device, field.dtype)
        field = (matrix @ field.flatten(2)).view_as(field)
    return field.sigmoid()


@dataclass(frozen=True)
class Moves:
    """Random moves of the picture between steps, the same for all images of a step: up to `jitter` pixels either way, a
    size of 1 ± `scale`, a turn of ± `rotate` degrees. What comes in from outside is the picture's mirror image."""

    jitter: int = 8
    scale: float = 0.1
    rotate: float = 5.0

    def draw(self, seed: int, name: str, steps: int) -> Tensor:
        """What each step does, (steps, 4): down, right, size, radians."""
        drawn = 2 * torch.rand((steps, 4), generator=generator(seed, name, "moves")) - 1
        reach = torch.tensor([self.jitter, self.jitter, self.scale, math.radians(self.rotate)])
        moves = drawn * reach
        moves[:, :2] = moves[:, :2].round()
        moves[:, 2] += 1
        return moves

    def __call__(self, pixels: Tensor, move: Tensor) -> Tensor:
        """The pixels moved: whole pixels alone by shifting, else by one bilinear resampling."""
        down, right, size, turn = move.tolist()
        if not (self.scale or self.rotate):
            return shifted(pixels, int(down), int(right)) if down or right else pixels
        height, width = pixels.shape[2:]
        cos, sin = math.cos(turn) / size, math.sin(turn) / size
        across, along = _places(width, pixels), _places(height, pixels)
        # affine_grid by one sum a pixel instead of a product: its two numbers, to the right and down, as one complex one
        columns = torch.complex(cos * across, sin * width / height * across)
        rows = torch.complex(-(sin * height / width * along + 2 * right / width), cos * along - 2 * down / height)
        return _sampled(pixels, torch.view_as_real(columns + rows[:, None]))


def _sampled(pixels: Tensor, grid: Tensor) -> Tensor:
    """Pixels (n, 3, H, W) at the places of a grid (H, W, 2), the same of each image, bilinear.

    The sampler has a thread for each image: one image is sampled in two halves.
    """
    height, width = grid.shape[:2]
    halves = 2 if len(pixels) == 1 and height % 2 == 0 else 1
    given, places = pixels, grid.expand(len(pixels), -1, -1, -1)
    if halves > 1:
        given, places = pixels.expand(halves, -1, -1, -1), grid.view(halves, height // halves, width, 2)
    found = F.grid_sample(given, places, padding_mode="reflection", align_corners=False)
    return found.transpose(0, 1).reshape(pixels.shape) if halves > 1 else found


def _places(number: int, like: Tensor) -> Tensor:
    """The middles of so many pixels in a row, from −1 to 1."""
    return (2 * torch.arange(number, device=like.device, dtype=like.dtype) + 1) / number - 1


def shifted(pixels: Tensor, down: int, right: int) -> Tensor:
    """The picture moved by whole pixels, mirrored at its border; as far as it is large."""
    height, width = pixels.shape[2:]
    down, right = max(1 - height, min(down, height - 1)), max(1 - width, min(right, width - 1))
    padded = F.pad(pixels, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)), "reflect")
    return padded[..., max(-down, 0) :, max(-right, 0) :][..., :height, :width]
