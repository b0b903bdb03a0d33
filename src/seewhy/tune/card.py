"""What a tuned classifier's users must know, as numbers (card.json) and as a page (MODEL-CARD.md)."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from seewhy.data.sets import DataSet
from seewhy.units import seconds

Plain = dict[str, Any]

#: the licences of data sets that seewhy knows, by the beginning of their names
LICENCES = {
    "ham10000": "CC BY-NC 4.0 (HAM10000: Tschandl, Rosendahl & Kittler 2018), so the classifier is for non-commercial use"
}

USE = (
    "For research and teaching. It is not a medical device, nor any other means to decide about people; nobody has tested "
    "it as one."
)

LIMITS = (
    "It answers one of its classes for any picture, also for one that shows none of them.",
    "It was measured on pictures of the same collection as those that it was trained on; elsewhere (other cameras, people, "
    "places) it may be worse, and nothing here says how much.",
    "It was trained for its recipe's operating point: for other costs of mistakes, or other shares of the classes, its "
    "logits must be moved.",
)


def about(data: DataSet, left_out: Sequence[tuple[str, str]] = (), licence: str = "") -> Plain:
    """A data set as a card names it; its fingerprint reads every file once."""
    known = next((text for name, text in LICENCES.items() if data.name.startswith(name)), "not stated")
    return {
        "name": data.name,
        "fingerprint": data.fingerprint(),
        "pictures": len(data),
        "groups": None if data.groups is None else len(set(data.groups)),
        "counts": data.counts(),
        "notes": list(data.notes),
        "left_out": [list(each) for each in left_out],
        "licence": licence or known,
    }


def page(card: Mapping[str, Any]) -> str:
    """The card in words; balanced accuracy and the recall of each class come first."""
    data, split, model = card["data"], card["split"], card["model"]
    lines = [
        f"# {card['name']}",
        "",
        f"An image classifier of {len(card['labels'])} classes: `{model['spec']}` tuned on {data['name']} by `seewhy tune`. "
        f"{USE}",
        "",
        "```sh",
        "seewhy audit photograph.jpg --model file:THIS-FOLDER",
        "```",
    ]
    lines += ["", "## How good it is", "", *_measured("Hold-out", card["hold_out"], "never trained on", split["unit"])]
    if card.get("test"):
        lines += [
            "",
            *_measured(f"Test: {card['test']['data']['name']}", card["test"], "looked at once, at the end", ""),
        ]
    lines += ["", "## What it was made of", ""]
    before = model.get("tuned_before")
    while before:
        lines += [
            f"- Tuned before: {before['name']}, recipe `{before['recipe_spec'] or 'the default'}`, "
            f"{seconds(before['seconds'])}, on the data of SHA-256 `{before['data']}`."
        ]
        before = before["model"].get("tuned_before")
    lines += [
        f"- Data: {data['name']}, {data['pictures']:,} pictures"
        + (f" in {data['groups']:,} groups" if data["groups"] is not None else "")
        + f"; SHA-256 `{data['fingerprint']}`; licence: {data['licence']}.",
        f"- Split: {split['train']:,} train, {split['held']:,} held out"
        + (f", {split['watched']:,} watched for early stopping" if split["watched"] else "")
        + f"; by class, whole groups, seed {card['recipe']['seed']}. `predictions.csv` names them.",
        f"- Recipe: `{card['recipe_spec'] or 'the default'}`, {card['precision']}, {len(card['history'])} epochs at "
        f"{_sides(card['history'])} pixels, {seconds(card['seconds'])} of steps ({card['machine']}).",
        "- The operating point was fixed before the training by the recipe (classes weigh as their number of pictures to "
        f"the power {card['recipe']['balance']:g}); this tuning chose nothing by the hold-out or by a test set.",
    ]
    lines += [f"- {note[0].upper()}{note[1:]}." for note in (*data["notes"], *card["notes"])]
    if data["left_out"]:
        first = "; ".join(": ".join(each) for each in data["left_out"][:3])
        lines += [f"- Left out, {len(data['left_out']):,} pictures; the first: {first}."]
    lines += ["", "## Limits", "", *(f"- {limit}" for limit in LIMITS), ""]
    return "\n".join(lines)


def _measured(title: str, found: Mapping[str, Any], what: str, unit: str) -> list[str]:
    low, high = found["balanced_accuracy_interval"]
    below, above = found["accuracy_interval"]
    lines = [
        f"### {title}",
        "",
        f"{found['pictures']:,} pictures, {what}{unit}. Intervals of 95 %.",
        "",
        f"- **Balanced accuracy {found['balanced_accuracy']:.1%}** ({low:.1%} to {high:.1%}, Wilson's of the recalls together)",
        f"- Accuracy {found['accuracy']:.1%} ({below:.1%} to {above:.1%}, Wilson); always the largest class would have "
        f"{found['always_the_largest_class']:.1%}",
        f"- Calibration error {found['calibration_error']:.3f}, log loss {found['log_loss']:.3f}",
        "",
        *_averaged(found.get("views")),
        "| class | pictures | recall | 95 % interval | precision |",
        "| --- | --- | --- | --- | --- |",
    ]
    for each in found["classes"]:
        interval = "" if each["recall"] is None else "{:.1%} to {:.1%}".format(*each["recall_interval"])
        lines.append(
            f"| {each['name']} | {each['pictures']:,} | {_share(each['recall'])} | {interval} | {_share(each['precision'])} |"
        )
    names = [each["name"] for each in found["classes"]]
    lines += ["", "Rows: the true class; columns: what it was taken for.", "", f"| | {' | '.join(names)} |"]
    lines += [f"| --- |{' --- |' * len(names)}"]
    lines += [f"| {name} | {' | '.join(map(str, row))} |" for name, row in zip(names, found["confusion"], strict=True)]
    return lines


def _averaged(found: Mapping[str, Any] | None) -> list[str]:
    """What the mean over mirror images comes to."""
    if not found:
        return []
    low, high = found["balanced_accuracy_interval"]
    below, above = found["accuracy_interval"]
    recalls = ", ".join(f"{each['name']} {_share(each['recall'])}" for each in found["classes"])
    return [
        f"With the logits averaged over {found['count']} mirror images (`file:THIS-FOLDER,views={found['count']}`): balanced "
        f"accuracy {found['balanced_accuracy']:.1%} ({low:.1%} to {high:.1%}), accuracy {found['accuracy']:.1%} ({below:.1%} to "
        f"{above:.1%}); recalls: {recalls}.",
        "",
    ]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _sides(history: Sequence[Mapping[str, Any]]) -> str:
    sides = list(dict.fromkeys(str(row["side"]) for row in history))
    return ", then ".join(sides)


def rows(
    part: str, names: Sequence[str], labels: Sequence[int], logits: Tensor, classes: Sequence[str]
) -> list[list[str]]:
    """Lines of predictions.csv: where a picture belongs, its class, the predicted one, and each class's probability."""
    return [
        [part, name, classes[label], classes[int(row.argmax())], *(f"{float(share):.6f}" for share in row)]
        for name, label, row in zip(names, labels, logits.double().softmax(1), strict=True)
    ]


def table(lines: Sequence[Sequence[str]], classes: Sequence[str]) -> str:
    """predictions.csv."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["part", "image", "label", "predicted", *(f"p({name})" for name in classes)])
    writer.writerows(lines)
    return stream.getvalue()
