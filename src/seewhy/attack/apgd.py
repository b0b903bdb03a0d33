"""Projected gradient descent that sets its own step size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from seewhy.attack.base import Attack, Goal, Perturbed
from seewhy.attack.iterated import Move, State, known_walk, log_odds, most_passes, noise, within
from seewhy.attack.oracles import WhiteBox
from seewhy.attack.sizes import given, known_sizes, projected, steepest, swept
from seewhy.errors import InputError, SpecError, nearest

#: the weight of the new step beside the last movement, and the share of a stage's steps that must gain
ALPHA, RHO = 0.75, 0.75


@dataclass(frozen=True)
class APGD(Attack[WhiteBox]):
    """z = Π(xᵢ + η·sign ∇J(xᵢ)), xᵢ₊₁ = Π(xᵢ + ¾(z − xᵢ) + ¼(xᵢ − xᵢ₋₁)), with a step η that starts at 2ε and halves itself.

    At the checkpoints, which come closer and closer, η is halved and the search goes on from the best image so far, if less
    than ¾ of the steps since the last one raised J, or if neither η nor the best J changed since. J is, by `loss`, the
    log-odds log P(goal)/P(not the goal) (`ce`: the direction of cross-entropy's gradient), or the difference of logits ratio
    (`dlr`): −(f_y − max_{j≠y} f_j)/(f_π1 − f_π3), towards a target t −(f_y − f_t)/(f_π1 − (f_π3 + f_π4)/2), which scaled logits
    cannot mislead; π orders them from large to small. With `norm=l2` ∇J/‖∇J‖ stands for the sign, and the ball is Euclidean.
    There are `restarts` starts in all, drawn with `seed` from the ball, the same for every image; those after the first are
    for the images that do not fool yet.
    The sizes `eps` in [0, 1] pixels, eleven from 0.5/255 to 32/255 where none are given (in L2 the same for each value), are
    tried from small to large until an image fools, also rounded to 8 bits; the larger ones then have the same answer.
    `refine` bisections narrow down the smallest size below that one.
    Values (E, N, 3, H, W): a level for each size, and with `refine` one for the smallest found; sizes in `norm`.
    Raises `SpecError` for sizes, steps, norms and losses that cannot be meant, `InputError` for DLR on fewer than three
    classes (with a target, four).
    Cost for E sizes: at most 2·E + 3 forward passes, and for each size, refinement and restart 2·`steps` + 2 forward and
    `steps` backward passes, an image; one that fools leaves.
    Limits: what is not found shows nothing by itself; masked gradients mislead it like the others.
    Deviation: the log-odds for cross-entropy, which orders images alike; a random start from the whole ball in both norms.
    Source: Croce & Hein 2020, arXiv 2003.01690, algorithm 1 and section 4.

    >>> from seewhy import Classifier
    >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    >>> found = APGD(eps=(8 / 255,), refine=0, steps=10)(Classifier(module, size=2), torch.rand(1, 3, 2, 2))
    >>> bool(found.distances["linf"].max() <= 8 / 255 + 1e-6)
    True
    """

    eps: tuple[float, ...] = ()
    norm: str = "linf"
    loss: str = "ce"
    steps: int = 100
    restarts: int = 1
    refine: int = 0
    seed: int = 0

    name = "apgd"
    shows = "Whether gradient steps that tune themselves find, inside a ball of a given size, an image that changes the decision."
    reading = "The strongest of the gradient attacks at a fixed size without anything to tune; take both losses before believing."
    source = "Croce & Hein 2020, arXiv 2003.01690"

    def __post_init__(self) -> None:
        known_sizes(self.eps, self.norm)
        known_walk(self.steps, self.refine, restarts=self.restarts)
        if self.loss not in LOSSES:
            raise SpecError(f'expected loss ce or dlr, got "{self.loss}"{nearest(self.loss, LOSSES)}')

    @property
    def passes(self) -> tuple[int, int]:
        return most_passes(self.eps, self.refine, self.steps, self.restarts)

    def perturb(self, view: WhiteBox, pixels: Tensor, goal: Goal) -> Perturbed:
        draws = partial(noise, self.seed, self.name, self.norm, pixels.shape[1:], self.restarts)
        move = self_tuned(self.norm, self.steps)
        attack = within(view, pixels, goal, self.norm, self.steps, move, LOSSES[self.loss], draws)
        return swept(attack, pixels, given(self.eps, self.norm, pixels), self.refine)


def checkpoints(steps: int) -> list[int]:
    """The numbers of steps after which the step size is looked at.

    >>> checkpoints(100)
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    return sorted({math.ceil(round(share * steps, 9)) for share in shares[1:-1]})


def self_tuned(norm: str, steps: int) -> Move:
    """The moves with momentum, and the rule by which their length is halved."""
    stages = dict(zip(checkpoints(steps), [0, *checkpoints(steps)], strict=False))

    def move(images: Tensor, gradient: Tensor, values: Tensor, state: State, step: int) -> Tensor:
        if step == 0:
            state |= {"length": 2 * state["sizes"], "best": images, "uphill": gradient, "value": values, "last": values}
            state |= {
                "checked": values,
                "gains": torch.zeros(len(values)),
                "halved": torch.ones(len(values), dtype=torch.bool),
            }
            state["before"] = images
        else:
            better = values > state["value"]
            state["best"] = _where(better, images, state["best"])
            state["uphill"] = _where(better, gradient, state["uphill"])
            state["value"] = values.maximum(state["value"])
            state["gains"] = state["gains"] + (values > state["last"])
            state["last"] = values
        if step in stages:
            stuck = state["gains"] < RHO * (step - stages[step])
            halve = stuck | (~state["halved"] & (state["value"] <= state["checked"]))
            state |= {"halved": halve, "checked": state["value"], "gains": torch.zeros(len(values))}
            state["length"] = torch.where(halve, state["length"] / 2, state["length"])
            images, gradient = _where(halve, state["best"], images), _where(halve, state["uphill"], gradient)

        def inside(moved: Tensor) -> Tensor:
            return projected(moved, state["pixels"], state["sizes"], norm)

        moved = inside(images + state["length"].view(-1, 1, 1, 1) * steepest(gradient, norm))
        if step:
            moved = inside(images + ALPHA * (moved - images) + (1 - ALPHA) * (images - state["before"]))
        state["before"] = images
        return moved

    return move


def _where(which: Tensor, these: Tensor, those: Tensor) -> Tensor:
    return torch.where(which.view(-1, 1, 1, 1), these, those)


def logit_ratio(logits: Tensor, goal: Goal) -> Tensor:
    """The difference of logits ratio, larger the nearer the goal."""
    least = 3 if goal.target is None else 4
    if logits.shape[1] < least:
        raise InputError(f"loss=dlr needs at least {least} classes here, got {logits.shape[1]}; take loss=ce")
    top = logits.sort(1, descending=True).values
    if goal.target is None:
        return -goal.margin(logits) / (top[:, 0] - top[:, 2] + 1e-12)
    of_label, of_target = (
        logits.gather(1, named.to(logits.device)[:, None])[:, 0] for named in (goal.labels, goal.target)
    )
    return -(of_label - of_target) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


LOSSES = {"ce": log_odds, "dlr": logit_ratio}
