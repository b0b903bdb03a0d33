"""`seewhy audit` with votes and published results."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .conftest import TINY, Run
from .test_commands import document


@pytest.fixture
def labelled(here: Path) -> Path:
    """A folder of two classes of the tiny model, and three people's answers beside it."""
    lines = ["annotator,image,label"]
    for kind in ("tabby", "dog"):
        (here / "pets" / kind).mkdir(parents=True)
        for number, name in enumerate(("cat.png", "dog.png", "cat.png")):
            shutil.copy(here / name, here / "pets" / kind / f"{number}.png")
            for who, label in (("ada", kind), ("bob", kind if number else "tiger cat"), ("cyd", "dog")):
                lines.append(f"{who},{kind}/{number}.png,{label}")
    (here / "votes.csv").write_text("\n".join(lines) + "\n")
    return here


def test_audit_beside_people(labelled: Path, run: Run) -> None:
    words = ("audit", "pets", "--model", TINY, "--out", "run", "--method", "gradient", "--limit", "1", "--full")
    people = ("--votes", "votes.csv", "--baseline", "imagenet-top5", "--people", "three friends")
    told = document(run(*words, *people, "--json"))
    assert len(told["images"]) == 1
    assert told["failed"] == []
    assert "on the same 6 images" in told["people"][0]
    assert any("indirect" in sentence for sentence in told["people"])
    page = (labelled / "run" / "report.html").read_text()
    assert "Is it better than people?" in page
    assert "The people: three friends" in page
    assert "--votes votes.csv --baseline imagenet-top5 --people" in page  # the command that makes it again
    result = run(*words, *people)
    assert result.exit_code == 0
    assert "on the same 6 images" in result.stdout
    other = run(*words, "--votes", "votes.csv")
    assert other.exit_code == 2
    assert "the votes, the label map or the baselines differ" in other.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--baseline", "imagenet-top-5"), 'did you mean "imagenet-top5"'),
        (("--votes", "vote.csv"), 'there is no file or folder vote.csv; did you mean "votes.csv"'),
        (("--label-map", "votes.csv"), "needs their votes"),
        (("--votes", "votes.csv", "--label-map", "votes.csv"), "votes.csv"),
    ],
)
def test_wrong_words(labelled: Path, run: Run, words: tuple[str, ...], sentence: str) -> None:
    result = run("audit", "pets", "--model", TINY, "--out", "run", *words)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert not (labelled / "run" / "run.json").exists()
