"""What every source of models shares: its options, what it finds, weights read safely, and the sidecar file."""

from __future__ import annotations

import hashlib
import importlib
import json
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import torch
from torch import Tensor, nn

from seewhy.data.images import Fit, Interpolation, Preprocess
from seewhy.errors import MissingExtra, ModelError, SpecError, nearest

#: the mean and deviation of ImageNet's pixels that most of its models were trained with
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Options:
    """What a spec string may say behind the name, `,key=value` each; what is None comes from the source.

    `weights` is `none` (random ones), the path of a state dict, or a name that the source knows. `size` is a side, or
    height+width. `labels` is a file: one name a line, or JSON. `grey` gives the model one channel, the
    colours' mean. `views` of 2 or 4 averages the logits over a picture's mirror images, at so many times the cost.
    """

    weights: str = ""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: tuple[int, ...] | None = None
    resize: int | None = None
    fit: str | None = None
    interpolation: str | None = None
    labels: str | None = None
    probabilities: bool | None = None
    grey: bool = False
    views: int = 1
    trust_pickle: bool = False

    @property
    def side(self) -> tuple[int, int] | None:
        """`size` as (height, width)."""
        return (self.size[0], self.size[-1]) if self.size else None

    @property
    def random(self) -> bool:
        return self.weights.lower() == "none"


@dataclass(frozen=True)
class Found:
    """A model as its source gives it; None where the source does not say. `file` is that of its code or its graph."""

    module: nn.Module
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    preprocess: Preprocess | None = None
    labels: Sequence[str] | None = None
    probabilities: bool = False
    notes: tuple[str, ...] = ()
    random: bool = False
    file: Path | None = None

    def given(self, options: Options) -> Found:
        """With what the user's options say in place of what the source says."""
        preprocess = self.preprocess
        size = options.side
        if size is not None and preprocess is not None and preprocess.resize is not None:
            scaled = round(preprocess.resize * min(size) / min(preprocess.size))
            preprocess = replace(preprocess, size=size, resize=scaled)
        elif size is not None:
            preprocess = replace(preprocess, size=size) if preprocess is not None else Preprocess(size)
        if preprocess is not None:
            preprocess = prepared_by(
                {"resize": options.resize, "fit": options.fit, "interpolation": options.interpolation}, preprocess
            )
        return replace(
            self,
            preprocess=preprocess,
            mean=options.mean or self.mean,
            std=options.std or self.std,
            labels=read_labels(Path(options.labels)) if options.labels else self.labels,
            random=self.random or options.random,
            probabilities=self.probabilities if options.probabilities is None else options.probabilities,
        )


class Grey(nn.Module):
    """In front of a model of one channel: the mean of the three colours, (N, 3, H, W) to (N, 1, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True)


class BlueFirst(nn.Module):
    """In front of a model that takes blue, green and red: the channels in reverse order."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(x.split(1, 1)[::-1], 1)  # not flip(), after which an occlusion has all computed anew


class Views(nn.Module):
    """The mean of a model's logits over a picture and its mirror images: left to right (2), and top to bottom too (4)."""

    def __init__(self, module: nn.Module, count: int) -> None:
        super().__init__()
        self.module = module
        self.mirrors = ((), (3,), (2,), (2, 3))[:count]

    def forward(self, x: Tensor) -> Any:
        found = [self.module(x.flip(mirror) if mirror else x) for mirror in self.mirrors]
        return torch.stack(found).mean(0)


_ONE_BY_ONE = (
    "exported for one image at a time: images are run one by one, which is slower than batches; export it again with a "
    "free batch size"
)


class Single(nn.Module):
    """A model that was exported for batches of one image, and says so when it gets more."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Any:
        if len(x) != 1:
            raise ModelError(
                f"this model was exported for one image at a time, and got {len(x)}; set the engine's batch to 1, or "
                "export it again with a free batch size"
            )
        return self.module(x)


def need(package: str, extra: str, what: str) -> ModuleType:
    """Import a package of an extra; raises `MissingExtra`, or `ModelError` where it is there and broken."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise MissingExtra(what, extra, error.name or package) from None
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        # torchvision's compiled operators fail so beside another torch, and take the packages that import it with them
        raise ModelError(
            f"{what} needs {package}, which is installed and fails at its import ({_line(error)}); torch "
            f"{torch.__version__} and torchvision must be of one release and one kind (CPU or CUDA): install both "
            "again together"
        ) from error


