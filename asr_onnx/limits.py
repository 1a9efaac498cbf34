"""How much is taken in of files others wrote: every bound, once, and what is no file at all.

Each bound is far above what honest files need and is checked before memory is asked for.
docs/method.md lists them.
"""

from __future__ import annotations

import stat
from pathlib import Path

from asr_onnx.errors import AsrError

MIB, GIB = 1 << 20, 1 << 30

PIXELS = 80_000_000  # of an image, stored or resized; ImageNet's largest has 61 million
TEXT = 64 * MIB  # of labels, classes, preprocessing or a report; ImageNet's labels take 50
CONFIG = MIB  # of a file of options
SAVED_INPUTS = 4 * GIB  # of a JSON file of arrays
PROTOBUF = 2 * GIB  # protobuf's own
TENSOR = 16 * GIB  # of a stored tensor
UNPACKED, TIMES = GIB, 20  # of what is unpacked, or computed from constants: see most_unpacked
NODES = 200_000  # of a model whose functions are written out


def check_file(path: Path, what: str, error: type[AsrError], most: int | None = None) -> None:
    """Refuse a pipe, socket or device, which might never end, and more than ``most`` bytes.

    Raises ``error`` beginning with ``what``.  A folder, and what is not there, is for the reader to
    tell.
    """
    try:
        found = path.stat()
    except OSError:
        return
    except ValueError:
        raise error(f"{what} cannot be read: its name holds a zero byte") from None
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise error(f"{what} cannot be read: it is a pipe, a socket or a device, give a file")
    if most is not None and stat.S_ISREG(found.st_mode) and found.st_size > most:
        raise error(f"{what} cannot be read: it has more than {size_text(most)}, the most there is")


def most_unpacked(stored: int) -> int:
    """What so many bytes may become, the arrays of a .npz or the constants of a model."""
    return max(UNPACKED, TIMES * stored)


def size_text(size: int) -> str:
    """A number of bytes for people, ``64 MiB`` or ``3.5 GiB``."""
    if size >= GIB:
        return f"{size / GIB:.3g} GiB" if size < 1000 * GIB else f"{size // GIB} GiB"
    return f"{max(1, size // MIB)} MiB"
