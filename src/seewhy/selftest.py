"""The self-test of a classifier: two small passes, and in words what is off."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from seewhy.engine import out_of_memory
from seewhy.errors import ModelError, SeewhyError
from seewhy.rng import generator

if TYPE_CHECKING:
    from seewhy.classifier import Classifier


def examine(net: Classifier) -> tuple[str, ...]:
    """What a reader of the model's answers should know, one sentence each; cost: three forward images.

    Raises `ModelError` where every answer would be wrong: the module does not run on its own input size, answers
    no (N, classes) logits, NaN, probabilities instead of logits, the same for every image, or has other than one
    label for each output. The inputs come from a generator of their own, and the global ones stay as they were.
    A model whose engine is held to batches of one is examined with single images.

    >>> import torch
    >>> from seewhy.classifier import Classifier
    >>> softmax = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 8), torch.nn.Flatten(), torch.nn.Softmax(1))
    >>> try:
    ...     examine(Classifier(softmax, size=8, check=False))
    ... except ModelError as error:
    ...     print(str(error).split(";")[0])
    Sequential answers probabilities, not logits (each row sums to 1)
    """
    device = net.engine.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        if any(is_lazy(tensor) for tensor in (*net.module.parameters(), *net.module.buffers())):
            _run(net, probes(net.size)[:1])  # a lazy layer makes its weights in the first pass
        watch = _Watch(net.module)
        notes = _answers(net)
        return (*notes, *watch.changes(net.name))


def probes(size: tuple[int, int]) -> Tensor:
    """Two images (2, 3, H, W) that have little in common: noise, and a smooth run of colours."""
    height, width = size
    noise = torch.rand(3, height, width, generator=generator(0, "selftest"))
    down = torch.linspace(0, 1, height)[:, None].expand(height, width)
    across = torch.linspace(0, 1, width)[None, :].expand(height, width)
    return torch.stack([noise, torch.stack([down, across, 1 - down])])


def close(a: Tensor, b: Tensor) -> bool:
    """Whether two answers to the same images agree to rounding."""
    tolerance = 1e-3 if a.is_cuda else 1e-4  # tensor cores round float32 to ten bits where they may
    return bool((a - b).abs().max() <= tolerance * a.abs().max() + 1e-6)


def _answers(net: Classifier) -> list[str]:
    notes: list[str] = []
    images = probes(net.size)
    if net.engine.batch == 1:
        together = torch.cat([_run(net, image[None]) for image in images])
    else:
        together = _run(net, images)
        _expect_rows(net, together, len(images))
    alone, differentiable = _run_with_gradient(net, images[:1])

    if not together.isfinite().all():
        raise ModelError(f"{net.name} answers NaN or infinity for ordinary images{_not_finite(net.module)}")
    if net.labels_given and len(net.labels) != together.shape[1]:
        raise ModelError(
            f"expected {together.shape[1]} labels for {net.name}, one for each of its outputs, got {len(net.labels)}"
        )
    notes += _scale(net, together)
    if torch.equal(together[0], together[1]) and torch.equal(together[0], _run(net, 1 - images[:1])[0]):
        raise ModelError(
            f"{net.name} answers the same for every image: its output does not depend on its input (untrained models may "
            "begin with a last layer of zeros)"
        )
    if not close(together[:1], alone):
        again = _run(net, images[:1])
        if not close(alone, again):
            notes.append(
                f"{net.name} answers differently each time it is asked, in eval mode too: a dropout or noise written "
                "as a function, without training=self.training; no result repeats exactly"
            )
        else:
            notes.append(
                f"{net.name}'s answer for an image depends on the other images of its batch, in eval mode too: a "
                "normalisation over the batch (track_running_stats=False, say); use batches of one"
            )
    if not differentiable:
        notes.append(
            f"no gradient of {net.name} reaches its input (a detach() or no_grad() inside the model): methods and "
            "attacks that need gradients will refuse it"
        )
    return notes


def _scale(net: Classifier, answer: Tensor) -> list[str]:
    """What the values themselves say: probabilities, log-probabilities, sigmoids, an absurd range."""
    if net.answers_probabilities:
        total = answer.exp().sum(1)
        if not (total - 1).abs().max() < 1e-3:
            raise ModelError(
                f"{net.name} was said to answer probabilities, and its rows sum to {total[0].item():.4g}, not to 1; "
                "leave out probabilities=True"
            )
        return []
    if answer.min() >= 0 and (answer.sum(1) - 1).abs().max() < 1e-4:
        raise ModelError(
            f"{net.name} answers probabilities, not logits (each row sums to 1); take the softmax off its end, or say "
            "probabilities=True and their logarithm is used as logits"
        )
    if answer.max() <= 0 and answer.logsumexp(1).abs().max() < 1e-4:
        return [
            f"{net.name} answers log-probabilities (a log-softmax at its end): the same probabilities, but the "
            "gradient of a class also holds those of the others"
        ]
    if answer.numel() >= 16 and answer.min() > 0 and answer.max() < 1:
        return [
            f"every answer of {net.name} lies between 0 and 1, and rows do not sum to 1: perhaps a sigmoid at its end, "
            "one for each class; the probabilities shown here are a softmax over them"
        ]
    largest, spread = answer.abs().max().item(), (answer.max(1)[0] - answer.min(1)[0]).max().item()
    if largest > 1e3:
        return [f"{net.name}'s logits reach {largest:.3g}: probabilities will be 0 or 1; is the normalisation right?"]
    if spread < 1e-4:
        return [f"{net.name}'s logits lie within {spread:.2g} of each other: it tells the classes hardly apart"]
    return []


def _run(net: Classifier, images: Tensor) -> Tensor:
    with torch.no_grad():
        return _tried(net, images)


def _run_with_gradient(net: Classifier, images: Tensor) -> tuple[Tensor, bool]:
    with torch.enable_grad():
        answer = _tried(net, images.clone().requires_grad_())
    return answer.detach(), answer.requires_grad


def _tried(net: Classifier, images: Tensor) -> Tensor:
    try:
        answer = net.logits(images)
    except SeewhyError:
        raise
    except Exception as error:  # a module raises what it likes
        if out_of_memory(error):
            raise
        raise ModelError(_reason(net, images, error)) from error
    if not answer.is_floating_point() or answer.is_complex():
        raise ModelError(f"expected {net.name} to answer real logits, got {answer.dtype}")
    if answer.ndim != 2:
        hint = ": a class for each pixel (segmentation)?" if answer.ndim == 4 else ""
        raise ModelError(
            f"expected {net.name} to answer logits of shape (N, classes), got {tuple(answer.shape)} for "
            f"{len(images)} images{hint}"
        )
    if answer.shape[1] < 2:
        raise ModelError(
            f"expected {net.name} to answer at least two classes, got {answer.shape[1]}; where one output means yes, "
            "put a layer behind it that answers torch.cat([0 * z, z], 1)"
        )
    return answer.float()


def _expect_rows(net: Classifier, answer: Tensor, rows: int) -> None:
    if len(answer) != rows:
        raise ModelError(f"expected {net.name} to answer {rows} rows for {rows} images, got {len(answer)}{_ONE}")


_ONE = "; if it was made for batches of one image, give engine=Engine(batch=1)"


def _reason(net: Classifier, images: Tensor, error: Exception) -> str:
    """Why a module does not run on images (N, 3, H, W), in words, and the way out."""
    text = " ".join(str(error).split()) or type(error).__name__
    height, width = net.size
    channels = re.search(r"expected input.*? to have (\d+) channels, but got 3 channels", text)
    wanted = int(channels[1]) if channels else 3
    if wanted == 1:
        return (
            f"{net.name} takes images of one channel, and gets RGB; put a layer in front that averages the colours: "
            "torch.nn.Sequential(seewhy.zoo.Grey(), module), or grey=true in its spec"
        )
    if wanted != 3:
        return f"expected a model of RGB images, and {net.name}'s first convolution takes {wanted} channels"
    types = {tensor.dtype for tensor in net.module.parameters() if tensor.is_floating_point()}
    if len(types) > 1:
        found = " and ".join(sorted(str(each).removeprefix("torch.") for each in types))
        return f"expected weights of one type, and {net.name}'s are {found}; call module.float()"
    if any(tensor.device.type != net.engine.device.type for tensor in net.module.parameters()):
        return f"{net.name}'s weights are not on {net.engine.device}, where the engine runs; call net.to(device)"
    features = re.search(r"mat1 and mat2 shapes cannot be multiplied \(\d+x(\d+) and (\d+)x\d+\)", text)
    if features:
        return (
            f"{net.name} does not fit an input of {height}×{width}: a linear layer takes {features[2]} features and "
            f"gets {features[1]}; give the size that it was trained at (size=…)"
        )
    if re.search(r"[Kk]ernel size can't be greater|[Oo]utput size is too small|smaller than kernel", text):
        return f"an input of {height}×{width} is too small for {net.name}; give the one that it was trained at (size=…)"
    if len(images) > 1:
        try:
            with torch.no_grad():
                net.logits(images[:1])
        except Exception:  # noqa: BLE001  then the batch is not the reason
            pass
        else:
            return f"{net.name} answers one image and fails on two at once ({text[:200]}){_ONE}"
    return f"{net.name} fails on images of shape (N, 3, {height}, {width}): {type(error).__name__}: {text[:300]}"


def _not_finite(module: nn.Module) -> str:
    bad = [name for name, tensor in module.state_dict().items() if not tensor.isfinite().all()]
    return f"; its weights are not finite themselves: {', '.join(bad[:4])}" if bad else ""


class _Watch:
    """Sees whether parameters or buffers change, and puts changed buffers back."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
        self.versions = {name: _version(parameter) for name, parameter in module.named_parameters()}

    def changes(self, name: str) -> list[str]:
        buffers = dict(self.module.named_buffers())
        changed = [
            key
            for key, kept in self.buffers.items()
            if key in buffers and not torch.equal(torch.nan_to_num(kept), torch.nan_to_num(buffers[key]))
        ]
        with torch.no_grad():
            for key in changed:
                buffers[key].copy_(self.buffers[key])
        parameters = dict(self.module.named_parameters())
        changed += [key for key, seen in self.versions.items() if _version(parameters.get(key)) != seen]
        if not changed:
            return []
        return [
            f"a pass changes {name} itself, in eval mode too ({', '.join(changed[:3])}): an answer depends on the "
            "questions before it"
        ]


def _version(tensor: Tensor | None) -> tuple[int, int]:
    """Changes whenever the tensor is written to, or its memory replaced."""
    if tensor is None:
        return 0, 0
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version
