"""How every command speaks: answers on stdout, everything else on stderr, and one sentence where something is wrong."""

from __future__ import annotations

import json
import math
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, NoReturn

import click

from seewhy.errors import SeewhyError, nearest

Progress = Callable[[float, float, str], None]

#: exit codes: a user's error, a check that was not met or an error of seewhy's own, and Ctrl-C
WRONG_INPUT, FAILED, INTERRUPTED = 2, 1, 130


@dataclass
class Shell:
    """How a command was asked to speak. `stopped` says how to go on after Ctrl-C."""

    quiet: bool = False
    json: bool = False
    debug: bool = False
    stopped: str = ""

    def answer(self, document: Mapping[str, Any], show: Callable[[], None]) -> None:
        """Give the command's result: one JSON document, or what `show` prints for people."""
        if self.json:
            click.echo(json.dumps(plain(document), ensure_ascii=False, indent=2, allow_nan=False))
        else:
            show()

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> None:
        """A table on stdout: in a terminal as wide as it is, else plain lines, nothing cut off."""
        cells = [[str(cell) for cell in row] for row in rows]
        if sys.stdout.isatty():
            from rich import box
            from rich.console import Console
            from rich.table import Table
            from rich.text import Text

            drawn = Table(*columns, box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
            for row in cells:
                drawn.add_row(*map(Text, row))
            Console(file=sys.stdout, highlight=False).print(drawn)
            return
        if title:
            click.echo(title)
        widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
        for row in (list(columns), *cells):
            click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def say(self, sentence: str) -> None:
        """Something worth knowing, on stderr; silent with --quiet."""
        if not self.quiet:
            click.echo(sentence, err=True)

    def warn(self, sentence: str) -> None:
        """Something that went wrong without ending the command, on stderr."""
        click.echo(click.style("warning: ", fg="yellow") + sentence, err=True)

    def failed(self, name: str, sentence: str) -> None:
        """Something that could not be done with one image, while the others go on."""
        self.warn(sentence if name in sentence else f"{name}: {sentence}")

    @contextmanager
    def progress(self, text: str) -> Iterator[Progress]:
        """A bar on stderr with the time left, where a person is watching: `tell(done, total, what)` moves it on."""
        if self.quiet or not sys.stderr.isatty():
            yield lambda done, total, what: None
            return
        from rich import progress as bars
        from rich.console import Console

        with bars.Progress(
            bars.TextColumn("{task.fields[text]}", markup=False),
            bars.BarColumn(bar_width=30),
            bars.TaskProgressColumn(),
            bars.TimeRemainingColumn(),
            bars.TextColumn("left"),
            bars.TextColumn("{task.description}", markup=False),
            console=Console(stderr=True),
            transient=True,
        ) as drawn:
            task = drawn.add_task("", total=None, text=text)

            def tell(done: float, total: float, what: str) -> None:
                drawn.update(task, completed=done, total=total, description=what)

            yield tell


def shell() -> Shell:
    """The running command's shell."""
    return click.get_current_context().find_object(Shell) or Shell()


class Command(click.Command):
    """A command with examples, which its help shows, and with the options that every command has."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **words: Any) -> None:
        super().__init__(*args, **words)
        self.examples = tuple(examples)
        self.params += [
            _switch("--json", "One JSON document on stdout, and nothing else there."),
            _switch("--quiet", "No progress and no remarks.", "-q"),
            _switch("--debug", "Show the traceback of an error, and the warnings of libraries."),
        ]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"  {example}\n")


class Group(click.Group):
    """Commands, with the nearest names where one is not known."""

    command_class = Command

    def __init__(self, *args: Any, **words: Any) -> None:
        super().__init__(*args, **{**words, "invoke_without_command": True})

    def invoke(self, ctx: click.Context) -> Any:
        answer = super().invoke(ctx)
        if ctx.invoked_subcommand is None:
            click.echo(ctx.get_help())
        return answer

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order in which they were added

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-"):
            way_out = nearest(args[0], known) or f"; there are: {', '.join(known)}"
            raise click.UsageError(f'there is no command "{args[0]}"{way_out}', ctx)
        return super().resolve_command(ctx, args)


class Program(Group):
    """The whole command line: whatever happens inside ends in an exit code, and an error in one sentence."""

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **words: Any
    ) -> NoReturn:
        words.pop("standalone_mode", None)
        spoken = Shell(debug="--debug" in (sys.argv if args is None else args))
        with warnings.catch_warnings():
            if not spoken.debug and not sys.warnoptions:
                warnings.simplefilter("ignore")  # what libraries warn of is theirs, not the reader's
            try:
                code = super().main(args, prog_name or "seewhy", standalone_mode=False, obj=spoken, **words)
                sys.stdout.flush()
            except BaseException as error:
                if isinstance(error, SystemExit):
                    raise
                code, sentence = _sentence(error, spoken)
                if spoken.debug:
                    traceback.print_exception(error)
                _complain(sentence)
        sys.exit(code if isinstance(code, int) else 0)


def _switch(name: str, words: str, *short: str) -> click.Option:
    def keep(ctx: click.Context, option: click.Parameter, value: bool) -> None:
        if value and (held := ctx.find_object(Shell)) is not None and option.name is not None:
            setattr(held, option.name, True)

    return click.Option([name, *short], is_flag=True, expose_value=False, is_eager=True, callback=keep, help=words)


def _sentence(error: BaseException, spoken: Shell) -> tuple[int, str]:
    """The exit code and the sentence of an error."""
    if isinstance(error, click.exceptions.Abort | KeyboardInterrupt):
        return INTERRUPTED, f"stopped{'; ' + spoken.stopped if spoken.stopped else ''}"
    if isinstance(error, SeewhyError):
        return WRONG_INPUT, str(error)
    if isinstance(error, click.ClickException):
        sentence = error.format_message().rstrip(".")
        if isinstance(error, click.NoSuchOption):
            sentence = f"there is no option {error.option_name}{nearest(error.option_name, error.possibilities or ())}"
        ctx = getattr(error, "ctx", None)
        return WRONG_INPUT, sentence if sentence.endswith(
            "?"
        ) or not ctx else f"{sentence}; see {ctx.command_path} --help"
    if isinstance(error, OSError) and error.strerror:
        return WRONG_INPUT, f"{error.filename or 'the system'}: {error.strerror}"
    if _out_of_memory(error):
        return FAILED, "memory ran out; try again with --batch 1, or with fewer or smaller images"
    return FAILED, (
        f"seewhy failed unexpectedly ({type(error).__name__}: {error}); this is a fault of seewhy's: please report it "
        "with what `seewhy doctor` prints, and what the same command prints with --debug"
    )


def _out_of_memory(error: BaseException) -> bool:
    if "seewhy.engine" not in sys.modules:
        return isinstance(error, MemoryError)
    from seewhy.engine import out_of_memory

    return out_of_memory(error)


def _complain(sentence: str) -> None:
    click.echo(click.style("error: ", fg="red", bold=True) + " ".join(sentence.split()), err=True)


def plain(value: Any) -> Any:
    """A value as JSON has it; what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value


def calm_streams(*streams: IO[str]) -> None:
    """Letters that a stream's encoding lacks become question marks instead of an error."""
    for stream in streams:
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
