"""The command line: commands, and how they end."""

from __future__ import annotations

import io
import os
import signal
import sys
import warnings
from typing import NoReturn

import click

from asr_onnx import interrupts
from asr_onnx.cli.check import check
from asr_onnx.cli.compact import compact
from asr_onnx.cli.compare import compare
from asr_onnx.cli.demo import demo
from asr_onnx.cli.inspect import inspect
from asr_onnx.cli.prune import prune
from asr_onnx.cli.quantize import quantize
from asr_onnx.cli.render import render
from asr_onnx.cli.repair import repair
from asr_onnx.cli.sweep import sweep
from asr_onnx.cli.terminal import complain
from asr_onnx.errors import AsrError
from asr_onnx.provenance import __version__
from asr_onnx.reports.printable import without_controls


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="asr-onnx")
def cli() -> None:
    """Prune an exported ONNX CNN and repair its accuracy without training."""


for _command in (
    repair,
    quantize,
    compare,
    sweep,
    prune,
    compact,
    inspect,
    check,
    render,
    demo,
):
    cli.add_command(_command)


def main() -> None:
    """Run the command line; user errors are one line, with the exit code the error carries."""
    if not (sys.warnoptions or os.environ.get("ASR_ONNX_DEBUG")):
        warnings.simplefilter("ignore")  # libraries warn developers; users are told in lines
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a code page may lack an arrow
    try:
        with interrupts.unwinding():
            cli.main(standalone_mode=False)
    except click.exceptions.Abort:  # a KeyboardInterrupt that came from elsewhere, as of a worker
        interrupts.stop(signal.SIGINT)
    except click.ClickException as error:
        told = io.StringIO()
        error.show(told)
        click.echo(without_controls(told.getvalue()), nl=False, err=True)
        sys.exit(error.exit_code)
    except AsrError as error:
        _fail(str(error), error.exit_code)
    except MemoryError:
        _fail("out of memory: give --memory-limit, a smaller --batch-size or --num-samples", 1)
    except Exception as error:
        if os.environ.get("ASR_ONNX_DEBUG"):
            raise
        _fail(f"unexpected {type(error).__name__}: {error} (ASR_ONNX_DEBUG=1 shows where)", 1)


def _fail(message: str, code: int) -> NoReturn:
    complain(f"error: {message}")
    sys.exit(code)
