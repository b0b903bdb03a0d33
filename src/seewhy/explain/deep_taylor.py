"""Deep Taylor decomposition: each layer's relevance expanded around a root point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from seewhy.classifier import Classifier, Target
from seewhy.data.images import Images
from seewhy.errors import SpecError
from seewhy.explain.base import Explainer, Map, Question
from seewhy.explain.lrp import Ledger, Plan, accounted, planned, sent_back
from seewhy.lens.relevance import Relevance
from seewhy.lens.rules import Composite, Entry

NEGATIVE = "a logit that is not positive has no root point below it: its map's sign is reversed"


@dataclass(frozen=True)
class DeepTaylor(Explainer):
    """The target's logit decomposed around root points: R_i = Σ_j (x_i w_ij)⁺ / Σ_i (x_i w_ij)⁺ R_j in hidden layers.

    `pixels` is the rule of the first layer: `z-box`, whose root points stay inside [0, 1], R_i = Σ_j (x_i w_ij − l w_ij⁺ −
    h w_ij⁻) / Σ_i (…) R_j with black l and white h in the network's own units; or `w-squared`, R_i = Σ_j w_ij² / Σ_i w_ij² R_j,
    which does not look at the image. `measures["conservation error"]` is |Σ R − f_c| / |f_c|: only units that
    nothing but a positive bias raises lose their relevance. The root points
    of the paper exist where the rectifiers are ReLUs, no bias is positive and the logit is; notes say where that fails.
    `plan(net)` and `account(net, images)` as in `lrp`.

    Values (N, 3, H, W), in logits, at least 0 for a positive logit without residual sums of signed maps. Raises
    `UnknownOperation` as `lrp` does. Cost: one forward pass and about the multiply-adds of two more.
    Limits: negative evidence is never shown, and the map depends little on the class in deep networks.
    Deviation: normalisations, residual sums, gates and poolings as in `lrp`; the paper has none of them.
    Source: Montavon et al. 2017, arXiv 1512.02479, equations 8 to 10 and section 4.

    >>> import torch
    >>> from torch import nn
    >>> module = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2, bias=False))
    >>> found = DeepTaylor()(Classifier(module, size=8), torch.rand(1, 3, 8, 8))
    >>> bool(found.measures["conservation error"] < 1e-3)
    True
    """

    pixels: str = "z-box"

    name = "deep-taylor"
    shows = "Which pixels the class's logit rests on, by Taylor expansions around points where it vanishes."
    reading = "Positive values hold the logit up and add up to it. What speaks against the class is not shown."
    source = "Montavon et al. 2017, arXiv 1512.02479"
    default_sign = "positive"

    def __post_init__(self) -> None:
        if self.pixels not in ("z-box", "w-squared"):
            raise SpecError(f'expected pixels "z-box" or "w-squared", got "{self.pixels}"')

    @property
    def _composite(self) -> Composite:
        first = Entry(self.pixels, kind="affine", depth="0")
        return first, Entry("pass", kind="normalisation"), Entry("z-plus:0")

    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        return self.attribute_each(net, pixels, [question])[0]

    def attribute_each(self, net: Classifier, pixels: Tensor, questions: Sequence[Question]) -> list[Map]:
        maps, started = sent_back(net, pixels, questions, self._composite, check=_unmet)
        return [
            replace(found, notes=(*found.notes, NEGATIVE)) if (logits <= 0).any() else found
            for found, logits in zip(maps, started, strict=True)
        ]

    def plan(self, net: Classifier) -> Plan:
        """The rule of each operation; one forward pass of a grey image."""
        return planned(net, self._composite)

    def account(self, net: Classifier, images: Tensor | Images, target: Target = None) -> Ledger:
        """What each operation does with the relevance that comes to it, image by image."""
        return accounted(net, images, target, self._composite)


def _unmet(lens: Relevance) -> list[str]:
    """What the paper asks of a network, where this one does not have it."""
    for step in lens.steps:
        if step.rectifies is False:  # said if relevance comes there: a gate's own way gets none
            text = (
                f"root points are for what is zero below zero, as ReLU is; here is {step.op}: the same rules were used"
            )
            step.spread = step.noting(text, step.spread)
    biases = [bias for step in lens.steps if step.layer and (bias := step.layer.offsets()) is not None]
    positive, total = sum(int((bias > 0).sum()) for bias in biases), sum(bias.numel() for bias in biases)
    if not positive:
        return []
    return [
        f"{positive} of {total} biases are positive (normalisations merged): "
        "a root point is only sure to exist where none is"
    ]
