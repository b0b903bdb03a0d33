"""The documents are run: the README's code, CONTRIBUTING's method, the commands and the files that they name."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
COMPARISONS = ["docs/people-cifar10.md", "docs/people-ham10000.md"]
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/run-format.md",
    "docs/tune.md",
    "docs/people.md",
    "docs/look.md",
    *COMPARISONS,
    *(f"docs/{path.parent.name}/{path.name}" for path in sorted((ROOT / "docs").glob("*/*.md"))),
]


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


def run(code: str, folder: Path) -> str:
    script = folder / "run_me.py"
    script.write_text(code)
    environment = {**os.environ, "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readmes_code_runs(tmp_path: Path) -> None:
    import skimage

    cat = Path(skimage.__file__).parent / "data" / "chelsea.png"
    Image.open(cat).save(tmp_path / "cat.jpg")
    for code in blocks("README.md", "python"):
        run(code, tmp_path)


def test_the_code_about_looks_runs_and_prints_what_it_says(tmp_path: Path) -> None:
    code = "\n".join(blocks("docs/look.md", "python"))
    assert run(code, tmp_path) == "".join(blocks("docs/look.md", "text"))
    for name in (
        "units.png",
        "by-class.png",
        "map.png",
        "grid.png",
        "map.html",
        "map.npz",
        "placed.png",
        "named.png",
        "ideas.png",
    ):
        assert (tmp_path / name).stat().st_size > 0


def test_the_code_about_attackers_and_defences_runs_and_prints_what_it_says(tmp_path: Path) -> None:
    import skimage

    for name in ("chelsea.png", "coffee.png", "rocket.jpg"):
        Image.open(Path(skimage.__file__).parent / "data" / name).save(tmp_path / Path(name).with_suffix(".png"))
    printed = run("\n".join(blocks("docs/attacks/README.md", "python")), tmp_path)
    assert printed == "".join(blocks("docs/attacks/README.md", "text"))


def test_the_code_about_people_runs_and_prints_what_it_says(tmp_path: Path) -> None:
    code = "\n".join(blocks("docs/people.md", "python"))
    printed = run(code, tmp_path)
    assert printed == "".join(blocks("docs/people.md", "text"))


def test_the_code_and_the_options_of_the_page_on_tuning_hold(tmp_path: Path) -> None:
    from seewhy.method import options
    from seewhy.tune import Recipe

    for code in blocks("docs/tune.md", "python"):
        run(code, tmp_path)
    told = re.findall(r"^\| `(\w+)` \| (?:`(.*?)`)? *\|", (ROOT / "docs" / "tune.md").read_text(), re.MULTILINE)
    assert told == [(each.name, each.default) for each in options(Recipe)]


def test_the_method_in_contributing_is_a_method(tmp_path: Path) -> None:
    (code,) = blocks("CONTRIBUTING.md", "python")
    run(
        code
        + """
import doctest

import torch
from seewhy.method import parse, registry
from seewhy.report.pages import page

found = parse("gradient-sign", room="explain")
assert registry("explain")["gradient-sign"] is GradientSign
module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
answer = found(Classifier(module, size=2), torch.rand(1, 3, 2, 2), 1)
assert torch.equal(answer.values.flatten(), module[1].weight[1].sign())
assert page(GradientSign, whole=True).parts["Values"] == "(N, 3, H, W), without a unit."
assert doctest.testmod() == (0, 5)
""",
        tmp_path,
    )


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_a_document_links_is_there(document: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / document).read_text()):
        assert ((ROOT / document).parent / target).exists(), target


def test_every_command_that_a_document_names_exists() -> None:
    from seewhy.cli import seewhy

    makefile = (ROOT / "Makefile").read_text()
    for document in DOCUMENTS:
        text = (ROOT / document).read_text()
        for command in re.findall(r"(?:`|\n)seewhy ([a-z]+)", text):
            assert command in seewhy.commands, f"{document}: seewhy {command}"
        for target in re.findall(r"`make ([a-z-]+)`", text):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{document}: make {target}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_commands_of_a_document_can_be_given(
    document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every word is read by the command's own parser; methods have their options, and models the layers that are named."""
    from seewhy.cli import seewhy
    from seewhy.cli.shell import Shell
    from seewhy.look.base import Look
    from seewhy.method import parse
    from seewhy.zoo import load

    monkeypatch.chdir(tmp_path)
    for line in "".join(blocks(document, "sh")).replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] != ["seewhy"]:
            continue
        name, command = words[1], seewhy.commands[words[1]]
        with command.make_context(name, words[2:], obj=Shell()) as context:
            for spec in context.params.get("specs") or ():
                method = parse(spec, "" if name == "audit" else name)
                if isinstance(method, Look):
                    method.check(load(f"{context.params['model']},weights=none", check=False))


