"""How one image is fooled, and why."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from seewhy.attack.base import Adversarial, Attack
from seewhy.attack.oracles import as_saved
from seewhy.attack.why_it_fails import between
from seewhy.data.images import Images
from seewhy.engine import Meter
from seewhy.errors import LayerError, NothingToExplain, UnknownOperation
from seewhy.run.job import Found, Job, Plain, class_of, number, picture_of
from seewhy.run.pace import MAPS, NOISES
from seewhy.run.plan import Planned
from seewhy.run.store import key_of

#: sizes of an attack that a strip shows
STRIP = 6


def attacked(job: Job, method: Attack[Any], planned: Planned, images: Images, predicted: int) -> Found:
    """An attack on one image, its curve, and the smallest change that fools."""
    found = method(job.net, images, labels=predicted)
    level = int(found.best[0])
    fooled = level >= 0
    if not fooled:
        level = int(found.eps[:, 0].argmax())
    after = int(found.predictions[level, 0])
    eps, probabilities = found.curve(0)
    order = found.eps[:, 0].argsort(stable=True)
    file = f"{planned.id}-{key_of(method.spec)}.png"
    strip = found.strip(0, STRIP)
    strip_file = f"{planned.id}-{key_of(method.spec)}-strip.png"
    clean = found.clean_probabilities[0]
    adversarial = found.images[level, 0]
    with Meter(job.net.engine.device) as meter:
        saved = job.net.predict(as_saved(adversarial)[None])[0].cpu()
    notes = list(found.notes)
    wrong = planned.label not in (None, predicted)
    if wrong:
        notes.append(
            "misclassified from the start, and so counted nowhere: the attack leads away from the prediction, not from the "
            "true class"
        )
    record = {
        "method": method.spec,
        "norm": found.norm,
        "before": {"index": predicted, "label": job.net.labels[predicted], "probability": float(clean[predicted])},
        "after": {
            "index": after,
            "label": job.net.labels[after],
            "probability": float(found.probabilities[level, 0, after]),
        },
        "saved": class_of(job.net, saved, int(saved.argmax())),
        "eps": [float(size) for size in eps],
        "p_before": [float(p) for p in probabilities[:, predicted]],
        "p_after": [float(p) for p in probabilities[:, after]],
        "success": [False, *map(bool, found.success[order, 0])],
        "success_8bit": [False, *map(bool, found.success_8bit[order, 0])],
        "fooled": fooled,
        "wrong_at_start": wrong,
        "smallest_eps": number(float(found.smallest_eps[0])),
        "shown_eps": float(found.eps[level, 0]),
        "distances": {name: float(values[level, 0]) for name, values in found.distances.items()},
        "strip": [_seen(job, found, each) for each in strip],
        "pictures": {"adversarial": file, "strip": strip_file},
    }
    pictures = {file: picture_of(adversarial), strip_file: picture_of(torch.cat([*found.images[strip, 0]], 2))}
    return Found(record, found.cost + meter.cost, tuple(notes), {"adversarial": adversarial.numpy()}, pictures)


def _seen(job: Job, found: Adversarial, level: int) -> Plain:
    """What the model says of one size of the strip."""
    return {
        "eps": float(found.eps[level, 0]),
        **class_of(job.net, found.probabilities[level, 0].log(), int(found.predictions[level, 0])),
        "fools": bool(found.success[level, 0] & found.success_8bit[level, 0]),
    }


def why(job: Job, outcome: Plain, planned: Planned, images: Images) -> Found:
    """Why the first attack's image fools, against noise of the same size."""
    measured = partial(
        between,
        job.net,
        images,
        torch.from_numpy(job.run.array(planned.id, outcome["method"], "adversarial"))[None],
        torch.tensor([outcome["before"]["index"]]),
        method=outcome["method"],
        norm=outcome["norm"],
        noises=NOISES,
    )
    notes: tuple[str, ...] = ()
    with Meter(job.net.engine.device) as meter:
        try:
            found = measured(explainers=job.after[:MAPS])
        except (LayerError, UnknownOperation, NothingToExplain) as error:
            found = measured()
            notes = (f"the maps before and after the change were not compared: {error}",)
    record = {"attack": outcome["method"], "diagnosis": found.rows()[0]}
    return Found(record, meter.cost, (*notes, *found.notes))


def adversarial_of(job: Job, planned: Planned, images: Images) -> Images | None:
    """The first attack's image; None where it failed, or where there was no attack."""
    if not job.attacks or not job.run.done(planned.id, job.attacks[0].spec):
        return None
    pixels = torch.from_numpy(job.run.array(planned.id, job.attacks[0].spec, "adversarial"))
    return images.with_pixels(pixels[None])
