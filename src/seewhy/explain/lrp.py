"""Layer-wise relevance propagation: the logit shared out, layer by layer, down to the pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from seewhy.classifier import Classifier, Target
from seewhy.data.images import Images
from seewhy.engine import count
from seewhy.errors import LayerError, NothingToExplain
from seewhy.explain.base import Explainer, Map, Question
from seewhy.lens.capture import find
from seewhy.lens.relevance import Relevance, Step, Value
from seewhy.lens.rules import Composite, chosen

KEPT = (
    "biases kept it, or terms that nearly cancel; read the pattern, not the amounts; account() says where, "
    "seewhy explain --account too"
)


@dataclass(frozen=True)
class Planned:
    """An operation and its rule; `merged` names the layer that a batch normalisation is computed with."""

    address: str
    op: str
    depth: int
    rule: str
    merged: str = ""


@dataclass(frozen=True)
class Plan:
    """What a composite does with each operation of a network, in the order in which they run."""

    rows: tuple[Planned, ...]

    def __str__(self) -> str:
        rows = [(row.address, f"with {row.merged}" if row.merged else row.rule) for row in self.rows]
        width = max((len(address) for address, _ in rows), default=0)
        return "\n".join(f"{address:<{width}}  {rule}" for address, rule in rows)


@dataclass(frozen=True)
class Account:
    """What became of the relevance at one operation: what arrived, what it passed on, what it kept; (N,) each.

    It is kept by biases, by stabilisers and by values that are filled in.
    """

    address: str
    op: str
    rule: str
    arrived: Tensor
    passed: Tensor

    @property
    def lost(self) -> Tensor:
        return self.arrived - self.passed


@dataclass(frozen=True)
class Ledger:
    """Every operation's account, from the logit down to the pixels or to a `layer`, and the logits (N,) that were shared out.

    `aside` (N,) is what passed the layer by, on other ways to the pixels.
    """

    rows: tuple[Account, ...]
    started: Tensor
    aside: Tensor
    layer: str = ""

    @property
    def reached(self) -> Tensor:
        """What came to the pixels, or to the layer (N,): the logits less all that was lost on the way or passed it by."""
        return (self.started - _lost(self.rows, self.started) - self.aside).to(self.started.dtype)

    def __str__(self) -> str:
        width = max((len(row.address) for row in self.rows), default=0)
        lines = [f"{'':<{width}}  {'arrived':>10} {'passed on':>10} {'lost':>10}  rule (means over images)"]
        for row in self.rows:
            numbers = " ".join(f"{float(each.mean()):>10.4g}" for each in (row.arrived, row.passed, row.lost))
            lines.append(f"{row.address:<{width}}  {numbers}  {row.rule}")
        return "\n".join(lines)


@dataclass(frozen=True)
class LRP(Explainer):
    """The target's logit shared out over the pixels: R_i = Σ_j c_ij / (Σ_i c_ij + …) R_j, layer by layer from the logit down.

    `composite` names what c_ij is in each layer (`seewhy.lens.rules`): contributions x_i w_ij in `epsilon`;
    for convolutions their positive part in `epsilon-plus`, and twice that less their negative part in `alpha2-beta1`, linear
    layers by ε; `-flat` shares the first layer's out evenly over its window; `epsilon-gamma-box` raises positive
    contributions by a quarter and knows that pixels are bounded. A batch
    normalisation directly behind or before a convolution is computed with it, residual sums share by value,
    max-pooling gives all to the maximum, power-average pooling shares by powers. `layer` (an address) asks for the relevance
    of that layer's output in place of the pixels'.

    One's own composite is a list of tables, each with a `rule` (epsilon, gamma, alpha-beta, z-plus, z-box, w-squared, flat, pass,
    with a parameter as in `gamma:0.1`) and the operations that it is for: `op`, `kind` and `path` (the module's), which may have
    `*`, and `depth`, the number of affine layers before it (`0`, `1-3`, `4-`). The first that fits counts, the last one has
    a rule alone. It is a file, `lrp:composite=mine.json`, with `[{"depth": 0, "rule": "z-box"}, {"op": "conv*", "rule":
    "gamma:0.1"}, {"rule": "epsilon"}]`; or `mine.toml`, with a `[[composite]]` table for each; or `seewhy.lens.rules.composite`
    registers it under a name.

    `plan(net)` lists each operation's rule before anything runs; `account(net, images)` says where relevance is lost.
    `seewhy explain` does so with `--plan` and `--account`.
    `measures["conservation error"]` is |Σ R − f_c| / |f_c|: biases keep their share in every rule but z-box, flat,
    w-squared and z-plus:0, which conserve (z-plus:0 but for units that only their bias raises); ε keeps ε/(|z_j| + ε); without
    biases all composites conserve, alpha2-beta1 only where contributions of both signs meet. In networks of depthwise
    convolutions with large biases (EfficientNet, MobileNet) nearly nothing is left at the pixels, which a note says: the
    pattern can be read, the amounts cannot. At a `layer` that other paths bypass, the error says what went by.

    Values (N, 3, H, W), in logits, signed; with `layer` that layer's shape. Raises `UnknownOperation` where relevance comes to
    an operation that has no rule (a product of two maps, attention); `seewhy.lens.relevance.rule` registers one.
    Cost: one forward pass, and for z-plus the multiply-adds of two more (ε: one, alpha-beta: four to eight).
    Limits: `epsilon` alone is close to gradient × input and as noisy; the others depend less on the class the
    deeper the network is. Gates (squeeze-and-excitation) and the deviation in layer normalisation are
    taken for constants, which a note says.
    Source: Bach et al. 2015, doi 10.1371/journal.pone.0130140, equations 58 and 60; Montavon et al. 2019, Layer-wise
    relevance propagation: an overview, section 10.2; Kohlbrenner et al. 2020, arXiv 1910.09840 (composites).

    >>> from torch import nn
    >>> module = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2, bias=False))
    >>> net = Classifier(module, size=8)
    >>> print(LRP().plan(net))
    0:conv2d   flat
    1:relu     pass
    2:flatten  pass
    3:linear   epsilon
    >>> found = LRP()(net, torch.rand(1, 3, 8, 8))
    >>> bool(found.measures["conservation error"] < 1e-3)
    True
    >>> from seewhy.lens.rules import COMPOSITES, composite
    >>> mine = composite("mine", [{"depth": 0, "rule": "z-box"}, {"op": "conv*", "rule": "gamma:0.1"}, {"rule": "epsilon"}])
    >>> [row.rule for row in LRP(composite="mine").plan(net).rows]
    ['z-box', 'pass', 'pass', 'epsilon']
    >>> del COMPOSITES["mine"]
    """

    composite: str = "epsilon-plus-flat"
    layer: str | None = None

    name = "lrp"
    shows = "How the logit of the class is shared out over the pixels, layer by layer."
    reading = (
        "Positive values speak for the class, negative ones against it; they add up to the logit, but for what biases keep: "
        "the conservation error."
    )
    source = "Bach et al. 2015, doi 10.1371/journal.pone.0130140"

    def __post_init__(self) -> None:
        self._composite  # noqa: B018  reads it, so that a bad one is refused now

    @cached_property
    def _composite(self) -> Composite:
        """Read once: a file that changes meanwhile changes no method."""
        return chosen(self.composite)

    def outside(self) -> dict[str, Any]:
        return {"composite": [asdict(entry) for entry in self._composite]}

    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        return self.attribute_each(net, pixels, [question])[0]

    def attribute_each(self, net: Classifier, pixels: Tensor, questions: Sequence[Question]) -> list[Map]:
        return sent_back(net, pixels, questions, self._composite, self.layer)[0]

    def plan(self, net: Classifier) -> Plan:
        """The rule of each operation; one forward pass of a grey image."""
        return planned(net, self._composite)

    def account(self, net: Classifier, images: Tensor | Images, target: Target = None) -> Ledger:
        """What each operation does with the relevance that comes to it, image by image; with `layer`, down to there."""
        return accounted(net, images, target, self._composite, self.layer)


def planned(net: Classifier, composite: Composite) -> Plan:
    """Each operation's rule, from one forward pass of a grey image."""
    lens = _lens(net, composite)
    with torch.no_grad():
        net.logits(torch.full((1, 3, *net.size), 0.5), lambda: lens)
    lens.settle()
    rows = [
        Planned(step.address, step.op, step.depth, step.rule, step.home.address if step.home else "")
        for step in lens.steps
    ]
    lens.close()
    return Plan(tuple(rows))


