"""The one pixel contract: any image classifier, with its pixels and its names."""

from __future__ import annotations

import hashlib
import operator
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from seewhy.data.images import Images, Preprocess
from seewhy.engine import Engine, count
from seewhy.errors import InputError, ModelError, NothingToExplain, nearest

if TYPE_CHECKING:
    import os

Target = int | str | Sequence[int | str] | Tensor | None
Lens = Callable[[], AbstractContextManager[object]]
Score = Callable[[Tensor], Tensor]


class Classifier:
    """An image classifier: a module, its normalisation, its input size and the names of its classes.

    `images` are float32 RGB (N, 3, H, W) in [0, 1]; the module gets (images − mean) / std and answers logits (N, C).
    The module is evaluated in eval mode with frozen parameters; its modes, flags, parameters, buffers and hooks are
    as before after every call, also after an exception. Where the module answers a tuple, a dictionary or a Hugging
    Face output, the logits are taken out of it.

    Args:
        module: any `torch.nn.Module` on images.
        mean, std: a number for each channel, in [0, 1] pixels.
        size: side or (height, width) of the input, in pixels.
        preprocess: how a photograph becomes that input, if not by the plain resize and centre crop.
        labels: a name for each output.
        probabilities: the module answers probabilities; their logarithm is taken as logits.
        check: run the self-test; what it finds stands in `notes`, what makes every answer wrong raises `ModelError`.

    >>> import torch
    >>> from torch import nn
    >>> module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> net = Classifier(module, size=8, labels=["cat", "dog"])
    >>> net.logits(torch.rand(5, 3, 8, 8)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        size: int | tuple[int, int] | None = None,
        preprocess: Preprocess | None = None,
        labels: Sequence[str] | None = None,
        name: str = "",
        notes: Sequence[str] = (),
        probabilities: bool = False,
        engine: Engine | None = None,
        check: bool = True,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise ModelError(f"expected a torch.nn.Module, got {type(module).__name__}")
        if preprocess is None:
            if size is None:
                raise ModelError("expected the size of the model's input: size=224, or preprocess=Preprocess(...)")
            preprocess = Preprocess((size, size) if isinstance(size, int) else size)
        if len(mean) != 3 or len(std) != 3 or not all(value > 0 for value in std):
            raise ModelError(f"expected three means and three positive deviations, got {mean} and {std}")
        self.module = module
        self.preprocess = preprocess
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self.name = name or type(module).__name__
        if engine is None:
            first = next(module.parameters(), None)
            engine = Engine() if first is None else Engine(first.device)
        self.engine = engine
        self.notes: tuple[str, ...] = tuple(notes)
        self.code: str | None = None  # SHA-256 of the file of code or of a graph that the module was made from
        self.answers_probabilities = probabilities
        self._lock = threading.RLock()
        self._depth = 0
        self._modules: list[nn.Module] = []  # of the session that is on
        self._labels: tuple[str, ...] | None = None if labels is None else tuple(map(str, labels))
        self.labels_given = labels is not None
        self._classes: int | None = None
        if check:
            from seewhy.selftest import examine

            self.notes += examine(self)

    # What it is

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the input, in pixels."""
        return self.preprocess.size

    @property
    def classes(self) -> int:
        """The number of outputs."""
        if self._classes is None:
            with torch.no_grad():
                self._classes = self.logits(torch.zeros(1, 3, *self.size)).shape[1]
        return self._classes

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each output; "class 0", "class 1", … where the model came without."""
        if self._labels is None:
            self._labels = tuple(f"class {i}" for i in range(self.classes))
        return self._labels

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the names, types, shapes and values of parameters and buffers, as found when first asked."""
        digest = hashlib.sha256()
        for key, value in sorted(self.module.state_dict().items()):
            if isinstance(value, Tensor):
                digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
                flat = value.detach().cpu().contiguous().reshape(-1)
                digest.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
        return digest.hexdigest()

    @property
    def parameters(self) -> int:
        """The number of parameters."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def __repr__(self) -> str:
        height, width = self.size
        return f"Classifier({self.name!r}, {height}×{width}, {self.classes} classes, {self.parameters:,} parameters)"

    def to(self, device: str | torch.device) -> Classifier:
        """Move the module to a device; answers itself."""
        self.engine.device = torch.device(device)
        self.module.to(self.engine.device)
        return self

    # Passes

    def read(self, *paths: str | os.PathLike[str]) -> Images:
        """Read photographs as this model sees them; the geometry is kept, so that maps can be laid over them."""
        from seewhy.data.photo import read

        return Images.join([read(Path(path), self.preprocess) for path in paths])

    def normalise(self, images: Tensor) -> Tensor:
        """What the module gets: (images − mean) / std on the engine's device, in its weights' type and layout."""
        with self.session():
            device, dtype = self.engine.device, self._dtype
            mean = torch.tensor(self.mean, device=device, dtype=dtype).view(1, 3, 1, 1)
            std = torch.tensor(self.std, device=device, dtype=dtype).view(1, 3, 1, 1)
            given = (images.to(device, dtype, non_blocking=True) - mean) / std
            return given.contiguous(memory_format=torch.channels_last) if self._channels_last else given

    def logits(self, images: Tensor, lens: Lens | None = None, *, normalised: bool = False) -> Tensor:
        """Logits (N, C) of images (N, 3, H, W), differentiable with respect to the images. One forward pass.

        `lens` makes a context in which the module runs; it sees the module's operations and nothing else. Images that
        `normalise` answered are given as they are with `normalised`.
        """
        self._check_shape(images)
        with self.session(), self.engine.autocast():
            given = images if normalised else self.normalise(images)
            count(forward=len(images))
            with lens() if lens else nullcontext():
                answer = self.module(given)
            return self._unwrap(answer)

    def gradient(
        self,
        images: Tensor,
        score: Callable[[Tensor, slice], Tensor],
        lens: Lens | None = None,
        logits: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Gradient of a score with respect to the images; answers (scores (N,), gradients (N, 3, H, W)).

        `score(logits, where)` gives a number (n,) for each image of a part, `where` being the part's slice. One forward
        and one backward pass an image, in the engine's batches; or K backward passes for (n, K) scores, and then gradients
        (N, K, 3, H, W). `logits(part)` stands in for the module's whole pass, and then what it takes for `images`. Raises
        `NothingToExplain` where the score does not depend on the images.
        """
        scores: list[Tensor] = []
        answer = logits or (lambda part: self.logits(part, lens))

        def run(part: Tensor, where: slice) -> Tensor:
            with torch.enable_grad():
                leaf = part.detach().clone().requires_grad_()
                scored = score(answer(leaf), where)
                if not scored.requires_grad:
                    raise NothingToExplain(
                        f"the output of {self.name} does not depend on its input by any differentiable way; "
                        "a detach(), an argmax or a no_grad() inside the model cuts it off"
                    )
                several = scored.sum(0).view(-1)
                each = [
                    torch.autograd.grad(one, leaf, retain_graph=left > 0)[0]
                    for left, one in zip(range(len(several) - 1, -1, -1), several, strict=True)
                ]
            count(backward=len(each) * len(part))
            parts.append((where.start, scored.detach()))
            return each[0] if scored.ndim == 1 else torch.stack(each, 1)

        parts: list[tuple[int, Tensor]] = []
        gradients = self.engine.map(run, images, "gradient")
        kept = dict(parts)  # the measurement of batch sizes came first
        position = 0
        while position < len(images):
            scores.append(kept[position])
            position += len(kept[position])
        return torch.cat(scores), gradients

    def backwards(self, images: Tensor, work: Callable[[Tensor, slice, Callable[[Tensor], Tensor]], Tensor]) -> Tensor:
        """What `work(logits, where, gradient)` answers for each part of the images, joined, from one forward pass.

        `gradient(scores)` is the gradient (n, 3, H, W) of scores (n,), for one backward pass: the logits say how many it
        takes, and none is kept that is not asked for.
        """

        def run(part: Tensor, where: slice) -> Tensor:
            with torch.enable_grad():
                leaf = part.detach().clone().requires_grad_()
                logits = self.logits(leaf)

                def gradient(scores: Tensor) -> Tensor:
                    count(backward=len(part))
                    return torch.autograd.grad(scores.sum(), leaf, retain_graph=True)[0]

                return work(logits, where, gradient)

        return self.engine.map(run, images, "gradient")

    def predict(self, images: Tensor | Images) -> Tensor:
        """Logits (N, C) without gradients, in the engine's batches; softmax over them gives probabilities."""
        pixels = self.check(images)
        with torch.no_grad():
            return self.engine.map(lambda part, _: self.logits(part).float(), pixels, "forward")

    # Contract

    def check(self, images: Tensor | Images) -> Tensor:
        """The pixels of images that keep the contract; raises `InputError`, saying what was expected, otherwise."""
        pixels = images.pixels if isinstance(images, Images) else images
        if not isinstance(pixels, Tensor):
            raise InputError(f"expected images as a tensor (N, 3, H, W) in [0, 1], got {type(pixels).__name__}")
        self._check_shape(pixels)
        if not len(pixels):
            raise InputError("expected at least one image, got none")
        low, high = pixels.min().item(), pixels.max().item()
        if not (low >= -1e-6 and high <= 1 + 1e-6):
            way_out = {
                True: "divide by 255",
                False: "the model normalises inside itself: give plain pixels (NaN is not a pixel either)",
            }[low >= 0 and high > 2]
            raise InputError(f"expected pixels in [0, 1], got {low:.3g} to {high:.3g}; {way_out}")
        return pixels

    def targets(self, target: Target, images: Tensor | Images) -> Tensor:
        """Class indices (N,) of a target: an index or name, one for each image, or None for the predicted classes."""
        n = len(images)
        if target is None:
            return self.predict(images).argmax(1).cpu()
        if isinstance(target, Tensor):
            target = target.tolist()
        wanted = list(target) if isinstance(target, Iterable) and not isinstance(target, str) else [target] * n
        if len(wanted) != n:
            raise InputError(f"expected one target, or one for each of the {n} images, got {len(wanted)}")
        return torch.tensor([self.index(each) for each in wanted])

    def index(self, wanted: int | str) -> int:
        """The index of a class by index or by name; raises `InputError` with the nearest names.

        A name is first looked for as it is written, then in any case, then among the synonyms of labels such as
        "tabby, tabby cat". Digits that are no label are an index.
        """
        if isinstance(wanted, str):
            named = self._named(wanted.strip())
            if len(named) > 1:
                indices = " or ".join(map(str, named))
                raise InputError(f'{self.name} has several classes "{wanted}"; give the index: {indices}')
            if named:
                return named[0]
            if not wanted.strip().lstrip("-").isdecimal():
                names = (name.strip() for label in self.labels for name in (label, *label.split(",")))
                raise InputError(f'{self.name} has no class "{wanted}"{nearest(wanted, names)}')
            wanted = int(wanted)
        try:
            index = operator.index(wanted)
        except TypeError:
            raise InputError(f"expected a class by index or name, got {wanted!r}") from None
        if not 0 <= index < self.classes:
            raise InputError(f"expected a class from 0 to {self.classes - 1}, got {index}")
        return index

    def _named(self, wanted: str) -> list[int]:
        """The classes of a name, by the strictest spelling that finds any."""
        small = wanted.lower()
        spellings: tuple[Callable[[str], bool], ...] = (
            lambda label: label == wanted,
            lambda label: label.lower() == small,
            lambda label: small in (synonym.strip() for synonym in label.lower().split(",")),
        )
        for fits in spellings:
            found = [i for i, label in enumerate(self.labels) if fits(label)]
            if found:
                return found
        return []

    @contextmanager
    def session(self) -> Iterator[None]:
        """Inside, the module is in eval mode, its parameters ask for no gradient, and a GPU computes as `exact` says.

        After it, all is as it was.
        """
        with self._lock:
            if self._depth:
                yield
                return
            self._modules = list(self.module.modules())
            modes = [module for module in self._modules if module.training]
            wanting = [parameter for parameter in self._made_parameters() if parameter.requires_grad]
            self._depth = 1
            try:
                for module in modes:
                    module.training = False
                for parameter in wanting:
                    parameter.requires_grad_(False)
                with self.engine.exact():
                    yield
            finally:
                self._depth = 0
                for module in modes:
                    module.training = True
                for parameter in wanting:
                    parameter.requires_grad_(True)

    def _made_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters, but those of lazy layers that have not seen an input yet; inside a session."""
        for module in self._modules:
            for parameter in module._parameters.values():
                if parameter is not None and not is_lazy(parameter):
                    yield parameter

    @property
    def _dtype(self) -> torch.dtype:
        floating = (p.dtype for p in self._made_parameters() if p.is_floating_point())
        return next(floating, torch.float32)

    @property
    def _channels_last(self) -> bool:
        for parameter in self._made_parameters():
            if parameter.ndim == 4 and min(parameter.shape[1:]) > 1:
                return parameter.is_contiguous(memory_format=torch.channels_last)
        return False

    def _check_shape(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != 3:
            raise InputError(f"expected images (N, 3, H, W), got {tuple(images.shape)}")
        if not images.is_floating_point():
            raise InputError(f"expected float pixels in [0, 1], got {images.dtype}; divide by 255")

    def _unwrap(self, answer: object) -> Tensor:
        found: object = getattr(answer, "logits", None)  # an output object or a named tuple
        if isinstance(answer, Tensor):
            found = answer
        elif isinstance(answer, Mapping):
            named = [answer[key] for key in ("logits", "out", "output") if isinstance(answer.get(key), Tensor)]
            tensors = [value for value in answer.values() if isinstance(value, Tensor)]
            found = named[0] if named else tensors[0] if len(tensors) == 1 else None
        elif not isinstance(found, Tensor) and isinstance(answer, tuple | list):
            found = answer[0] if answer else None
        if not isinstance(found, Tensor):
            raise ModelError(
                f"expected {self.name} to answer logits (a tensor, or one named logits in a tuple, dictionary or "
                f"output object), got {type(answer).__name__}; wrap it in a module that answers them"
            )
        if found.ndim == 4 and found.shape[2:] == (1, 1):
            found = found.flatten(1)
        if self.answers_probabilities:
            found = found.clamp_min(torch.finfo(found.dtype).tiny).log()
        return found
