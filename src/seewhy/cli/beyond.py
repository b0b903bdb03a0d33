"""Around an attack: what the attacker may see of a model, whom else the images fool, and what simple defences keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from seewhy.cli.options import Folder
from seewhy.cli.shell import Shell
from seewhy.cli.work import draw
from seewhy.errors import SpecError

if TYPE_CHECKING:
    from seewhy.attack import Adversarial, Control, Detector, Transfer, View
    from seewhy.attack.compare import Attacker
    from seewhy.classifier import Classifier
    from seewhy.data.images import Images


@dataclass(frozen=True)
class Limits:
    """What an attacker may see: at most `budget` queries an image, images rounded to 8 bits, scores to so many decimals."""

    budget: int | None
    rounded: bool
    decimals: int | None

    def check(self, methods: Mapping[str, Any]) -> None:
        """Raise `SpecError` where the scores that are to be rounded are not what an attack sees."""
        from seewhy.attack import Attack
        from seewhy.method import registry

        for spec, method in methods.items():
            if self.decimals is not None and method.view.sees != "scores":
                every = registry("attack").items()
                those = [name for name, cls in every if issubclass(cls, Attack) and cls.view.sees == "scores"]
                raise SpecError(
                    f"--decimals rounds scores, and {spec} needs {method.view.sees}; these look at scores: {', '.join(those)}"
                )

    def on(self, net: Classifier, method: Any) -> Classifier | View:
        """A model as the attack may see it: through the view that it needs, where there are limits."""
        if self == Limits(None, False, None):
            return net
        more = {} if self.decimals is None else {"decimals": self.decimals}
        view: View = method.view(net, budget=self.budget, rounded=self.rounded, **more)
        return view


@dataclass
class Beyond:
    """What is asked about each attack beside its images, added up over them. `nets`: with victims, the attacked model first;
    `stem`: each method's part of its files' names."""

    nets: Mapping[str, Classifier]
    defences: bool
    folder: Folder
    stem: Mapping[str, str]
    transfers: dict[str, list[Transfer]] = field(default_factory=dict)
    controls: dict[str, list[tuple[Control, ...]]] = field(default_factory=dict)
    detectors: dict[str, list[Detector]] = field(default_factory=dict)

    @property
    def attacks(self) -> int:
        """How many attacks on an image that takes for each method, the first among them."""
        from seewhy.attack.defences import DEFENCES

        return max(1, len(self.nets)) + len(DEFENCES) * self.defences

    def files(self) -> list[str]:
        """The pictures that it will draw."""
        kinds = [*(["transfer"] if self.nets else []), *(["detector"] if self.defences else [])]
        return [self._file(kind, spec) for kind in kinds for spec in self.stem]

    def _file(self, kind: str, spec: str) -> str:
        return f"{kind}.{self.stem[spec]}.png"

    def add(self, net: Classifier, attacker: Attacker, image: Images, label: str | None, answer: Adversarial) -> None:
        """Ask about one image, `answer` being the attack on it."""
        from seewhy.attack import controls, feature_squeezing, transferred

        if self.nets:
            self.transfers.setdefault(answer.method, []).append(transferred(self.nets, attacker, image, label))
        if self.defences:
            self.controls.setdefault(answer.method, []).append(controls(net, attacker, image, label))
            if int(answer.best[0]) >= 0:
                self.detectors.setdefault(answer.method, []).append(feature_squeezing(net, answer))

    def told(self) -> dict[str, Any]:
        """What was found, as plain values, and drawn."""
        found: dict[str, Any] = {}
        if self.nets:
            found["transfer"] = [self._transfer(spec, _sum(parts)) for spec, parts in self.transfers.items()]
        if self.defences:
            found["defences"] = [self._defences(spec, parts) for spec, parts in self.controls.items()]
        return found

    def _transfer(self, spec: str, found: Transfer) -> dict[str, Any]:
        path = self.folder.file(self._file("transfer", spec))
        draw(found.plot(), path)
        return {
            "method": spec,
            "sources": found.sources,
            "victims": found.victims,
            "fooled": found.fooled.tolist(),
            "of": found.of.tolist(),
            "share": found.share.tolist(),
            "picture": path,
        }

    def _defences(self, spec: str, parts: Sequence[tuple[Control, ...]]) -> dict[str, Any]:
        told = None
        if spec in self.detectors:
            found: Detector = _sum(self.detectors[spec])
            path = self.folder.file(self._file("detector", spec))
            draw(found.plot(), path)
            told = {
                "squeezers": found.squeezers,
                "clean": found.clean.tolist(),
                "adversarial": found.adversarial.tolist(),
                "auc": found.auc,
                "picture": path,
            }
        rows = [dict(vars(_sum(row))) for row in zip(*parts, strict=True)]
        return {"method": spec, "controls": rows, "detector": told}

    def show(self, spoken: Shell, told: Mapping[str, Any]) -> None:
        """What was found, for people; `told` as `told` answers it."""
        for each in told.get("transfer", ()):
            rows = [
                (source, *(f"{count} of {all_}" if all_ else "–" for count, all_ in zip(counts, alls, strict=True)))
                for source, counts, alls in zip(each["sources"], each["fooled"], each["of"], strict=True)
            ]
            click.echo()
            title = f"{each['method']}: fooled of those that each model had right; made for it in rows, shown to it in columns"
            spoken.table(("made for", *each["victims"]), rows, title=title)
        for each in told.get("defences", ()):
            rows = [
                (row["defence"], *(f"{row[key]} of {row['of']}" for key in ("clean", "attacked", "aware")))
                for row in each["controls"]
            ]
            click.echo()
            title = f"{each['method']}: what is right behind each defence, before and after an attack"
            spoken.table(("defence", "clean", "attacked", "attacked, knowing it"), rows, title=title)
            click.echo(_detected(each["method"], each["detector"]))


def _detected(spec: str, found: Mapping[str, Any] | None) -> str:
    if found is None:
        return f"{spec} fooled nothing, so there is nothing to detect."
    count = len(found["adversarial"])
    return (
        f"A detector by {' and '.join(found['squeezers'])} tells {count} fooling image{'s' if count > 1 else ''} of {spec} from "
        f"the original{'s' if count > 1 else ''} with an area under its ROC curve of {found['auc']:.2f} (chance is 0.5); the "
        "attack does not know of it."
    )


def _sum(parts: Sequence[Any]) -> Any:
    return sum(parts[1:], parts[0])