def accounted(
    net: Classifier, images: Tensor | Images, target: Target, composite: Composite, layer: str | None = None
) -> Ledger:
    """Each operation's account, from one forward pass and one pass back an image."""
    pixels, wanted = net.check(images), net.targets(target, images)
    if layer:
        find(net, layer)
    pairs = zip(pixels, wanted, strict=True)
    ledgers = [_account(net, image[None], int(each), composite, layer) for image, each in pairs]
    rows = tuple(
        Account(*key, torch.tensor([row[0] for row in found]), torch.tensor([row[1] for row in found]))
        for key in ledgers[0].rows
        for found in [[each.rows.get(key, (0.0, 0.0)) for each in ledgers]]
    )
    started, came = (torch.tensor([getattr(each, name) for each in ledgers]) for name in ("started", "came"))
    # at the pixels all ways meet
    aside = (started - _lost(rows, started) - came).to(started.dtype) if layer else torch.zeros_like(started)
    return Ledger(rows, started, aside, layer or "")


def _lost(rows: Sequence[Account], started: Tensor) -> Tensor:
    """What all operations together kept of logits (N,)."""
    return sum((row.lost.double() for row in rows), torch.zeros_like(started, dtype=torch.float64))


def sent_back(
    net: Classifier,
    pixels: Tensor,
    questions: Sequence[Question],
    composite: Composite,
    layer: str | None = None,
    check: Callable[[Relevance], Iterable[str]] = lambda lens: (),
) -> tuple[list[Map], Tensor]:
    """A map for each question, from one forward pass and as many passes back; and the logits (questions, N) that were sent.

    `check` sees the pass before anything goes back, and answers notes. The logits are those before a final softmax, where
    there is one.
    """
    if layer:
        find(net, layer)
    notes: set[str] = set()
    started = torch.ones(len(questions), len(pixels))

    def run(part: Tensor, where: slice) -> Tensor:
        lens = _lens(net, composite)
        try:
            with torch.no_grad():
                logits = net.logits(part, lambda: lens)
                answer, values = lens.start(net, logits)
                notes.update(check(lens))
                to = _value(net, lens, layer)
                found = []
                for index, question in enumerate(questions):
                    question(logits, where)
                    relevance = torch.zeros_like(values)
                    places = question.target[where].to(values.device)[:, None]
                    relevance.scatter_(1, places, values.gather(1, places))
                    started[index, where] = relevance.sum(1).float().cpu()
                    found.append(_send(net, lens, answer, relevance, to, last=index == len(questions) - 1))
                    count(backward=len(part))
        finally:
            lens.close()
        notes.update(lens.notes)
        return torch.stack(found, 1)

    made = net.engine.map(run, pixels, "gradient")
    if made.ndim == 3:  # a layer of plain numbers
        made = made[..., None, None]
    if made.ndim != 5:
        raise LayerError(
            f"expected a layer that answers maps (N, C, H, W) or (N, C), got {tuple(made[:, 0].shape)} from {layer}"
        )
    totals = made.double().sum((2, 3, 4)).cpu().T
    errors = (totals - started).abs() / started.abs().clamp_min(1e-12)
    if not layer and (errors > 0.5).any():
        notes.add(f"up to {100 * float(errors.max()):.4g} % of a logit did not reach the pixels: {KEPT}")
    maps = [
        Map(made[:, index], layer or "", tuple(sorted(notes)), {"conservation error": errors[index]})
        for index in range(len(questions))
    ]
    return maps, started


