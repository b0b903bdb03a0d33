"""Codes laid out in the plane: principal axes, t-SNE by FFT, UMAP; and new codes laid onto what is there."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from openTSNE import TSNEEmbedding
from openTSNE.affinity import Affinities, PerplexityBasedNN, joint_probabilities_nn
from openTSNE.nearest_neighbors import PrecomputedNeighbors
from scipy.sparse import csr_matrix  # type: ignore[import-untyped]
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from seewhy.errors import MissingExtra

Array = np.ndarray[Any, Any]

#: steps of the early phase, in which attraction is multiplied by `EXAGGERATION`, as Belkina et al. 2019 advise
EARLY, EXAGGERATION = 250, 12

#: the fewest codes that t-SNE and UMAP are asked to lay out; fewer are drawn along their principal axes
FEWEST = {"tsne": 5, "umap": 6, "pca": 1}

#: from so many codes on repulsion is interpolated by FFT; a tree is as exact and faster for fewer (openTSNE's own rule)
FFT_FROM = 10_000

#: neighbours that a new code starts between, and the perplexity of its own neighbourhood: openTSNE's defaults
_BETWEEN, _NEAR = 25, 5

#: values of codes that are laid along axes at a time
_PART = 2**20

#: up to this size a decomposition is exact; beyond it is randomised, with the seed
_EXACT = 2048


@final
@dataclass(frozen=True)
class Axes:
    """Principal axes: `mean` (D,) and `directions` (C, D); with `unit`, codes are first brought to length 1."""

    mean: Array
    directions: Array
    unit: bool

    def __call__(self, codes: Array) -> Array:
        """Codes (N, D) along the axes: (N, C), float64."""
        laid = np.empty((len(codes), len(self.directions)))
        rows = max(1, _PART // codes.shape[1])
        for start in range(0, len(codes), rows):  # in parts: in float64 all codes are twice as large
            part = slice(start, start + rows)
            given = scaled(codes[part], self.unit).astype(np.float64)
            laid[part] = (given - self.mean) @ self.directions.T
        return laid


def scaled(codes: Array, unit: bool) -> Array:
    """Codes as distances are taken between them: as they are, or of length 1 (zero stays zero)."""
    if not unit:
        return codes
    length = np.linalg.norm(codes, axis=1, keepdims=True)
    return np.asarray(codes / np.where(length > 0, length, 1))


def principal(codes: Array, most: int, unit: bool, seed: int) -> Axes:
    """The principal axes (scikit-learn) of codes (N, D), at most `most` of them, the widest first."""
    given = scaled(codes, unit)
    n, wide = given.shape
    count = min(most, n, wide)
    if not np.any(given != given[0]):  # nothing varies, and no direction is better than another
        return Axes(given[0].astype(np.float64), np.eye(count, wide), unit)
    solver = "randomized"
    if min(n, wide) <= _EXACT:
        solver = "covariance_eigh" if wide <= min(n, _EXACT) else "full"
    fitted = PCA(count, svd_solver=solver, random_state=seed).fit(given)
    return Axes(fitted.mean_.astype(np.float64), fitted.components_.astype(np.float64), unit)


def nearest(reduced: Array, new: Array | None, count: int, jobs: int) -> tuple[Array, Array]:
    """The nearest codes (M, count) of new ones, and their distances; of the codes to each other where there are none."""
    search = NearestNeighbors(algorithm="brute", n_jobs=jobs).fit(reduced)
    distances, neighbours = search.kneighbors(new, n_neighbors=count)
    return neighbours, distances


def along_axes(reduced: Array) -> Array:
    """The first two axes of reduced codes (N, C) as a picture (N, 2)."""
    flat = np.zeros((len(reduced), 2))
    flat[:, : min(2, reduced.shape[1])] = reduced[:, :2]
    return flat


def tsne(reduced: Array, perplexity: float, steps: int, seed: int, jobs: int) -> tuple[Array, float]:
    """t-SNE of reduced codes (N, C): coordinates (N, 2), centred, and the Kullback–Leibler divergence reached.

    Neighbours are exact; the start is the first two axes, so that the seed has little to decide.
    """
    count = min(len(reduced) - 1, int(3 * perplexity))
    known = PrecomputedNeighbors(*nearest(reduced, None, count, jobs))
    affinities = PerplexityBasedNN(perplexity=perplexity, knn_index=known, n_jobs=jobs)
    start = along_axes(reduced)
    start *= 1e-4 / (start[:, 0].std() or 1)
    start += np.random.default_rng(seed).normal(0, 1e-6, start.shape)  # so that equal codes can part
    way = "fft" if len(reduced) >= FFT_FROM else "bh"
    embedding = _embedding(start, affinities, seed, jobs, way)
    embedding = embedding.optimize(EARLY, exaggeration=EXAGGERATION, momentum=0.5)
    embedding = embedding.optimize(steps, momentum=0.8)
    # openTSNE's threads add it up in any order: its last digits are not the map's
    return centred(np.array(embedding)), float(f"{embedding.kl_divergence:.6g}")


def onto_tsne(reduced: Array, coordinates: Array, new: Array, seed: int, jobs: int) -> Array:
    """New codes (M, C) on a t-SNE map (openTSNE's transform); each is placed as if it came alone."""
    affinities = _Known(reduced, jobs)
    embedding = _embedding(coordinates, affinities, seed, jobs)
    middle = (coordinates.max(0) + coordinates.min(0)) / 2  # what transform moves the map by
    placed = embedding.transform(new, perplexity=_NEAR, k=_BETWEEN)
    return np.asarray(np.array(placed) + middle)


def umap(reduced: Array, neighbours: int, steps: int, seed: int) -> Array:
    """UMAP of reduced codes (N, C): coordinates (N, 2), centred."""
    return centred(np.asarray(_umap(reduced, neighbours, steps, seed).embedding_, dtype=np.float64))


def onto_umap(reduced: Array, coordinates: Array, new: Array, neighbours: int, steps: int, seed: int) -> Array:
    """New codes (M, C) on a UMAP map; the graph of the old ones is built again, from the same seed."""
    fitted = _umap(reduced, neighbours, 0, seed)
    fitted.embedding_ = coordinates.astype(np.float32)
    fitted.n_epochs = steps  # a third of which new codes get
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(fitted.transform(new.astype(np.float32)), dtype=np.float64)


def centred(coordinates: Array) -> Array:
    """Coordinates (N, 2) around zero: the middle of their bounding box."""
    return np.asarray(coordinates - (coordinates.max(0) + coordinates.min(0)) / 2)


def threads() -> int:
    """How many threads a layout may use: as many as torch."""
    return torch.get_num_threads()


def _embedding(start: Array, affinities: Affinities, seed: int, jobs: int, way: str = "fft") -> Any:
    return TSNEEmbedding(start, affinities, negative_gradient_method=way, random_state=seed, n_jobs=jobs)


class _Known(Affinities):  # type: ignore[misc]  # openTSNE is not typed; it asks for a subclass
    """The codes of a map, to which new ones are neighbours; what was between themselves is over."""

    def __init__(self, reduced: Array, jobs: int) -> None:
        super().__init__()
        self.jobs = jobs
        self.count = len(reduced)
        self.search = NearestNeighbors(algorithm="brute", n_jobs=jobs).fit(reduced)
        self.P = csr_matrix((self.count, self.count))

    def to_new(self, data: Array, perplexity: float = _NEAR, return_distances: bool = False) -> Any:
        count = min(self.count, max(_BETWEEN, int(3 * perplexity)))
        distances, neighbours = self.search.kneighbors(data, n_neighbors=count)
        near = min(count, int(3 * perplexity))
        affinities = joint_probabilities_nn(
            neighbours[:, :near],
            distances[:, :near],
            [min(perplexity, near / 3)],
            symmetrize=False,
            normalization="point-wise",
            n_reference_samples=self.count,
            n_jobs=self.jobs,
        )
        return (affinities, neighbours, distances) if return_distances else affinities


def umap_class() -> Any:
    """UMAP's class; raises `MissingExtra` where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from umap import UMAP
    except ImportError as error:
        raise MissingExtra("UMAP", "umap", error.name or "umap-learn") from None
    return UMAP


def _umap(reduced: Array, neighbours: int, steps: int, seed: int) -> Any:
    start = along_axes(reduced)
    start *= 10 / (np.abs(start).max() or 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads, that a seed forbids, and of graphs in pieces
        return umap_class()(
            n_neighbors=neighbours, n_epochs=steps, init=start.astype(np.float32), random_state=seed, n_jobs=1
        ).fit(reduced.astype(np.float32))
