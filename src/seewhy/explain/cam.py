"""Class activation maps from one pass: a layer's maps A, weighed by what their gradient G says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.classifier import Classifier
from seewhy.explain.at_layer import at_layer, maps_at
from seewhy.explain.base import Explainer, Map, Question
from seewhy.lens.capture import Capture, last_map


def layers(net: Classifier, layer: str | None) -> tuple[str, ...]:
    """The layers that a CAM looks at: the addresses joined by `+`, or the last spatial map that the lens finds."""
    return tuple(maps_at(net, each) for each in layer.split("+")) if layer else (last_map(net),)


def number_of(layer: str | None) -> int:
    """How many layers `layer` names."""
    return layer.count("+") + 1 if layer else 1


def fused(maps: Sequence[Tensor]) -> Tensor:
    """One map (N, 1, h, w) of several layers': each divided by its largest absolute value, then their mean.

    They are brought to the size of the largest, bilinearly. A single one stays as it is.
    """
    if len(maps) == 1:
        return maps[0]
    size = max((each.shape[2:] for each in maps), key=lambda shape: shape[0] * shape[1])
    tops = [each.abs().amax((2, 3), keepdim=True) for each in maps]
    scaled = [each / torch.where(top > 0, top, 1) for each, top in zip(maps, tops, strict=True)]
    return torch.stack([F.interpolate(each, size, mode="bilinear", align_corners=False) for each in scaled]).mean(0)


def weighed(weights: Tensor, maps: Tensor) -> Tensor:
    """max(0, Σ_k w_k A_k): (N, 1, h, w) of maps (N, C, h, w) and weights of their shape or (N, C, 1, 1)."""
    return (weights * maps).sum(1, keepdim=True).clamp_min(0)


#: why a CAM that `weighed` made is zero everywhere
NOTHING = "nothing speaks for the class there; what speaks against it is cut off"


def _cam(
    net: Classifier, pixels: Tensor, question: Question, layer: str | None, make: Callable[[Tensor, Tensor], Tensor]
) -> Map:
    """The map that `make(A, G)` gives, of one layer or fused from several."""
    chosen = layers(net, layer)
    return Map(fused([at_layer(net, pixels, question, each, make) for each in chosen]), layer="+".join(chosen))


@dataclass(frozen=True)
class GradCAM(Explainer):
    """Grad-CAM: max(0, Σ_k w_k A_k), w_k being the mean over positions of G_k = ∂f_c/∂A_k, A the maps of `layer`.

    `layer` is an address as `seewhy model` prints it; by default the last spatial map before the network pools it away,
    found by the lens and named in the result. Several addresses joined by `+` give one map: each layer's is divided by
    its largest absolute value, brought to the largest one's size, and they are averaged; it has no unit then.
    Values (N, 1, h, w), of the layer's size, at least 0, in logits per unit of the layer's mean; enlarging them is left
    to `heatmap`. Raises `LayerError` for a layer that does not answer maps, `NothingToExplain` where the logit does not
    depend on it.
    Cost: one forward pass and the backward pass of what follows the layer, for each layer; once a network one more
    forward pass, to find the layer.
    Limits: as coarse as the layer; far from the last layer the mean of a gradient says little about any one position.
    Source: Selvaraju et al. 2017, arXiv 1610.02391, equations 1 and 2.

    >>> from torch import nn
    >>> module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> found = GradCAM()(Classifier(module, size=8), torch.rand(1, 3, 8, 8))
    >>> found.layer, found.values.shape
    ('1', torch.Size([1, 1, 6, 6]))
    """

    layer: str | None = None

    name = "grad-cam"
    shows = "Where the last feature maps respond that raise the class's logit."
    reading = "Coarse but dependable: the region that speaks for the class. What speaks against it is cut off."
    source = "Selvaraju et al. 2017, arXiv 1610.02391"
    default_sign = "positive"
    nothing = NOTHING

    @property
    def passes(self) -> tuple[int, int]:
        return number_of(self.layer), number_of(self.layer)

    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        return _cam(net, pixels, question, self.layer, lambda a, g: weighed(g.mean((2, 3), keepdim=True), a))


@dataclass(frozen=True)
class GradCAMPlusPlus(Explainer):
    """Grad-CAM++: max(0, Σ_k w_k A_k), w_k = Σ_ij α_ij max(0, G_ij), α_ij = G_ij² / (2 G_ij² + G_ij³ Σ_ab A_ab).

    `layer`: one or several joined by `+`, as for grad-cam. Values (N, 1, h, w), of the layer's size, at least 0, in logits.
    Cost: one forward pass and the backward pass of what follows the layer, for each layer.
    Limits: made for maps that are nowhere negative, as after ReLU; on others α may pass a pole, which a note says. As it
    counts positive gradients only, it may hardly depend on the class.
    Deviation: the weights are derived for exp(f_c); its factor exp(f_c), which only scales the map, is left out.
    Source: Chattopadhay et al. 2018, arXiv 1710.11063, equations 5 and 19.

    >>> from seewhy.method import parse
    >>> parse("grad-cam++:layer=layer3+layer4")
    GradCAMPlusPlus(layer='layer3+layer4')
    """

    layer: str | None = None

    name = "grad-cam++"
    shows = "Where the last feature maps respond that raise the class's logit, small regions weighed up."
    reading = "As Grad-CAM; made for several objects of a class in one image, of which Grad-CAM shows the largest best."
    source = "Chattopadhay et al. 2018, arXiv 1710.11063"
    default_sign = "positive"
    nothing = NOTHING

    @property
    def passes(self) -> tuple[int, int]:
        return number_of(self.layer), number_of(self.layer)

    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        poles: list[bool] = []

        def make(maps: Tensor, gradient: Tensor) -> Tensor:
            rises = gradient.clamp_min(0)
            below = 2 + rises * maps.sum((2, 3), keepdim=True)  # α is 1 over this where G is positive
            poles.append(bool((below <= 0).any()))
            return weighed((rises / torch.where(below == 0, 1, below)).sum((2, 3), keepdim=True), maps)

        found = _cam(net, pixels, question, self.layer, make)
        note = f"some maps of {found.layer} are negative in sum, where the weights pass a pole; grad-cam has none"
        return Map(found.values, layer=found.layer, notes=(note,) if any(poles) else ())


@dataclass(frozen=True)
class XGradCAM(Explainer):
    """XGrad-CAM: max(0, Σ_k w_k A_k), w_k = Σ_ij G_ij A_ij / Σ_ij A_ij: a map's gradient averaged where the map responds.

    `layer`: one or several joined by `+`, as for grad-cam. A map that sums to zero gets the weight zero. Values
    (N, 1, h, w), of the layer's size, at least 0, in logits.
    Cost: one forward pass and the backward pass of what follows the layer, for each layer.
    Limits: made for maps that are nowhere negative; where a map nearly cancels out its weight grows without bound.
    Source: Fu et al. 2020, arXiv 2008.02312, equation 8.

    >>> XGradCAM(layer="layer4").spec
    'xgrad-cam:layer=layer4'
    """

    layer: str | None = None

    name = "xgrad-cam"
    shows = "Where the last feature maps respond that raise the class's logit, each weighed by its gradient where it responds."
    reading = "As Grad-CAM; weighed so that the map adds up to the logit as nearly as a weighed sum of maps can."
    source = "Fu et al. 2020, arXiv 2008.02312"
    default_sign = "positive"
    nothing = NOTHING

    @property
    def passes(self) -> tuple[int, int]:
        return number_of(self.layer), number_of(self.layer)

    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        def make(maps: Tensor, gradient: Tensor) -> Tensor:
            total = maps.sum((2, 3), keepdim=True)
            along = (gradient * maps).sum((2, 3), keepdim=True)
            return weighed(torch.where(total == 0, 0, along / torch.where(total == 0, 1, total)), maps)

        return _cam(net, pixels, question, self.layer, make)


@dataclass(frozen=True)
class HiResCAM(Explainer):
    """HiResCAM: Σ_k G_k A_k, position by position, signed.

    Where only averaging or flattening and one linear layer follow, it is each position's exact contribution: the values
    add up to the logit less its bias. `layer`: one or several joined by `+`, as for grad-cam.
    Values (N, 1, h, w), of the layer's size, in logits.
    Cost: one forward pass and the backward pass of what follows the layer, for each layer.
    Limits: elsewhere it is gradient times input at the layer, which holds as far as what follows is linear.
    Source: Draelos & Carin 2020, arXiv 2011.08891, section 3.

    >>> from torch import nn
    >>> module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> found = HiResCAM()(Classifier(module, size=8), torch.rand(1, 3, 8, 8), target=1)
    >>> torch.allclose(found.values.sum() + module[3].bias[1], found.score, atol=1e-4)
    True
    """

    layer: str | None = None

    name = "hires-cam"
    shows = "What each position of the last feature maps adds to the class's logit."
    reading = (
        "Positive values speak for the class, negative ones against it; exact where only one linear layer follows."
    )
    source = "Draelos & Carin 2020, arXiv 2011.08891"

    @property
    def passes(self) -> tuple[int, int]:
        return number_of(self.layer), number_of(self.layer)

    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        return _cam(net, pixels, question, self.layer, lambda a, g: (g * a).sum(1, keepdim=True))


@dataclass(frozen=True)
class LayerCAM(Explainer):
    """LayerCAM: max(0, Σ_k max(0, G_k) A_k): each position weighed by its own gradient.

    So it keeps its meaning in shallow layers, whose maps are fine. `layer`: one or several joined by `+`, as for
    grad-cam. Values (N, 1, h, w), of the layer's size, at least 0, in logits.
    Cost: one forward pass and the backward pass of what follows the layer, for each layer.
    Limits: what a position takes from the logit through other channels is not set off against what it adds.
    Deviation: several layers are averaged, each divided by its maximum; the paper scales them by tanh and takes the maximum.
    Source: Jiang et al. 2021, LayerCAM, IEEE Transactions on Image Processing 30, section III.

    >>> LayerCAM(layer="layer2+layer4").spec
    'layer-cam:layer=layer2+layer4'
    """

    layer: str | None = None

    name = "layer-cam"
    shows = "Where feature maps respond at positions that raise the class's logit; in shallow layers finely."
    reading = "As Grad-CAM, position by position. Shallow layers show edges and textures more than objects."
    source = "Jiang et al. 2021, LayerCAM, IEEE Transactions on Image Processing 30"
    default_sign = "positive"
    nothing = NOTHING

    @property
    def passes(self) -> tuple[int, int]:
        return number_of(self.layer), number_of(self.layer)

    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        return _cam(net, pixels, question, self.layer, lambda a, g: weighed(g.clamp_min(0), a))


@dataclass(frozen=True)
class EigenCAM(Explainer):
    """Eigen-CAM: a layer's maps projected on their first principal direction: A v₁ of A = U Σ Vᵀ (positions × channels).

    The sign of v₁ is free; it is chosen so that the projection's sum is positive. Where no map is negative, as after ReLU,
    the projection then is nowhere negative. `measures["explained"]` is σ₁² / Σ σ²: how much of the maps it holds (the
    mean of several layers). `layer`: one or several joined by `+`, as for grad-cam.
    Values (N, 1, h, w), of the layer's size, in the maps' unit.
    Cost: one forward pass for each layer; all targets are answered together.
    Limits: every class has the same map. It shows what the layer responds to, be it evidence or not; where the first two
    singular values are close, the direction is arbitrary.
    Source: Muhammad & Yeasin 2020, arXiv 2008.00299, section III.

    >>> EigenCAM().passes
    (1, 0)
    """

    layer: str | None = None

    name = "eigen-cam"
    shows = "The strongest common pattern of the last feature maps, whatever the class."
    reading = "What the network looks at, not why it decides: the map is the same for every class."
    source = "Muhammad & Yeasin 2020, arXiv 2008.00299"
    default_sign = "positive"

    @property
    def passes(self) -> tuple[int, int]:
        return number_of(self.layer), 0

    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        return self.attribute_each(net, pixels, [question])[0]

    def attribute_each(self, net: Classifier, pixels: Tensor, questions: Sequence[Question]) -> list[Map]:
        chosen = layers(net, self.layer)
        shares = torch.zeros(len(chosen), len(pixels))

        def look(part: Tensor, where: slice, at: int) -> Tensor:
            lens = Capture(net.module, [chosen[at]], stop=False)
            with torch.no_grad():
                logits = net.logits(part, lambda: lens)
            for question in questions:
                question(logits, where)
            projection, explained = principal(lens.kept[chosen[at]])
            shares[at, where] = explained.float().cpu()
            return projection

        values = fused([net.engine.map(partial(look, at=at), pixels, "forward") for at in range(len(chosen))])
        return [Map(values, layer="+".join(chosen), measures={"explained": shares.mean(0)}) for _ in questions]


def principal(maps: Tensor) -> tuple[Tensor, Tensor]:
    """The projection (N, 1, h, w) of maps (N, C, h, w) on their first right singular vector, and σ₁² / Σ σ² (N,)."""
    rows = maps.flatten(2).double()  # channels × positions
    wide = rows.shape[2] > rows.shape[1]
    squares, vectors = torch.linalg.eigh(rows @ rows.mT if wide else rows.mT @ rows)  # the smaller Gram matrix
    first, top = vectors[..., -1:], squares[..., -1].clamp_min(0)
    projection = (rows.mT @ first)[..., 0] if wide else first[..., 0] * top.sqrt()[:, None]
    projection = projection * torch.where(projection.sum(1, keepdim=True) < 0, -1, 1)
    total = rows.square().sum((1, 2))
    return projection.to(maps.dtype).unflatten(1, (1, *maps.shape[2:])), top / torch.where(total > 0, total, 1)