def _lens(net: Classifier, composite: Composite) -> Relevance:
    box = None
    if any(entry.rule == "z-box" for entry in composite):
        box = (net.normalise(torch.zeros(1, 3, 1, 1)), net.normalise(torch.ones(1, 3, 1, 1)))
    return Relevance(net.module, composite, box)


def _value(net: Classifier, lens: Relevance, layer: str | None) -> Value:
    value = lens.addresses.get(layer) if layer else lens.images
    if value is None:
        raise LayerError(f"the output at {layer} of {net.name} does not depend on the images, or is overwritten")
    return value


def _send(net: Classifier, lens: Relevance, answer: Value, relevance: Tensor, to: Value, **words: Any) -> Tensor:
    found = lens.back(answer, relevance.view(answer.shape), to, **words)
    if found is None:
        raise NothingToExplain(f"no relevance of the logits of {net.name} comes there: they do not depend on it")
    return found


@dataclass(frozen=True)
class _Told:
    """One image's account: by address, operation and rule what arrived and what went on, and what came to the end."""

    rows: dict[tuple[str, str, str], tuple[float, float]]
    started: float
    came: float


def _account(net: Classifier, image: Tensor, target: int, composite: Composite, layer: str | None) -> _Told:
    rows: dict[tuple[str, str, str], tuple[float, float]] = {}

    def told(step: Step, arrived: float, passed: float) -> None:
        key = step.address, step.op, f"with {step.home.address}" if step.home else step.rule
        before = rows.get(key, (0.0, 0.0))  # an operation outside the vocabulary has one address for all its calls
        rows[key] = (before[0] + arrived, before[1] + passed)

    lens = _lens(net, composite)
    try:
        with torch.no_grad(), net.session():
            answer, values = lens.start(net, net.logits(image, lambda: lens))
            relevance = torch.zeros_like(values)
            relevance[:, target] = values[:, target]
            came = _send(net, lens, answer, relevance, _value(net, lens, layer), told=told)
    finally:
        lens.close()
    return _Told(rows, float(values[0, target]), float(came.sum(dtype=torch.float64)))
