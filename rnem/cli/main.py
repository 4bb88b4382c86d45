"""The command line, ``rnem``: parse, run one command, and say what the user can put right in one line."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Annotated

import tyro
from tyro.conf import subcommand

from rnem.cli.commands import Campaign, Chapter, Data, Evaluate, Reproduce, Rollout, Train
from rnem.cli.export_command import Export
from rnem.cli.runs_commands import Runs
from rnem.errors import RnemError, printable

Command = (
    Annotated[Train, subcommand("train")]
    | Annotated[Evaluate, subcommand("evaluate")]
    | Annotated[Rollout, subcommand("rollout")]
    | Annotated[Export, subcommand("export")]
    | Annotated[Campaign, subcommand("campaign")]
    | Annotated[Reproduce, subcommand("reproduce")]
    | Annotated[Runs, subcommand("runs", description="The cache of finished runs.\n$ rnem runs list")]
    | Annotated[Chapter, subcommand("chapter")]
    | Annotated[Data, subcommand("data", description="Videos in files.\n$ rnem data check balls4mass64-test.h5")]
)

SETTINGS = (tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff)
DESCRIPTION = """R-NEM, replicated: train the models, look at what they learnt, execute the book's chapters.
$ rnem train smoke-balls4mass-rnem-k5 --seed 0
$ rnem evaluate smoke-balls4mass-rnem-k5@0"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0, 1 (a check failed), 2 (an error of the user, said in one line), 130 (^C)."""
    try:
        command = tyro.cli(Command, prog="rnem", description=DESCRIPTION, args=arguments, config=SETTINGS)
        with _warnings_in_one_line():
            code = command() or 0
            sys.stdout.flush()
            return code
    except KeyboardInterrupt:
        return _say("interrupted (training goes on from its last checkpoint when the command is given again)", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its end
        return 141
    except OSError as error:
        return _say(f"error: {error.filename}: {error.strerror}" if error.filename else f"error: {error}", 2)
    except RnemError as error:
        return _say(f"error: {error}", 2)


def _say(text: str, code: int) -> int:
    print(printable(" ".join(text.split())), file=sys.stderr)
    return code


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Our own warnings, such as of a broken run, without the source line."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def brief(message, category, *place) -> None:
            show(message, category, *place) if category is not UserWarning else _say(f"warning: {message}", 0)

        warnings.showwarning = brief
        yield
