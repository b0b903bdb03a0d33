"""LIME beside the lime package: the same masks and answers give the same coefficients, and so does its own whole run."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nets import Mobile, classifier, photos
from seewhy.explain import Lime, lime
from seewhy.explain.lime import lasso
from seewhy.explain.players import play, segments

pytestmark = pytest.mark.slow
lime_base = pytest.importorskip("lime.lime_base")
lime_image = pytest.importorskip("lime.lime_image")
WIDTH = 0.3


def kernel(distance: Any, kernel_width: float = WIDTH) -> Any:
    return np.exp(-(distance**2) / kernel_width**2)


def values_of(explained: list[tuple[int, float]], count: int) -> np.ndarray[Any, Any]:
    values = np.zeros(count)
    for segment, value in explained:
        values[segment] = value
    return values


@pytest.mark.parametrize(("ridge", "features"), [(1.0, 0), (0.0, 0), (0.0, 6)])
def test_the_same_masks_give_the_same_coefficients(
    monkeypatch: pytest.MonkeyPatch, ridge: float, features: int
) -> None:
    from sklearn.linear_model import Ridge

    net, image = classifier(Mobile(nn.SiLU)), photos(1)
    seen: list[tuple[Tensor, Tensor]] = []

    def watched(*given: Any) -> Tensor:
        seen.append((given[4], play(*given)))
        return seen[-1][1]

    monkeypatch.setattr(lime, "play", watched)
    method = Lime(segments="grid", count=16, samples=400, tolerance=0, ridge=ridge, features=features)
    found = method(net, image, 2)
    kept = torch.cat([each for each, _ in seen]).double().numpy()
    answers = torch.cat([each for _, each in seen]).double().numpy()
    base = lime_base.LimeBase(np.ones_like, random_state=0)  # our masks are drawn by the kernel: they weigh the same
    _, explained, score, _ = base.explain_instance_with_data(
        kept, answers, np.ones(400), 2, features or 16, "lasso_path" if features else "none", Ridge(alpha=ridge)
    )
    labels = segments(image[0], "grid", 16)
    ours = [float(found.values[0, 0][labels == each][0]) for each in range(16)]
    np.testing.assert_allclose(ours, values_of(explained, 16), rtol=1e-4, atol=1e-6)
    terms = features or 16
    adjusted = 1 - (1 - score) * 399 / (399 - terms)
    assert found.measures["R²"].item() == pytest.approx(adjusted, abs=1e-5)


def test_weighted_fits_and_the_lassos_choices_are_the_packages() -> None:
    draw = torch.Generator().manual_seed(0)
    for trial in range(20):
        kept = torch.rand(300, 12, generator=draw) < 0.5
        answers = kept.double() @ torch.randn(12, generator=draw).double() + torch.randn(300, generator=draw)
        distances = 1 - kept.double().mean(1).sqrt()
        weights = torch.exp(-((distances / WIDTH) ** 2))
        features = 1 + trial % 8
        base = lime_base.LimeBase(kernel, random_state=0)
        theirs = base.feature_selection(kept.double().numpy(), answers.numpy(), weights.numpy(), features, "lasso_path")
        assert lasso(kept.double(), answers, weights, features).tolist() == sorted(theirs.tolist())


def test_a_long_run_of_the_package_lies_within_our_intervals() -> None:
    net, image = classifier(Mobile(nn.ReLU6)), photos(1)
    labels = segments(image[0], "grid", 16)
    explainer = lime_image.LimeImageExplainer(kernel_width=WIDTH, kernel=kernel, random_state=1)

    def logits(batch: Any) -> Any:
        return net.predict(torch.from_numpy(batch).permute(0, 3, 1, 2).float()).numpy()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = explainer.explain_instance(
            image[0].permute(1, 2, 0).numpy(), logits, labels=(1,), top_labels=None, hide_color=0.5,
            num_samples=8000, batch_size=64, segmentation_fn=lambda _: labels.numpy(),
        )  # fmt: skip
    expected = values_of(theirs.local_exp[1], 16)
    found = Lime(segments="grid", count=16, width=WIDTH, tolerance=0, samples=4000)(net, image, 1)
    assert found.standard_error is not None
    at = [(labels == each).nonzero()[0].tolist() for each in range(16)]
    ours = np.array([float(found.values[0, 0, y, x]) for y, x in at])
    errors = np.array([float(found.standard_error[0, 0, y, x]) for y, x in at])
    shrunk = np.abs(expected).max() * 2e-3  # by its ridge of 1
    assert np.abs(ours - expected).max() < 4.5 * errors.max() + shrunk
    assert np.corrcoef(ours, expected)[0, 1] > 0.995
