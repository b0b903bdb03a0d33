"""The figures that results draw of themselves."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pytest
import torch

import seewhy as sw
from seewhy.data.images import Geometry, Images
from seewhy.errors import InputError


@pytest.fixture
def net() -> sw.Classifier:
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(6, 6, 3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(6, 3),
    )
    return sw.Classifier(module, size=16, labels=["$\\ant$", "$bee_$", "$\\fly$"])


@pytest.fixture
def images() -> Images:
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return Images(pixels, ("one", "two"), (Geometry((20, 40), (0.0, 0.0, 40.0, 20.0), (16, 16)), None))


def drawn(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def test_explanation_has_the_shape_on_the_photograph_and_its_scale(net: sw.Classifier, images: Images) -> None:
    found = sw.explain.GradCAM()(net, images, target=[0, 1])
    figure = found.plot()
    assert drawn(figure)
    pictures = [axes.get_images()[0].get_array() for axes in figure.axes if axes.get_images()]
    shapes = [picture.shape[:2] for picture in pictures if picture is not None]
    assert shapes[:2] == [(160, 320), (160, 320)], "squashed to a square by the model, drawn as on the photograph"
    assert shapes[2:] == [(320, 320), (320, 320)]
    bars = [axes for axes in figure.axes if not axes.get_images()]
    scale = np.quantile(found.heatmap(size=(4, 4))[0].numpy(), 0.5)
    assert len(bars) == 2
    assert bars[0].get_ylim()[1] > scale
    with pytest.raises(InputError, match="from 0 to 1"):
        found.plot(2)


def test_attack_says_its_factor_and_whether_it_fooled(net: sw.Classifier, images: Images) -> None:
    found = sw.attack.FGSM(eps=(1 / 255, 0.5))(net, images)
    for index in range(2):
        figure = found.plot(index)
        assert drawn(figure)
        titles = [axes.get_title() for axes in figure.axes]
        assert "difference × " in titles[2]
        fooled = bool(found.best[index] >= 0)
        assert titles[3].startswith("fooled at" if fooled else "not fooled up to")
    assert "image/png" in found._repr_html_()


def test_looks_draw_themselves(net: sw.Classifier, images: Images) -> None:
    assert drawn(sw.look.Filters()(net).plot())
    assert drawn(sw.look.Filters(layer="2", view="norm")(net).plot())
    assert drawn(sw.look.Activations(layer="1", channels=4)(net, images).plot(1))


def test_figures_leave_pyplot_alone(net: sw.Classifier, images: Images) -> None:
    sys.modules.pop("matplotlib.pyplot", None)
    sw.explain.Gradient()(net, images).plot(0)
    assert "matplotlib.pyplot" not in sys.modules
