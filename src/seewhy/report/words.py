"""What the report says: sentences and numbers made from a run's rows, and none that was not measured."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from statistics import median

#: a space at which no line breaks: between a number and its unit, a sign and its number
NBSP = "\u00a0"

_TITLES = {
    **{"fgsm": "FGSM", "smoothgrad": "SmoothGrad", "grad-cam": "Grad-CAM", "grad-cam++": "Grad-CAM++", "lrp": "LRP"},
    **{"xgrad-cam": "XGrad-CAM", "hires-cam": "HiResCAM", "layer-cam": "LayerCAM", "eigen-cam": "Eigen-CAM"},
    **{"score-cam": "Score-CAM", "ablation-cam": "Ablation-CAM", "guided-grad-cam": "Guided Grad-CAM", "rise": "RISE"},
    **{"lime": "LIME", "shap": "SHAP", "shap-partition": "Partition SHAP", "deep-shap": "Deep SHAP"},
    **{"deep-taylor": "Deep Taylor", "ifgsm": "I-FGSM", "mifgsm": "MI-FGSM", "pgd": "PGD", "apgd": "Auto-PGD"},
    **{"deepfool": "DeepFool", "lbfgs": "L-BFGS", "carlini-wagner": "Carlini–Wagner", "jsma": "JSMA", "zoo": "ZOO"},
    **{"nes": "NES", "dbge": "DBGE", "maximize": "Activation maximization", "invert": "Inversion of a code"},
    **{"deepdream": "DeepDream", "units": "Units with names", "activations": "Activation maps"},
    **{"statistics": "Statistics of activations", "before-after": "Before and after", "map": "Map of codes"},
}

#: what a class is to its photograph, in the order in which they are shown
_ROLES = {
    "predicted": "the predicted class",
    "runner-up": "the runner-up",
    "true": "the true class",
    "asked": "a class that was asked for",
}

#: what the explainers have in common, the families in the order in which they are shown, their members too
_FAMILIES = {
    "Where the last feature maps respond": (
        *("grad-cam", "grad-cam++", "xgrad-cam", "hires-cam", "layer-cam", "eigen-cam", "score-cam", "ablation-cam"),
    ),
    "What happens when parts are hidden": ("occlusion", "rise", "lime", "shap", "shap-partition"),
    "How the logit is shared out over the pixels": (
        *("lrp", "deep-taylor", "deep-shap", "integrated-gradients", "expected-gradients", "gradient-times-input"),
    ),
    "How the logit changes with the pixels": ("gradient", "smoothgrad"),
    "What the filters paint when run backwards": ("guided-backprop", "guided-grad-cam", "deconvolution"),
}
_OTHERS = "Other methods"

#: the attacks in the order in which they are shown
_ATTACKS = (
    *("fgsm", "ifgsm", "mifgsm", "pgd", "apgd", "lbfgs", "deepfool", "carlini-wagner", "jsma"),
    *("zoo", "nes", "square", "dbge", "boundary"),
)


#: the looks in the order in which they are shown
_LOOKS = (
    *("filters", "activations", "before-after", "statistics", "exemplars", "units", "map"),
    *("maximize", "deepdream", "invert"),
)


def family(spec: str) -> str:
    """What a method has in common with others, as a heading.

    >>> family("lime:count=8"), family("mine")
    ('What happens when parts are hidden', 'Other methods')
    """
    name = spec.partition(":")[0]
    return next((title for title, members in _FAMILIES.items() if name in members), _OTHERS)


def rank(spec: str) -> tuple[int, str]:
    """The place of a method among the others, family by family."""
    known = [*(name for members in _FAMILIES.values() for name in members), *_ATTACKS, *_LOOKS]
    name = spec.partition(":")[0]
    return (known.index(name) if name in known else len(known), spec)


def signed(value: float) -> str:
    """A number of two digits after the point, with a true minus.

    >>> signed(-0.123), signed(-0.001)
    ('−0.12', '0.00')
    """
    text = f"{value:.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", "−")


def title(spec: str) -> str:
    """A method's name as people write it.

    >>> title("grad-cam:layer=x"), title("guided-backprop")
    ('Grad-CAM', 'Guided backprop')
    """
    name = spec.partition(":")[0]
    return _TITLES.get(name, name.replace("-", " ").capitalize())


def percent(probability: float) -> str:
    """A probability in per cent; never 0 or 100 unless it is.

    >>> [percent(p).replace(NBSP, " ") for p in (0.9312, 0.00004, 0.99999, 0.0)]
    ['93.1 %', '< 0.1 %', '> 99.9 %', '0 %']
    """
    text = f"{100 * probability:.1f} %"
    if probability in (0, 1):
        text = f"{100 * probability:.0f} %"
    elif probability < 0.001:
        text = "< 0.1 %"
    elif probability > 0.999:
        text = "> 99.9 %"
    return text.replace(" ", NBSP)


def size(eps: float, norm: str = "linf", values: int = 0) -> str:
    """A size of change in its norm: steps of 1/255 (two digits where it is no whole step), a length, or a share of pixels.

    An ℓ₂ length is also told as the root mean square over so many `values`, where they are known.

    >>> size(8 / 255), size(0.003), size(0.5, "l2", 12 * 12), size(0.04, "l0").replace(NBSP, " ")
    ('8/255', '0.77/255', 'ℓ₂ 0.5, RMS 11/255', '4.0 % of pixels')
    """
    if norm == "l0":
        return f"{percent(eps)} of pixels"
    if norm == "l2":
        return f"ℓ₂ {figure(eps)}" + (f", RMS {_steps(eps / math.sqrt(values))}" if values else "")
    return _steps(eps)


def _steps(eps: float) -> str:
    steps = 255 * eps
    return f"{round(steps)}/255" if abs(steps - round(steps)) < 1e-4 else f"{steps:.2g}/255"


def epsilon(eps: float, norm: str = "linf", values: int = 0) -> str:
    """A size of change with its sign, on one line: "ε = 8/255"."""
    told = size(eps, norm, values)
    return (told if norm == "l2" else f"ε = {told}").replace(" ", NBSP)


def axis(norm: str, values: int) -> tuple[float, str]:
    """What a size is multiplied by on an axis, and what the axis then shows; `values` are those of an image.

    >>> axis("l0", 12)
    (100.0, 'ε, share of the pixels in %')
    """
    if norm == "l0":
        return 100.0, "ε, share of the pixels in %"
    if norm == "l2":
        return 255 / math.sqrt(values), "ε, root mean square in steps of 1/255"
    return 255.0, "ε, in steps of 1/255"


#: norms as they are written
NORMS = {"linf": "ℓ∞", "l2": "ℓ₂", "l0": "ℓ₀"}


def bounds(sign: str, scale: float) -> str:
    """From where to where a map's colours go, of a sign as maps have it.

    >>> bounds("signed", 0.25), bounds("absolute", 3)
    ('±0.25', '0 to 3')
    """
    return f"{'±' if sign == 'signed' else '0 to '}{figure(scale)}"


def figure(value: float) -> str:
    """A number of no particular unit in three digits.

    >>> figure(0.00012345), figure(12.3456), figure(-0.0)
    ('1.23e-04', '12.3', '0')
    """
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    if value == 0:
        return "0"
    text = f"{value:.3g}" if 1e-3 <= abs(value) < 1e6 else f"{value:.2e}"
    return text.replace("-", "−", 1) if text.startswith("-") else text


def measure(name: str, value: float) -> str:
    """One measure of a row in words.

    >>> measure("completeness error", 0.0123), measure("steps", 27.0)
    ('completeness error 1.2\\xa0%', '27 steps')
    """
    if not math.isfinite(value):
        return f"{name} {figure(value)}"
    if "error" in name or name.startswith("share "):
        share = 100 * value
        return f"{name} {share:.0f}{NBSP}%" if 99.5 <= abs(share) < 1e6 else f"{name} {share:.2g}{NBSP}%"
    if float(value).is_integer():
        return f"{int(value)} {name}"
    return f"{name} {figure(value)}"


def passes(forward: int, backward: int) -> str:
    """A cost in images passed through the network.

    >>> passes(1, 0), passes(26, 25)
    ('1 forward', '26 forward, 25 backward')
    """
    return f"{forward:,} forward" + (f", {backward:,} backward" if backward else "")


def many(number: int, noun: str, plural: str = "") -> str:
    """A count with its noun.

    >>> many(1, "photograph"), many(4, "photograph")
    ('1 photograph', '4 photographs')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def counted(number: int) -> str:
    """A small number in words, a larger one in digits.

    >>> counted(4), counted(1200)
    ('four', '1,200')
    """
    small = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    return small[number] if number < len(small) else f"{number:,}"


