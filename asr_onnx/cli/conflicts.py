"""Options that exclude each other, one given here and one there: which of them is dropped.

What stands nearer wins: the command line over a file, a command's table over that of all.  Some
of it would go together if it were given in one place, as a sparsity and an N:M pattern do, and yet
whoever gives one of them alone means that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

from asr_onnx.data.source import ImageOptions
from asr_onnx.options import FLOAT16, INT8, MASK_OPTIONS

Words = Mapping[str, Any]  # by the name of the parameter, as the command line has them

_LOADERS = ("data_loader_script", "load_inputs")
_IMAGES = tuple(f.name for f in fields(ImageOptions))
_CHOOSE = tuple(n for n in MASK_OPTIONS if n != "exclude")
_INT8, _HALF = (INT8,), (FLOAT16, "fp16")


@dataclass(frozen=True)
class Rule:
    """What is ``given`` nearer drops ``dropped`` from farther off, ``when`` the rest is so.

    ``when`` is asked of all words together and of the options that the command has.
    """

    given: tuple[str, ...]
    dropped: tuple[str, ...]
    when: Callable[[Words, Collection[str]], bool] = lambda words, known: True


def _channel(words: Words) -> bool:
    return words.get("pattern") == "channel"


def _n_of_m(words: Words) -> bool:
    return ":" in str(words.get("pattern"))


def _automatic(words: Words) -> bool:
    return "auto" in (words.get("sparsity"), words.get("macs"))


RULES = (
    # How much is removed.
    Rule(("sparsity",), ("pattern",), lambda words, known: not _channel(words)),
    Rule(("pattern",), ("sparsity", "macs"), lambda words, known: not _channel(words)),
    Rule(("sparsity",), ("macs",)),
    Rule(("macs",), ("sparsity",)),
    Rule(("sparsity", "pattern"), ("only_eligible",), lambda words, known: not _n_of_m(words)),
    Rule(
        ("sparsity", "pattern", "macs"),
        ("auto_steps", "work_dir"),
        lambda words, known: not _automatic(words),
    ),
    # The mask: a model that is pruned already brings it along (--dense of repair, not of quantize).
    Rule(("dense",), _CHOOSE, lambda words, known: "sparsity" in known),
    Rule(_CHOOSE, ("dense",), lambda words, known: "sparsity" in known),
    Rule(
        ("dense",),
        ("exclude",),
        lambda words, known: "sparsity" in known and words.get("precision") not in _INT8,
    ),
    Rule(
        ("exclude",),
        ("dense",),
        lambda words, known: "sparsity" in known and words.get("precision") not in _INT8,
    ),
    # Where data come from; what a loader gives is fed as it is.
    Rule(("calib",), _LOADERS),
    Rule(_LOADERS, ("calib",)),
    Rule(("data",), _LOADERS, lambda words, known: "calib" not in known),
    Rule(_LOADERS, ("data",), lambda words, known: "calib" not in known),
    Rule(_LOADERS[:1], _LOADERS[1:]),
    Rule(_LOADERS[1:], _LOADERS[:1]),
    Rule(_LOADERS, _IMAGES, lambda words, known: "data" not in words),
    Rule(("no_labels",), ("labels", "classes")),
    Rule(("labels", "classes"), ("no_labels",)),
    # What is about one precision.
    Rule(("precision",), ("engine", "ranges"), lambda words, known: words["precision"] != INT8),
    Rule(("precision",), ("float32_io",), lambda words, known: words["precision"] not in _HALF),
)


def without_conflicts(near: Words, far: Words, known: Collection[str]) -> dict[str, str]:
    """Names in ``far`` that what ``near`` has excludes, each with the name in ``near``.

    ``known`` are the names of the command's options.
    """
    both = {**far, **near}
    found: dict[str, str] = {}
    for rule in RULES:
        given = next((name for name in rule.given if name in near), None)
        for name in rule.dropped if given else ():
            if name in both and name not in near and rule.when(both, known):
                found[name] = str(given)
                del both[name]
    return found
