"""The tables of an agreement: rows of plain values."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from seewhy.humans.accuracy import Part
from seewhy.humans.estimate import Estimate
from seewhy.humans.paired import McNemar

if TYPE_CHECKING:
    from seewhy.humans.agreement import Agreement

Row = dict[str, Any]


def _held(name: str, found: Estimate) -> Row:
    """A value and its ends as three columns."""
    return {name: found.value, f"{name} low": found.low, f"{name} high": found.high}


def accuracy(found: Agreement) -> list[Row]:
    """Every observer."""
    return [
        {
            "who": each.name,
            "kind": each.kind,
            "images": each.images,
            **_held("accuracy", each.accuracy),
            **_held("balanced accuracy", each.balanced),
        }
        for each in found.rates.observers
    ]


def _parts(parts: tuple[Part, ...], what: str) -> list[Row]:
    return [
        {
            what: part.name,
            "images": part.images,
            **_held("network", part.network),
            **_held("mean annotator", part.people),
            **_held("majority", part.majority),
            **_held("difference", part.difference),
            "p": part.p,
            "p (Holm)": part.adjusted,
        }
        for part in parts
    ]


def classes(found: Agreement) -> list[Row]:
    """Recall of each class."""
    return _parts(found.rates.classes, "class")


def conditions(found: Agreement) -> list[Row]:
    """Accuracy in each condition."""
    return _parts(found.rates.conditions, "condition")


def tests(found: Agreement) -> list[Row]:
    """The network against the mean annotator, the majority and each annotator."""
    main = found.rates.main
    tested = [*([found.majority] if found.majority else []), *found.each]
    first = {
        "against": "mean annotator",
        "images": found.images,
        "only the network right": None,
        "only the other right": None,
    }
    return [
        {**first, **_held("difference", main.difference), "p": main.p, "p (Holm)": None},
        *(_test(each, with_holm=each is not found.majority) for each in tested),
    ]


def _test(each: McNemar, *, with_holm: bool) -> Row:
    return {
        "against": each.observer,
        "images": each.images,
        "only the network right": each.only_network,
        "only the other right": each.only_observer,
        **_held("difference", each.difference),
        "p": each.p,
        "p (Holm)": each.adjusted if with_holm else None,
    }


def consistency(found: Agreement) -> list[Row]:
    """Error consistency, and agreement whatever is true."""
    held = found.consistency
    rows = (
        ("error consistency: people with people", held.people),
        ("error consistency: network with people", held.network),
        ("error consistency: the difference", held.difference),
        ("people who agree on an image", found.raters.agree),
        ("Fleiss' κ", found.raters.fleiss),
        ("Krippendorff's α", found.raters.krippendorff),
    )
    return [{"measure": name, **_held("value", each)} for name, each in rows]


def soft(found: Agreement) -> list[Row]:
    """The network against the people's distribution."""
    held = found.soft
    if held is None:
        return []
    rows = [
        (f"{name}: {part}", each)
        for name, score in (("cross-entropy", held.cross_entropy), ("Brier", held.brier))
        for part, each in (
            ("network", score.network),
            ("people's own floor", score.floor),
            ("KL, above the floor" if name == "cross-entropy" else "above the floor", score.excess),
            ("an image's other votes", score.people),
        )
    ]
    rows += [
        ("total variation to the shares of votes", held.unlike),
        ("the first choice is the people's", held.first),
        ("the second choice is the people's", held.second),
        ("rank correlation of entropies", held.entropies),
    ]
    return [{"measure": name, **_held("value", each)} for name, each in rows]


def calibration(found: Agreement) -> list[Row]:
    """Calibration errors."""
    return [
        {
            "who": each.who,
            **_held("ECE, equal width", each.width),
            **_held("ECE, equal mass", each.mass),
            "ECE if perfectly calibrated": each.perfect,
            **_held("overconfidence", each.over),
        }
        for each in found.calibration
    ]


def coverage(found: Agreement) -> list[Row]:
    """Accuracy over coverage, of all curves."""
    return [
        {"curve": curve.name, "coverage": at, **_held("accuracy", each)}
        for curve in (*found.coverage.abstain, *found.coverage.deferred)
        for at, each in zip(curve.coverage, curve.accuracy, strict=True)
    ]


def together(found: Agreement) -> list[Row]:
    """Network and people together."""
    held = found.coverage.together
    rows = (
        ("the network alone", found.rates.main.network),
        ("one person alone", found.rates.main.people),
        ("one person and the network, combined", held.one),
        (f"the network, a person for the least sure {100 * held.to_people:.0f} %", held.deferred),
        ("all votes and the network, mean of distributions", held.mean),
    )
    return [{"who": name, **_held("accuracy", each)} for name, each in rows]


def ceiling(found: Agreement) -> list[Row]:
    """How often a person's answer is foretold."""
    held = found.ceiling
    rows = (
        ("the network", held.network),
        ("the true class", held.truth),
        ("the majority of the other votes", held.others),
        ("the majority of all votes", held.most),
        ("majorities of two halves agree", held.halves),
    )
    return [{"by": name, **_held("share", each)} for name, each in rows]


def confusion(found: Agreement) -> list[Row]:
    """The confusions that differ most."""
    return [
        {"class": true, "taken for": answer, "network": mine, "people": theirs, "difference": mine - theirs}
        for true, answer, mine, theirs in found.confusion.most_different()
    ]


def shape(found: Agreement) -> list[Row]:
    """Shape bias."""
    if found.shape is None:
        return []
    rows = [("network", found.shape.network), ("people", found.shape.people)]
    names = [each.name for each in found.rates.observers if each.kind == "annotator"]
    rows += list(zip(names, found.shape.annotators, strict=False))
    return [{"who": name, **_held("shape bias", each)} for name, each in rows]


TABLES: dict[str, Callable[[Agreement], list[Row]]] = {
    "accuracy": accuracy,
    "classes": classes,
    "conditions": conditions,
    "tests": tests,
    "confusion": confusion,
    "consistency": consistency,
    "soft": soft,
    "calibration": calibration,
    "coverage": coverage,
    "together": together,
    "ceiling": ceiling,
    "shape": shape,
}