def unavailable(what: str, error: BaseException) -> ModelError:
    """The error for weights or settings that could not be fetched."""
    return ModelError(
        f"could not fetch {what} ({_line(error)}); without a network, give a file of weights (weights=PATH), a model "
        "from a local folder, or random weights (weights=none)"
    )


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


# Weights


def existing(path: Path, what: str) -> Path:
    """The path, a leading ~ expanded, if there is such a file."""
    path = path.expanduser()
    if path.is_file():
        return path
    beside = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
    kind = "is a folder" if path.is_dir() else "does not exist"
    raise ModelError(f"expected {what} at {path}, which {kind}{nearest(path.name, beside)}")


def read_weights(path: Path, trust_pickle: bool = False) -> dict[str, Tensor]:
    """The tensors by name that a file of weights holds: safetensors, or what `torch.save` wrote.

    Pickles are read with `weights_only=True`; one that needs more is refused unless trusted, for reading it runs
    whatever code it names. A state dict may lie inside a checkpoint; prefixes that wrappers leave are stripped.
    """
    path = existing(path, "weights")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(f"{path} cannot be read as safetensors: {_line(error)}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a pickle is of another protocol than torch writes
            held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wants_more = re.search(r"Unsupported (?:global|class|operand)|WeightsUnpickler|GLOBAL", str(error))
        if not wants_more or "invalid load key" in str(error):
            raise ModelError(f"{path} is no file of weights that torch can read: {_line(error)}") from error
        if not trust_pickle:
            named = re.search(r"(?:GLOBAL|global:?)\s+([\w.]+)", str(error))
            raise ModelError(
                f"{path} holds more than tensors{f' ({named[1]})' if named else ''}, and reading it could run any "
                "code; save model.state_dict() instead, or trust it by --trust-pickle (trust_pickle=True) if you know "
                "its maker"
            ) from None
        try:
            held = torch.load(path, map_location="cpu", weights_only=False)
        except Exception as inner:  # a pickle can fail in any way
            raise ModelError(f"{path} cannot be read: {_line(inner)}") from inner
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is no file of weights that torch can read: {_line(error)}") from error
    return _state_dict(held, path)


def _state_dict(held: object, path: Path) -> dict[str, Tensor]:
    if isinstance(held, nn.Module):
        held = held.state_dict()
    if isinstance(held, Mapping):
        for key in ("state_dict", "model_state_dict", "model", "net", "module", "params"):
            inside = held.get(key)
            inside = inside.state_dict() if isinstance(inside, nn.Module) else inside
            if isinstance(inside, Mapping) and inside and all(isinstance(each, Tensor) for each in inside.values()):
                held = inside
                break
        tensors = {str(key): value for key, value in held.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
    raise ModelError(f"expected a state dict (names and tensors) in {path}, got {type(held).__name__}")


def fill(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Put weights into a module; raises `ModelError` naming the missing, unexpected and wrong-shaped keys.

    Prefixes that wrappers leave (`module.` of DataParallel, `_orig_mod.` of torch.compile) are stripped where the
    module has no such names; BatchNorm's counters may be missing.
    """
    own = module.state_dict()
    given = dict(weights)
    for prefix in ("module.", "_orig_mod.", "module.", "model."):
        if all(key.startswith(prefix) for key in given) and not any(key.startswith(prefix) for key in own):
            given = {key.removeprefix(prefix): value for key, value in given.items()}
    missing = [key for key in own if key not in given and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in given if key not in own]
    shapes = [
        f"{key} {tuple(given[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in given and given[key].shape != own[key].shape
    ]
    wrong = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    if any(wrong.values()):
        told = "; ".join(f"{len(keys)} {word}: {_some(keys)}" for word, keys in wrong.items() if keys)
        raise ModelError(f"the weights of {source} do not fit the model: {told}")
    module.load_state_dict(given, strict=False)


def _some(keys: Sequence[str], most: int = 4) -> str:
    return ", ".join(keys[:most]) + (", …" if len(keys) > most else "")


# What lies beside the weights


def described(module: nn.Module, weights: Path) -> Found:
    """A model with what the sidecar says: the JSON file beside its weights, of the same name.

    Its keys are mean, std (three numbers each), size (a number, or [height, width]), resize, fit, interpolation,
    labels (a list of names), probabilities and sha256 (of the weights, checked). Any other key is a record for people.
    """
    path = weights.with_suffix(".json")
    if not path.is_file() or path == weights:
        return Found(module)
    plain = _read_json(path)
    if not isinstance(plain, dict):
        raise ModelError(f"expected a JSON object with keys such as mean, std, size and labels in {path}")

    def numbers(key: str, counts: tuple[int, ...]) -> tuple[float, ...] | None:
        value = plain.get(key)
        value = [value] if isinstance(value, int | float) else value
        if value is None:
            return None
        whole = isinstance(value, list) and all(isinstance(each, int | float) for each in value)
        if not whole or len(value) not in counts:
            wanted = " or ".join(map(str, counts))
            raise ModelError(f"expected {wanted} numbers for {key} in {path}, got {plain[key]!r}")
        return tuple(value)

    labels = plain.get("labels")
    if labels is not None and not (isinstance(labels, list) and all(isinstance(each, str) for each in labels)):
        raise ModelError(f"expected a list of names for labels in {path}, got {labels!r:.80}")
    if "sha256" in plain and hashlib.sha256(weights.read_bytes()).hexdigest() != plain["sha256"]:
        raise ModelError(f"{weights} is not the file that {path.name} describes (its SHA-256 differs)")
    size = numbers("size", (1, 2))
    preprocess = None
    if size is not None:
        height, width = (int(each) for each in (size * 2)[:2])
        preprocess = prepared_by(plain, Preprocess((height, width)), f" in {path}")
    return Found(
        module,
        numbers("mean", (3,)),
        numbers("std", (3,)),
        preprocess,
        labels,
        bool(plain.get("probabilities", False)),
    )


def prepared_by(plain: Mapping[str, Any], base: Preprocess, where: str = "") -> Preprocess:
    """A recipe with the values of plain keys: resize, fit and interpolation, checked."""
    for key, kind in (("fit", Fit), ("interpolation", Interpolation)):
        value = plain.get(key)
        if value is not None and value not in get_args(kind):
            raise SpecError(f'expected {key} to be one of {", ".join(get_args(kind))}{where}, got "{value}"')
    resize = plain.get("resize")
    if resize is not None and not (isinstance(resize, int) and resize > 0):
        raise SpecError(f"expected resize as a number of pixels{where}, got {resize!r}")
    return replace(
        base,
        resize=resize or base.resize,
        fit=plain.get("fit") or base.fit,
        interpolation=plain.get("interpolation") or base.interpolation,
    )


def read_labels(path: Path) -> tuple[str, ...]:
    """Class names of a file: one a line (lines that begin with # at its head are comments), or JSON.

    The JSON is a list, an object of index and name, or either of them under the key `labels`.
    """
    path = existing(path, "labels")
    if path.suffix == ".json":
        plain = _read_json(path)
        plain = plain["labels"] if isinstance(plain, dict) and "labels" in plain else plain
        if isinstance(plain, dict):
            if sorted(plain) != sorted(str(i) for i in range(len(plain))):
                raise ModelError(f"expected the indices 0 to {len(plain) - 1} as keys of the labels in {path}")
            plain = [plain[str(i)] for i in range(len(plain))]
        if not isinstance(plain, list):
            raise ModelError(f"expected a list of labels in {path}, got {type(plain).__name__}")
        return tuple(map(str, plain))
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError:
        raise ModelError(f"expected labels as text, one a line, in {path}, which is no UTF-8 text") from None
    while lines and lines[0].startswith("#"):
        lines.pop(0)
    while lines and not lines[-1]:
        lines.pop()
    return tuple(lines)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {_line(error)}") from error


def for_batches(module: nn.Module, size: tuple[int, int]) -> tuple[nn.Module, tuple[str, ...]]:
    """An imported graph as it is if it takes batches, or held to single images, with a note saying so.

    Graphs are often exported for one image, with that number written into their reshapes.
    """
    for each in module.modules():
        each.training = False  # not eval(), which exported graphs forbid
    images = torch.zeros(2, 3, *size)
    with torch.no_grad():
        for count in (2, 1):
            try:
                answer = module(images[:count])
            except Exception:  # noqa: BLE001  a graph fails in its own ways; the self-test says why
                continue
            first = answer[0] if isinstance(answer, tuple | list) and answer else answer
            if isinstance(first, Tensor) and len(first) == count:
                return (module, ()) if count == 2 else (Single(module), (_ONE_BY_ONE,))
    return module, ()
