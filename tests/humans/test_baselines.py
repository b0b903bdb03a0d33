"""Published results: what they say, where it stands, and that a comparison is never more than indirect."""

from __future__ import annotations

import pytest

from seewhy.errors import SpecError
from seewhy.humans.baselines import baseline, baselines
from seewhy.humans.estimate import Estimate
from seewhy.intervals import wilson


def test_every_result_has_what_a_reader_needs() -> None:
    for name, each in baselines().items():
        assert each.name == name
        assert each.links, name
        assert each.caveats, name
        assert 2010 <= each.year <= 2026
        assert 0 < each.value < 1
        assert each.title
        assert each.population
        assert each.task
        if each.interval is not None:
            assert each.interval[0] <= each.value <= each.interval[1]
            assert each.interval_by


def test_intervals_are_wilsons_where_each_image_was_answered_once() -> None:
    top5 = baseline("imagenet-top5")
    assert top5.interval == pytest.approx(wilson(round(0.051 * 1500), 1500))
    assert [(each.who, each.value) for each in top5.beside] == [("GoogLeNet (2014), on the same images", 0.068)]
    origin = baseline("ham10000-77")
    assert origin.right is not None
    assert origin.images is not None
    assert origin.right / origin.images == pytest.approx(origin.value, abs=5e-7)
    assert origin.interval == wilson(1543, 2003)
    assert baseline("ham10000-experts").interval is None  # readers differ, and the source counts no single answers
    assert baseline("dermatologists-image").interval == (0.684, 0.703)


@pytest.mark.parametrize(
    ("name", "numbers", "verdict"),
    [
        ("ham10000-experts", (0.8, 0.78, 0.82), "above it (better), in an indirect comparison"),
        ("ham10000-experts", (0.5, 0.48, 0.52), "below it (worse), in an indirect comparison"),
        ("dermatologists-image", (0.70, 0.66, 0.74), "not told apart from it, in an indirect comparison"),
        ("imagenet-top5", (0.9, 0.88, 0.92), "is another measure and cannot be laid beside it"),
        ("imagenet-multilabel", (0.9, 0.88, 0.92), "is another measure"),
        ("ham10000-77", (0.85, 0.83, 0.87), "not a result of people (nobody: a small CNN of a public notebook)"),
    ],
)
def test_words_say_no_more_than_is_known(name: str, numbers: tuple[float, float, float], verdict: str) -> None:
    said = baseline(name).compare(Estimate(*numbers))
    assert verdict in said
    if name == "ham10000-77":
        assert "nothing follows" in said
        assert "better" not in said


def test_an_error_is_better_when_it_is_lower() -> None:
    said = baseline("imagenet-top5").compare(Estimate(0.02, 0.015, 0.025), "top-5 error")
    assert "below it (better)" in said


def test_an_unknown_one() -> None:
    with pytest.raises(SpecError, match='no baseline "ham10000-expert"; did you mean "ham10000-experts"'):
        baseline("ham10000-expert")
