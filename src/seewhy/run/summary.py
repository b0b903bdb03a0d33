"""What a run found, in short."""

from __future__ import annotations

from typing import Any

from seewhy.run.reading import right
from seewhy.run.store import MODEL, SET, STAND_IN, Run
from seewhy.run.unfinished import unfinished

Plain = dict[str, Any]


def summary(run: Run) -> Plain:
    """What a run found, in short, as plain values: predictions, the attacks' outcomes, what failed, what is still to be done."""
    images: list[Plain] = []
    failed = [
        {"image": result.image, "step": result.step, "error": result.error}
        for image in (MODEL, SET, STAND_IN, *(row.id for row in run.images()))
        for result in run.results(image)
        if not result.ok
    ]
    for row in run.images():
        found = {result.step: result.record for result in run.results(row.id) if result.ok}
        predicted = found.get("predict", {})
        images.append(
            {
                "id": row.id,
                "name": row.name,
                "status": row.status,
                "error": row.error,
                "top": predicted.get("top", []),
                "truth": predicted.get("truth"),
                "steps": len(found),
                "attacks": [
                    {
                        **{key: record.get(key) for key in ("method", "norm", "fooled")},
                        "wrong_at_start": right(predicted) is False,
                        **{key: record.get(key) for key in ("smallest_eps", "before", "after")},
                    }
                    for record in found.values()
                    if "fooled" in record
                ],
            }
        )
    rows = {result.step: result.record for result in run.results() if result.ok}
    people = [rows["agreement"][part] for part in ("headline", "sample")] if "agreement" in rows else []
    people += [record["words"] for step, record in rows.items() if step.startswith("performance:")]
    people += [
        each["words"] for step, record in rows.items() if step.startswith("performance:") for each in record["beside"]
    ]
    identities = [result.record for result in run.results() if result.step == "identity" and result.ok]
    left = unfinished(run)
    short = ("name", "spec", "fingerprint", "parameters", "classes", "size", "multiply_adds")
    return {
        "directory": str(run.directory),
        "model": {key: identities[0][key] for key in short} if identities else {"spec": run.plan["asked"]["model"]},
        "images": images,
        "people": people,
        "failed": failed,
        "unfinished": {
            "images": list(left.images),
            "steps": [{"image": image, "step": step} for image, step in left.steps],
        },
        "left_out": run.plan["left_out"],
        "notes": [*run.plan["notes"], *run.notes()],
        "seconds": round(run.seconds(), 3),
    }