def maker() -> Any:
    """The page maker, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("make_pages", ROOT / "docs" / "make_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("room", ["explain", "attack", "look"])
def test_every_method_has_its_page_and_the_page_says_what_the_docstring_says(room: str) -> None:
    make = maker()
    known = make.methods(room)
    folder = make.ROOMS[room].folder
    pages = {name: make.page(cls, whole=True) for name, cls in known.items()}
    for name, told in pages.items():
        path = folder / f"{name}.md"
        assert path.exists(), f"{name} has no page: make docs ARGS={name}"
        measured = make.measured_in(path)
        assert "forward" in measured, name
        assert path.read_text() == make.text(told, measured), f"{name}: make docs ARGS=--texts"
        assert 0 < (folder / "images" / f"{name}.jpg").stat().st_size <= make.MOST, name
    assert (folder / "README.md").read_text() == make.index(pages, make.written_in(folder / "README.md")), (
        "make docs ARGS=--texts"
    )
    assert {path.stem for path in folder.glob("*.md")} == {*known, "README"}, "a page of a method that is no more"


def test_a_docstring_that_lacks_a_part_is_refused() -> None:
    from seewhy.errors import SpecError
    from seewhy.report.pages import page

    class Bare:
        """A formula. Values (N, 3, H, W), in logits. Source: nobody."""

        name, room, shows, reading, __dataclass_fields__ = "bare", "explain", "", "", {}  # type: ignore[var-annotated]

    assert page(Bare).parts == {"Values": "(N, 3, H, W), in logits.", "Source": "nobody."}  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=r"Bare lacks Cost, Limits and an example \(>>>\)"):
        page(Bare, whole=True)  # type: ignore[arg-type]


def test_what_occlusion_is_stands_above_what_it_raises() -> None:
    from seewhy.explain import Occlusion
    from seewhy.report.pages import page

    told = page(Occlusion)
    assert told.parts["Raises"].startswith("`InputError` for a window")
    assert told.parts["Raises"].count(".") == 1
    assert any("It is exact" in paragraph for paragraph in told.about)


def test_symbols_stay_as_they_are_where_a_sentence_begins_with_one() -> None:
    capital = maker().capital
    assert [capital(each) for each in ("α is", "images", "", "(N, 3)")] == ["α is", "Images", "", "(N, 3)"]


@pytest.mark.parametrize("document", COMPARISONS)
def test_the_tables_of_a_comparison_were_made_by_its_recipe(document: str) -> None:
    text = (ROOT / document).read_text()
    parts = dict(re.findall(r"<!-- part: (\w+) -->\n(.*?)<!-- end -->", text, re.DOTALL))
    assert len(parts) >= 4
    for name, body in parts.items():
        assert re.search(r"\d{4}-\d\d-\d\d, torch .*`python recipes/people_\w+\.py", body), name
        assert len(body.splitlines()) > 3, name
    assert len(parts) == text.count("<!-- end -->")


def test_the_accuracy_in_the_readme_is_the_recorded_one() -> None:
    import json

    record = json.loads((ROOT / "src" / "seewhy" / "zoo" / "cifar10-resnet20.json").read_text())
    assert f"{100 * record['test_accuracy']:.2f} %" in (ROOT / "README.md").read_text()


def test_the_project_speaks_of_itself_alone() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not tracked:
        pytest.skip("needs a git checkout, to know which files are the project's")
    absolute = re.compile(r"(?<![\w.])/(?:work|root|home|Users)/\w")
    for name in tracked:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".txt", ".html", ".css", ".js"} and path.exists():
            assert not absolute.search(path.read_text()), name
