"""The Shapley value of a game on coalitions: by all of them, by some of them, and over a hierarchy.

A game is asked for coalitions (M, S) of S players, one boolean row each, and answers values (M, T), one column a target.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Game = Callable[[Tensor], Tensor]

#: what the evidence chooses from, on so many pairs at most
_DEPTHS = (1e-3, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_ROUGHNESSES = (1e-9, 1e-2, 1e-1, 1.0)
_CHOSEN_ON = 400


def everyone(players: int) -> Tensor:
    """All coalitions (2^S, S); row k holds the players whose bits are set in k."""
    return (torch.arange(2**players)[:, None] >> torch.arange(players)) % 2 == 1


def exact(values: Tensor) -> Tensor:
    """Shapley values (S, T) of the values (2^S, T) of all coalitions, in the order of `everyone`."""
    players = len(values).bit_length() - 1
    kept = everyone(players)
    sizes = kept.sum(1)
    weights = torch.tensor(
        [1 / (players * math.comb(players - 1, size)) for size in range(players)], dtype=values.dtype
    )
    joined, left = weights[(sizes - 1).clamp_min(0)], weights[sizes.clamp_max(players - 1)]
    return torch.where(kept, joined[:, None], -left[:, None]).T @ values


def pairs(players: int, count: int, draw: torch.Generator) -> Tensor:
    """At most `count` coalitions (P, S), none the complement of another and none drawn twice, each for itself and it.

    Drawn by their leverage in the kernel regression (Musco & Witter 2025): every size gets the same number, as far as
    there are so many, and so the smallest sizes are there in full.
    """
    sizes = range(1, players // 2 + 1)
    there = [math.comb(players, size) // (2 if 2 * size == players else 1) for size in sizes]
    wanted = _shares(there, [1.0 if 2 * size == players else 2.0 for size in sizes], min(count, sum(there)))
    drawn: list[tuple[int, ...]] = []
    reached, edge = (
        0.0,
        float(torch.rand(1, generator=draw)),
    )  # systematic rounding: each size keeps its expected number
    for size, most, share in zip(sizes, there, wanted, strict=True):
        taken = math.floor(reached + share + edge + 1e-9) - math.floor(reached + edge + 1e-9)
        reached += share
        drawn += _subsets(players, size, most, min(taken, most), draw)
    kept = torch.zeros(len(drawn), players, dtype=torch.bool)
    for row, members in zip(kept, drawn, strict=True):
        row[list(members)] = True
    return kept


def _shares(there: list[int], masses: list[float], count: int) -> list[float]:
    """`count` shared out by mass, none more than is there."""
    shares, left, open_ = [0.0] * len(there), float(count), set(range(len(there)))
    while open_:
        unit = left / sum(masses[i] for i in open_)
        full = [i for i in open_ if unit * masses[i] >= there[i]]
        for i in full or open_:
            shares[i] = float(there[i]) if full else unit * masses[i]
        if not full:
            break
        left -= sum(there[i] for i in full)
        open_ -= set(full)
    return shares


def _subsets(players: int, size: int, most: int, taken: int, draw: torch.Generator) -> list[tuple[int, ...]]:
    """`taken` different coalitions of a size; of two that complete each other only the one with the first player."""
    half = 2 * size == players
    if most <= 4 * taken:
        every = list(combinations(range(players), size))[:most]  # those with the first player come first
        return [every[i] for i in torch.randperm(most, generator=draw)[:taken].tolist()]
    found: dict[tuple[int, ...], None] = {}
    while len(found) < taken:
        order = torch.randperm(players, generator=draw).tolist()
        members = order[:size] if not half or 0 in order[:size] else order[size:]
        found[tuple(sorted(members))] = None
    return list(found)


def regress(kept: Tensor, rises: Tensor, total: float) -> tuple[Tensor, Tensor]:
    """Shapley values (S,) that add up to `total`, and their standard errors, of differences v(A) − v(not A) (P,) of `pairs`.

    Only a game's odd part, v(A) − v(not A), has a say in its Shapley values. It is taken for a Gaussian process of
    covariance sinh(Σ d_i z_i z′_i), where z is 1 for a player inside and −1 outside: odd interactions of every order, which
    coalitions share; and of a rough part that each coalition has for itself. Given the differences, the Shapley values
    of the process have a mean and a deviation in closed form. How deep interactions reach (Σ d_i) and how rough the game
    is are chosen by the evidence; d_i grows with what player i was found to do. Of all pairs the values are exact.
    """
    players = kept.shape[1]
    signs = torch.cat([torch.ones(1, players), kept.float() * 2 - 1]).double()
    rises = torch.cat([torch.tensor([total]), rises.cpu()]).double()
    if not rises.any():
        return torch.zeros(players).double(), torch.zeros(players).double()
    some = torch.linspace(0, len(kept), min(len(kept), _CHOSEN_ON) + 1).long()
    shares = torch.full((players,), 1 / players, dtype=torch.float64)
    for _ in range(2):
        tried = [
            _Process(signs[some], rises[some], shares, depth, rough) for depth in _DEPTHS for rough in _ROUGHNESSES
        ]
        best = max(tried, key=lambda process: process.evidence)
        found = best.values().abs()
        before, shares = shares, found / found.max() + 0.1
        shares /= shares.sum()
    final = best if len(some) == len(signs) else _Process(signs, rises, before, best.depth, best.rough)
    values = final.values()
    return values + (total - values.sum()) / players, final.errors()


class _Process:
    """The Gaussian process given what was seen: differences `rises` (P,) at `signs` (P, S)."""

    def __init__(self, signs: Tensor, rises: Tensor, shares: Tensor, depth: float, rough: float) -> None:
        self.signs, self.depth, self.rough = signs, depth, rough
        self.reach = depth * shares
        self.inside = (signs > 0).sum(1)
        spread = self._spread(self.inside)
        self.unit = float(spread.mean())
        covariance = torch.sinh((signs * self.reach) @ signs.T) / math.sinh(depth)
        covariance.diagonal().add_(rough * spread / self.unit + 1e-10)
        self.root = torch.linalg.cholesky(covariance)
        self.pull = torch.cholesky_solve(rises[:, None], self.root)[:, 0]
        self.scale = float(rises @ self.pull) / len(rises)
        self.evidence = -len(rises) / 2 * math.log(self.scale) - float(self.root.diagonal().log().sum())

    def _spread(self, inside: Tensor) -> Tensor:
        """The rough part's variance, but for its unit: the inverse of the kernel regression's weights."""
        return (inside * (self.signs.shape[1] - inside)).double()

    # ∏(1 + θ_i z_i) is the sum of every interaction ∏_T θ_i z_i, and that of an odd number of players is worth 1/|T| to each
    # of them. As 1/|T| = ∫₀¹ t^(|T| − 1) dt, the values of all are one integral of products over the other players.

    @cached_property
    def _shapley(self) -> Tensor:
        """What each player gets (P, S) in the game that is the covariance with a seen coalition."""
        strengths = torch.tanh(self.reach)
        total = torch.zeros_like(self.signs)
        for point, weight in zip(*_points(len(self.reach)), strict=True):
            part = point * strengths
            tilt = torch.atanh(part) * self.signs
            level = self._level + (torch.log1p(-part.square()) / 2).sum() - torch.log1p(-part.square()) / 2
            total += weight * torch.exp(level) * torch.cosh(tilt.sum(1, keepdim=True) - tilt)
        own = self.rough / self.unit * self._spread(self.inside)[:, None] * self._alone()
        return total * strengths * self.signs + own

    def _alone(self) -> Tensor:
        """What each player gets (P, S) in a game that is ½ for a seen coalition, −½ for its complement and 0 for all others."""
        inside, players = self.inside[:, None], self.signs.shape[1]
        return torch.where(self.signs > 0, 1 / inside, -1 / (players - inside).clamp_min(1)) * _rarity(players)[inside]

    @property
    def _level(self) -> float:
        return float(torch.cosh(self.reach).log().sum()) - math.log(math.sinh(self.depth))

    def values(self) -> Tensor:
        return self._shapley.T @ self.pull

    def errors(self) -> Tensor:
        strengths = torch.tanh(self.reach)
        points, weights = _points(len(self.reach))
        products, shares = torch.outer(points, points).flatten(), torch.outer(weights, weights).flatten()
        before = torch.zeros_like(strengths)
        for way in (1, -1):
            logs = torch.log1p(way * products[:, None] * strengths)
            before += shares @ torch.exp(self._level + logs.sum(1, keepdim=True) - logs) / 2
        known = torch.linalg.solve_triangular(self.root, self._shapley, upper=False).square().sum(0)
        own = self.rough / self.unit * float(_rarity(len(self.reach))[1:-1].sum()) / 2
        return ((strengths * before + own - known).clamp_min(0) * self.scale).sqrt()


@cache
def _rarity(players: int) -> Tensor:
    """One over the number of coalitions of each size (S + 1,)."""
    sizes = torch.arange(players + 1).double()
    ways = torch.lgamma(sizes + 1) + torch.lgamma(players - sizes + 1) - torch.lgamma(sizes[-1:] + 1)
    return torch.exp(ways)


@cache
def _points(players: int) -> tuple[Tensor, Tensor]:
    """Gauss and Legendre's points and weights on [0, 1]; exact to the order of every interaction up to 48 players."""
    points, weights = np.polynomial.legendre.leggauss(min(players // 2 + 1, 24))
    return torch.from_numpy((points + 1) / 2), torch.from_numpy(weights / 2)


class Group:
    """A set of players in a hierarchy, that is halved where its longer extent has a gap nearest the middle.

    `members` are the players (n,), `places` where all of them are (S, 2).
    """

    def __init__(self, members: Tensor, places: Tensor) -> None:
        self.members, self.places = members, places

    @cached_property
    def halves(self) -> tuple[Group, Group]:
        there = self.places[self.members]
        extent = there.amax(0) - there.amin(0)
        along, order = there[:, int(extent.argmax())].sort(stable=True)
        gaps = (along.diff() > 1e-9).nonzero()[:, 0] + 1
        middle = len(along) / 2
        cut = int(gaps[(gaps - middle).abs().argmin()]) if len(gaps) else len(along) // 2
        return Group(self.members[order[:cut]], self.places), Group(self.members[order[cut:]], self.places)


class _Share(NamedTuple):
    """A group that joins a coalition: what the game is without and with it (T,), and the chance of that coalition."""

    group: Group
    joined: Tensor
    without: Tensor
    with_: Tensor
    chance: float

    @property
    def effect(self) -> float:
        return self.chance * float((self.with_ - self.without).abs().max())


def owen(game: Game, group: Group, ends: Tensor, evaluations: int) -> Tensor:
    """Owen values (S, T) of a hierarchy: Shapley values where only orders count in which each group stays together.

    Two halves share what their group adds, each joining before the other or after it; those of large effect are split
    first, until the evaluations are used. What is not split is shared out evenly, so the sum is always exact. `ends` (2, T) is
    the game of no player and of all.
    """
    players = len(group.members)
    found = torch.zeros(players, ends.shape[1], dtype=torch.float64)
    ready, spent = [_Share(group, torch.zeros(players, dtype=torch.bool), ends[0], ends[1], 1.0)], 0
    while True:
        for each in [each for each in ready if len(each.group.members) == 1]:
            found[each.group.members] += each.chance * (each.with_ - each.without)
        ready = sorted((each for each in ready if len(each.group.members) > 1), key=lambda each: -each.effect)
        # half of them at a time, so that there are batches to run
        now = ready[: min((evaluations - spent) // 2, (len(ready) + 1) // 2)]
        if not now:
            break
        halves = [each.group.halves for each in now]
        grown = [
            torch.stack([each.joined.index_fill(0, half.members, True) for half in both])
            for each, both in zip(now, halves, strict=True)
        ]
        answers = game(torch.cat(grown)).unflatten(0, (len(now), 2))
        spent += 2 * len(now)
        ready = ready[len(now) :]
        for each, both, joined, answer in zip(now, halves, grown, answers, strict=True):
            for i, half in enumerate(both):
                ready.append(_Share(half, each.joined, each.without, answer[i], each.chance / 2))
                ready.append(_Share(half, joined[1 - i], answer[1 - i], each.with_, each.chance / 2))
    for each in ready:
        found[each.group.members] += each.chance * (each.with_ - each.without) / len(each.group.members)
    return found
