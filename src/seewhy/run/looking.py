"""What the layers hold and answer."""

from __future__ import annotations

from seewhy.data.images import Images
from seewhy.engine import Meter
from seewhy.lens.capture import capture
from seewhy.look.activations import Activations
from seewhy.look.filters import Filters
from seewhy.run.attacking import adversarial_of
from seewhy.run.job import Found, Job
from seewhy.run.plan import Planned


def filters(job: Job, method: Filters) -> Found:
    """The filters of a convolution."""
    found = method(job.net)
    return Found(
        {
            "method": method.spec,
            "layer": found.layer,
            "view": found.view,
            "scale": found.scale,
            "titles": list(found.titles),
            "dead": found.dead.tolist(),
            "alike": [
                {"filters": pair, "cosine": cosine}
                for pair, cosine in zip(found.alike.tolist(), found.cosines.tolist(), strict=True)
            ],
        },
        found.cost,
        found.notes,
        {"weights": found.weights.numpy(), "tiles": found.tiles.numpy()},
    )


def activations(job: Job, method: Activations, planned: Planned, images: Images) -> Found:
    """A layer's maps of one image, before the first attack and after it."""
    found = method(job.net, images)
    channels = found.channels[0]
    arrays = {"before": found.maps[0].numpy()}
    cost, after = found.cost, None
    changed = adversarial_of(job, planned, images)
    if changed is not None:
        with Meter(job.net.engine.device) as meter:
            maps = capture(job.net, changed.pixels, [found.layer])[found.layer].float().cpu()[0]
        cost = cost + meter.cost
        arrays["after"] = maps[channels].numpy()
        after = float((maps <= 0).float().mean())
    record = {
        "method": method.spec,
        "layer": found.layer,
        "channels": channels.tolist(),
        "zero": float(found.zero[0]),
        "zero_after": after,
    }
    return Found(record, cost, found.notes, arrays)
