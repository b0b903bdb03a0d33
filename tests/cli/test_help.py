"""Help: at once, for every command, with examples that hold."""

from __future__ import annotations

import resource
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from seewhy.cli import seewhy
from seewhy.cli.shell import Command, Shell
from seewhy.method import parse
from seewhy.zoo import models

from .conftest import Run


def commands(group: click.Group = seewhy, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            assert isinstance(command, Command)
            yield (*path, name), command


ALL = {" ".join(path): command for path, command in commands()}
EXAMPLES = [example for command in ALL.values() for example in command.examples]


def test_what_there_is() -> None:
    assert set(ALL) == {
        *("audit", "explain", "attack", "look", "versus", "tune", "check", "methods", "models", "model"),
        *("data get", "data show", "report", "doctor"),
    }


@pytest.mark.parametrize("name", ALL)
def test_every_command_has_help_with_examples(name: str, run: Run) -> None:
    result = run(*name.split(), "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.stdout
    for example in ALL[name].examples:
        assert example.startswith(f"seewhy {name}")
        assert example in result.stdout
    for option in ("--json", "--quiet", "--debug", "--help"):
        assert option in result.stdout


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_hold(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every word of an example is read by the command's own parser; every method and model in it is one."""
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text('[[composite]]\nrule = "epsilon"\n')  # a file that examples name
    words = shlex.split(example)[1:]
    name = next(name for name in ALL if words[: len(name.split())] == name.split())
    with ALL[name].make_context(name, words[len(name.split()) :], obj=Shell()) as ctx:
        for spec in ctx.params.get("specs") or ():
            assert spec == "all" or parse(spec, "" if name == "audit" else name).spec
        given = ctx.params.get("model") or (ctx.params.get("spec") if name == "model" else None)
        known = {listed.spec.partition(":")[0] for listed in models()}
        assert given is None or given.partition(":")[0] in known


def test_an_example_that_does_not_hold_is_seen() -> None:
    with pytest.raises(click.NoSuchOption):
        ALL["explain"].make_context("explain", ["cat.jpg", "--methods", "grad-cam"], obj=Shell())


def test_no_command_is_help(run: Run) -> None:
    for words in ((), ("data",)):
        result = run(*words)
        assert result.exit_code == 0
        assert "Commands:" in result.stdout


def test_help_comes_at_once() -> None:
    """Within half a second of work, since neither torch nor any library but click is imported for it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-m", "seewhy", "--help"], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "audit" in done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
    code = "import sys, seewhy.cli; print([name for name in ('torch', 'numpy', 'rich', 'PIL') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_version(run: Run) -> None:
    from seewhy import __version__

    assert run("--version").stdout.strip() == f"seewhy, version {__version__}"
