"""The loop that the iterated attacks within a given size share: look, leave if it fools, step."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from seewhy import rng
from seewhy.attack.base import Goal
from seewhy.attack.oracles import WhiteBox, predicted
from seewhy.attack.sizes import STEPS, Within, outlives, projected, steepest
from seewhy.errors import SpecError

#: what is ascended: logits (m, C), the goal of these images -> (m,)
Loss = Callable[[Tensor, Goal], Tensor]

#: what belongs to each image that is still attacked (M, …), by name; always there: `pixels` and `sizes` of its ball
State = dict[str, Tensor]


#: images (M, 3, H, W), gradients, values of the loss (M,), state, number of the step -> the next images, inside their balls;
#: what it must remember of each image it keeps in the state
Move = Callable[[Tensor, Tensor, Tensor, State, int], Tensor]


def log_odds(logits: Tensor, goal: Goal) -> Tensor:
    """log P(goal) / P(not the goal): ascends along cross-entropy's direction, and goes on where that saturates."""
    return -goal.margin(logits, soft=True)


def known_walk(steps: int, refine: int, step: float = 1, restarts: int = 1) -> None:
    """Raise `SpecError` for settings of a walk that cannot be meant."""
    for good, words in (
        (steps >= 1, f"steps ≥ 1, got {steps}"),
        (restarts >= 1, f"restarts ≥ 1, got {restarts}"),
        (refine >= 0, f"refine ≥ 0, got {refine}"),
        (step > 0, f"step > 0, got {step:g}"),
    ):
        if not good:
            raise SpecError(f"expected {words}")


def most_passes(eps: tuple[float, ...], refine: int, steps: int, starts: int = 1) -> tuple[int, int]:
    """The most passes of an attack through `within`: every image is looked at, and rounded, before each step and after all."""
    sizes = len(eps or STEPS)
    walks = (sizes + refine) * starts
    return 1 + 2 * (sizes + bool(refine)) + walks * 2 * (steps + 1), walks * steps


def still() -> Iterator[Tensor]:
    """One start, from the image itself."""
    yield torch.zeros(())


def noise(seed: int, name: str, norm: str, shape: torch.Size, starts: int) -> Iterator[Tensor]:
    """Uniform draws (3, H, W) from the ball of size one, the same for every image and size."""
    draw = rng.generator(seed, name)
    for _ in range(starts):
        if norm == "linf":
            yield rng.uniform(shape, draw) * 2 - 1
        else:
            direction, radius = rng.normal(shape, draw), rng.uniform((), draw)
            yield direction / direction.norm() * radius ** (1 / direction.numel())


def ascending(norm: str, step: float) -> Move:
    """Moves by the share `step` of ε along the steepest ascent."""

    def move(images: Tensor, gradient: Tensor, values: Tensor, state: State, _: int) -> Tensor:
        length = (step * state["sizes"]).view(-1, 1, 1, 1)
        return projected(images + length * steepest(gradient, norm), state["pixels"], state["sizes"], norm)

    return move


def within(
    view: WhiteBox,
    pixels: Tensor,
    goal: Goal,
    norm: str,
    steps: int,
    move: Move,
    loss: Loss = log_odds,
    starts: Callable[[], Iterator[Tensor]] = still,
) -> Within:
    """The attack of `steps` moves from each of `starts`, draws from the ball of size one.

    An image leaves as soon as it fools as it is and rounded to 8 bits; that is what "fools" means here.
    """

    def attack(rows: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = pixels[rows]
        fooled, settled = torch.zeros(2, len(rows), dtype=torch.bool)
        ended = torch.ones(len(rows), dtype=torch.bool)
        for draw in starts():
            todo = (~settled).nonzero()[:, 0]
            if not len(todo):
                break
            clean, ball = pixels[rows[todo]], sizes[todo]
            start = projected(clean + ball.view(-1, 1, 1, 1) * draw, clean, ball, norm)
            tried, once, both, last = _walked(view, pixels, goal, rows[todo], ball, start, steps, move, loss)
            better = both | ~fooled[todo]
            found[todo[better]] = tried[better]
            fooled[todo] |= once
            settled[todo] = both
            ended[todo] &= last
        return found, settled, fooled | ended

    return attack


def _walked(
    view: WhiteBox,
    pixels: Tensor,
    goal: Goal,
    of: Tensor,
    sizes: Tensor,
    start: Tensor,
    steps: int,
    move: Move,
    loss: Loss,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The images found for the originals `of` (M,), whether they fool, whether rounded too, and whether all steps were made.

    The logits that come with a gradient judge the image before its step, so a step is one pass; after the last there is
    one forward pass. An image that fools, but not rounded, goes on, and is the answer unless a later one fools; without
    any the answer is the last image.
    """
    found = start.clone()
    fooled, settled, ended = torch.zeros(3, len(of), dtype=torch.bool)
    live = view.can(of).nonzero()[:, 0]
    images, state = start[live], {"pixels": pixels[of[live]], "sizes": sizes[live]}
    for step in range(steps + 1):
        if not len(live):
            break
        rows, aims = of[live], goal.of(of[live])
        if step < steps:
            logits, gradient = view.gradient(images, rows, lambda part, at, aims=aims: loss(part, aims.of(at)))  # type: ignore[misc]
        else:
            logits, gradient = view.logits(images, rows), images
        now = aims.reached(predicted(logits))
        latest = now | ~fooled[live]
        found[live[latest]] = images[latest]
        fooled[live] |= now
        settled[live[now]] = outlives(view, images[now], rows[now], aims.of(now))
        if step == steps:
            ended[live] = True
            break
        stay = ~settled[live] & view.can(rows)
        if not bool(stay.all()):
            live, images, logits, gradient = live[stay], images[stay], logits[stay], gradient[stay]
            state = {name: value[stay] for name, value in state.items()}
        images = move(images, gradient, loss(logits, aims.of(stay)), state, step)
    return found, fooled, settled, ended
