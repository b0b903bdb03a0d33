"""The self-test: each thing that can be off is put into a small net, and must be found and said in words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seewhy.classifier import Classifier
from seewhy.engine import Engine
from seewhy.errors import ModelError
from seewhy.zoo import Grey


def body(channels: int = 3, classes: int = 4) -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Conv2d(channels, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, classes)]


def wrap(*modules: nn.Module, **words: Any) -> Classifier:
    return Classifier(nn.Sequential(*modules), size=8, **words)


class Function(nn.Module):
    """A function of the logits as the last layer, and a parameter that makes nothing of it."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def test_a_sound_net_has_no_notes() -> None:
    assert wrap(*body(), labels=list("abcd")).notes == ()


def test_probabilities_are_refused_with_the_way_out() -> None:
    with pytest.raises(ModelError, match=r"probabilities, not logits.*probabilities=True"):
        wrap(*body(), nn.Softmax(1))


def test_probabilities_become_their_logarithm() -> None:
    plain, soft = wrap(*body()), wrap(*body(), nn.Softmax(1), probabilities=True)
    images = torch.rand(3, 3, 8, 8)
    torch.testing.assert_close(soft.logits(images), plain.logits(images).log_softmax(1))


def test_logits_said_to_be_probabilities_are_refused() -> None:
    with pytest.raises(ModelError, match="leave out probabilities=True"):
        wrap(*body(), probabilities=True)
    with pytest.raises(ModelError, match="leave out probabilities=True"):
        wrap(*body(), nn.LogSoftmax(1), probabilities=True)


def test_log_probabilities_are_noted() -> None:
    (note,) = wrap(*body(), nn.LogSoftmax(1)).notes
    assert "log-probabilities" in note


def test_sigmoids_are_noted() -> None:
    (note,) = wrap(*body(classes=12), nn.Sigmoid()).notes
    assert "sigmoid" in note


def test_one_channel_names_the_way_out_and_it_works() -> None:
    with pytest.raises(ModelError, match=r"one channel.*Grey\(\)"):
        wrap(*body(channels=1))
    grey = wrap(Grey(), *body(channels=1))
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(grey.logits(images), nn.Sequential(*body(channels=1))(images.mean(1, keepdim=True)))


def test_other_channels_are_named() -> None:
    with pytest.raises(ModelError, match="first convolution takes 5 channels"):
        wrap(*body(channels=5))


def test_wrong_size_names_features() -> None:
    with pytest.raises(ModelError, match=r"input of 9×9: a linear layer takes 216 features and gets 294"):
        Classifier(nn.Sequential(*body()), size=9)
    with pytest.raises(ModelError, match="2×2 is too small"):
        Classifier(nn.Sequential(*body()), size=2)


def test_weights_of_two_types_are_named() -> None:
    modules = body()
    modules[3].double()
    with pytest.raises(ModelError, match=r"float32 and float64; call module\.float\(\)"):
        wrap(*modules)
    assert wrap(*[module.double() for module in body()]).notes == ()


def test_nan_names_the_weights() -> None:
    modules = body()
    with torch.no_grad():
        next(modules[0].parameters())[0, 0, 0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"NaN or infinity.*0\.weight"):
        wrap(*modules)


def test_labels_must_fit() -> None:
    with pytest.raises(ModelError, match=r"expected 4 labels .* got 3"):
        wrap(*body(), labels=["a", "b", "c"])


def test_constant_answers_are_refused() -> None:
    with pytest.raises(ModelError, match="the same for every image"):
        wrap(*body(), Function(lambda z: z * 0 + torch.arange(4.0)))


def test_a_saturated_probe_is_not_taken_for_a_constant() -> None:
    """Two probes with equal answers are not enough: a net may tell bright noise from everything else alone."""
    net = wrap(Function(lambda x: torch.stack([(x.mean((1, 2, 3)) > 0.501).float(), x.new_zeros(len(x))], 1)))
    assert any("gradient" in note for note in net.notes)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda z: z.argmax(1), "real logits"),
        (lambda z: z[:, :1], "at least two classes"),
        (lambda z: z[:, 0], "shape"),
        (lambda z: z[:, :, None, None].expand(-1, -1, 5, 5), "segmentation"),
        (lambda z: z.reshape(1, -1), "2 rows for 2 images"),
        (lambda z: "cat", "got str"),
        (lambda z: {"a": z, "b": z}, "got dict"),
    ],
)
def test_answers_that_are_no_logits(function: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        wrap(*body(), Function(function))


def test_dropout_left_on_is_noted() -> None:
    (note,) = wrap(*body(), Function(lambda z: F.dropout(z, 0.5))).notes
    assert "differently each time" in note


def test_dependence_on_the_batch_is_noted() -> None:
    (note,) = wrap(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, track_running_stats=False), *body()[2:]).notes
    assert "other images of its batch" in note


def test_a_pass_that_changes_buffers_is_noted_and_undone() -> None:
    class Counts(nn.Module):
        seen: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.seen += len(x)
            return x

    counts = Counts()
    (note,) = wrap(counts, *body()).notes
    assert "a pass changes" in note
    assert "0.seen" in note
    assert counts.seen == 0


def test_a_pass_that_changes_parameters_is_noted() -> None:
    class Drifts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                self.scale.add_(1e-6)
            return x * self.scale.detach()

    (note,) = wrap(Drifts(), *body()).notes
    assert "0.scale" in note


def test_absurd_ranges_are_noted() -> None:
    assert "reach" in wrap(*body(), Function(lambda z: z * 1e6)).notes[0]
    assert "hardly apart" in wrap(*body(), Function(lambda z: z * 1e-6)).notes[0]


def test_a_cut_gradient_is_noted() -> None:
    (note,) = wrap(*body(), Function(lambda z: z.detach())).notes
    assert "no gradient" in note


def test_a_net_for_single_images_says_so() -> None:
    def only_one(x: Tensor) -> Tensor:
        return x.reshape(1, 3, 8, 8)

    with pytest.raises(ModelError, match=r"answers one image and fails on two.*Engine\(batch=1\)"):
        wrap(Function(only_one), *body())
    assert wrap(Function(only_one), *body(), engine=Engine(batch=1)).notes == ()


def test_any_other_failure_is_one_sentence() -> None:
    def fails(x: Tensor) -> Tensor:
        raise KeyError("no such thing")

    with pytest.raises(ModelError, match=r"fails on images of shape \(N, 3, 8, 8\): KeyError.*no such thing"):
        wrap(Function(fails), *body())


def test_no_generator_is_touched_and_lazy_layers_are_made() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    net = wrap(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(3), Function(lambda z: F.dropout(z, 0.1)))
    assert torch.equal(torch.rand(3), expected)
    assert net.classes == 3


def test_it_costs_three_images() -> None:
    seen: list[int] = []

    def look(x: Tensor) -> Tensor:
        seen.append(len(x))
        return x

    wrap(Function(look), *body())
    assert sum(seen) == 3