def listed(items: Sequence[str]) -> str:
    """Items in a row.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def some(items: Sequence[str], most: int) -> str:
    """The first of many items, and that there are others.

    >>> some(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    return listed(items) if len(items) <= most else f"{', '.join(items[:most])} and {len(items) - most} more"


def model(spec: str) -> str:
    """A model's name as headings bear it: without the folders that its files are in.

    >>> model("file:/data/skin/model.py:model@/data/skin/model.safetensors,views=4"), model("hf:microsoft/resnet-50")
    ('file:model.py:model@model.safetensors,views=4', 'hf:microsoft/resnet-50')
    """
    return (
        re.sub(r"(?<=[:@])(?:[A-Za-z]:)?[^:@,]*[/\\](?=[^:@,])", "", spec)
        if spec.startswith(("file:", "onnx:", "export:"))
        else spec
    )


#: a number that stands alone, as one in a name does not
_NUMBER = re.compile(r"(?<![\w.:_-])[−-]?\d+(?:[.,]\d+)*(?:e[−+-]?\d+)?(?![\w_]|[.:]\w)")


def together(notes: Sequence[str]) -> dict[str, list[int]]:
    """Notes that differ in their numbers alone as one, with the least and the greatest of each; and which those were.

    >>> together(["up to 3.5 % is lost", "up to 12 % is lost", "nothing is"])
    {'up to 3.5–12 % is lost': [0, 1], 'nothing is': [2]}
    """
    kinds: dict[str, list[int]] = {}
    notes = [note.replace("for 1 of 1 images ", "") for note in notes]
    for at, note in enumerate(notes):
        kinds.setdefault(_NUMBER.sub("#", note), []).append(at)
    found = {}
    for which in kinds.values():
        ends = iter(map(_span, zip(*(_NUMBER.findall(notes[at]) for at in which), strict=True)))
        found[_NUMBER.sub(lambda _, ends=ends: next(ends), notes[which[0]])] = which  # type: ignore[misc]
    return found


def _span(numbers: Sequence[str]) -> str:
    order = sorted(set(numbers), key=lambda each: float(each.replace("−", "-").replace(",", "")))
    return "–".join(dict.fromkeys((order[0], order[-1])))


def noted(captions: Sequence[str], notes: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """What is to be known of maps: first what holds for all of them, then what holds for some, named by their captions."""
    whose = [caption for caption, each in zip(captions, notes, strict=True) for _ in each]
    every, others = [], []
    for note, which in together([note for each in notes for note in each]).items():
        some = list(dict.fromkeys(whose[at] for at in which))
        if len(some) == len(set(captions)):
            every.append(note)
        else:
            others.append(f"{listed(some)}: {note}")
    return (*every, *others)


def place(role: str) -> int:
    """Where a class of that role stands among the others."""
    return list(_ROLES).index(role) if role in _ROLES else len(_ROLES)


def role(name: str) -> str:
    """What a class is to its photograph."""
    return _ROLES.get(name, name)


def fooled(
    smallest: Sequence[float | None],
    tried: Sequence[float],
    names: Sequence[str],
    attack: str,
    norm: str = "linf",
    values: int = 0,
    unrounded: Sequence[bool] = (),
) -> list[str]:
    """How many photographs an attack fools, how small a change suffices, and which ones it does not fool.

    `smallest` holds, for each photograph, the smallest ε that fools it or None, `tried` the largest tried on it, `unrounded`
    whether some ε fools it as long as it isn't rounded to 8 bits.
    """
    found = sorted(eps for eps in smallest if eps is not None)
    stood = [place for place, eps in enumerate(smallest) if eps is None]
    said = []
    if found:
        reach = epsilon(found[0], norm, values)
        if len(found) > 1:
            reach += f" to {size(found[-1], norm, values)}"
        middle = f" (median {size(median(found), norm, values)})" if len(found) > 2 else ""
        each = " to each value of a pixel" if norm == "linf" else ""
        said.append(
            f"{attack} fooled it on {len(found)} of {many(len(smallest), 'photograph')}, with changes of {reach}{each}{middle}."
        )
    for before in (False, True):
        those = [place for place in stood if (bool(unrounded) and unrounded[place]) == before]
        if those:
            listing = some([names[place] for place in those], 4)
            reach = size(min(tried[place] for place in those), norm, values)
            said.append(
                f"{attack} fooled it on {listing} only before rounding to 8 bits, not in an image as it would be saved, by any "
                f"ε tried up to {reach}; a stronger attack may do it."
                if before
                else f"On {listing} it was not fooled by any ε of {attack} tried, up to {reach}; a stronger attack may do it."
            )
    return said


def correlation(value: float) -> str:
    """Spearman's ρ of two maps in words, with the number.

    >>> correlation(0.97), correlation(-0.2)
    ('ρ = 0.97, nearly the same order', 'ρ = −0.20, partly reversed')
    """
    if not math.isfinite(value):
        return "ρ is not defined: one map is constant"
    number = f"ρ = {value:.2f}".replace("-", "−")
    for least, words in ((0.95, "nearly the same order"), (0.7, "much alike"), (0.3, "partly alike")):
        if value >= least:
            return f"{number}, {words}"
    return f"{number}, {'hardly alike' if value > -0.1 else 'partly reversed'}"
