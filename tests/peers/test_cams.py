"""Every CAM beside pytorch-grad-cam's, on values before it scales them, on torchvision's networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seewhy.classifier import Classifier
from seewhy.method import parse

pytestmark = pytest.mark.slow
NETS = {"resnet18": "layer4", "vgg11": "features.19"}
SIDE = 96


@pytest.fixture(scope="module", params=NETS)
def net(request: pytest.FixtureRequest) -> tuple[Classifier, str]:
    import torchvision

    torch.manual_seed(0)
    module = getattr(torchvision.models, request.param)(weights=None).eval()
    for child in module.modules():
        if isinstance(child, nn.ReLU):
            child.inplace = False  # the peer's hooks cannot bear it
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return Classifier(module, mean=mean, std=std, size=SIDE, check=False), NETS[request.param]


def pictures(count: int = 1) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def theirs(net: Classifier, name: str, layers: list[str], images: Tensor, target: int) -> tuple[Tensor, Any]:
    """The peer's map of the first layer before scaling, and its scaled map of all."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    raw: list[Any] = []
    cls = getattr(pytorch_grad_cam, name)

    class Told(cls):  # type: ignore[misc, valid-type]
        def get_cam_image(self, *args: Any, **words: Any) -> Any:
            raw.append(super().get_cam_image(*args, **words))
            return raw[-1]

    modules = [net.module.get_submodule(layer) for layer in layers]
    with Told(model=net.module, target_layers=modules) as cam:
        targets = [ClassifierOutputTarget(target)] * len(images)
        scaled = cam(input_tensor=net.normalise(images), targets=targets)
    return torch.from_numpy(np.asarray(raw[0]))[:, None], scaled


PEERS = {
    "grad-cam": "GradCAM",
    "xgrad-cam": "XGradCAM",
    "hires-cam": "HiResCAM",
    "layer-cam": "LayerCAM",
    "score-cam": "ScoreCAM",
    "ablation-cam": "AblationCAM",
}


@pytest.mark.parametrize("name", PEERS)
def test_values_are_the_peers(net: tuple[Classifier, str], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier, layer = net
    count = 1 if name in ("score-cam", "ablation-cam") else 2
    target = int(classifier.predict(pictures()).argmax())
    found = parse(name)(classifier, pictures(count), target)
    assert found.layer == layer
    # the authors' own code enlarges maps without aligning corners; the peer aligns them
    monkeypatch.setattr(torch.nn, "UpsamplingBilinear2d", lambda size: nn.Upsample(size, mode="bilinear"))
    raw, _ = theirs(classifier, PEERS[name], [layer], pictures(count), target)
    if name == "ablation-cam":
        raw = raw * found.score.view(-1, 1, 1, 1)  # the peer's weights are divided by the logit
    if name == "score-cam":
        raw = raw * (found.values.norm() / raw.norm())  # the peer shares the softmax with maps that are empty
    expected = raw if name == "hires-cam" else raw.clamp_min(0)
    assert expected.abs().max() > 0
    assert float((found.values - expected).norm() / expected.norm()) <= 1e-3


def test_grad_cam_plus_plus_is_the_peers_where_gradients_are_not_tiny(net: tuple[Classifier, str]) -> None:
    # the peer adds 1e-6 to a denominator of squared gradients, which are smaller than that in these networks as they come
    classifier, layer = net
    with torch.no_grad():
        last = [child for child in classifier.module.modules() if isinstance(child, nn.Linear)][-1]
        last.weight.mul_(1000)
    try:
        found = parse("grad-cam++")(classifier, pictures(), 7).values
        raw, _ = theirs(classifier, "GradCAMPlusPlus", [layer], pictures(), 7)
    finally:
        with torch.no_grad():
            last.weight.div_(1000)
    assert float((found - raw.clamp_min(0)).norm() / raw.norm()) <= 1e-2


def test_eigen_cam_is_the_peers_where_it_does_not_centre(
    net: tuple[Classifier, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pytorch_grad_cam import eigen_cam

    classifier, layer = net
    found = parse("eigen-cam")(classifier, pictures(2), 7).values
    project = eigen_cam.get_2d_projection

    def uncentred(maps: Any) -> Any:
        """The peer centres, as the paper does not: beside their negatives maps are centred, and have the same directions."""
        return project(np.concatenate([maps, -maps], axis=2))[:, : maps.shape[2]]

    centred, _ = theirs(classifier, "EigenCAM", [layer], pictures(2), 7)
    monkeypatch.setattr(eigen_cam, "get_2d_projection", uncentred)
    raw, _ = theirs(classifier, "EigenCAM", [layer], pictures(2), 7)
    raw, centred = (each * each.sum((1, 2, 3), keepdim=True).sign() for each in (raw, centred))
    assert float((found - raw).norm() / raw.norm()) <= 1e-3
    assert float((found - centred).norm() / centred.norm()) > 0.1  # what centring changes


def test_several_layers_together_look_like_the_peers(net: tuple[Classifier, str]) -> None:
    classifier, layer = net
    earlier = "layer3" if layer == "layer4" else "features.12"
    found = parse(f"layer-cam:layer={earlier}+{layer}")(classifier, pictures(), 7).heatmap()[0]
    _, scaled = theirs(classifier, "LayerCAM", [earlier, layer], pictures(), 7)
    pair = torch.stack([found.flatten(), torch.from_numpy(scaled)[0].flatten()])
    assert float(torch.corrcoef(pair)[0, 1]) > 0.97
