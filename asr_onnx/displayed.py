"""Results that notebooks show and pandas reads.

Results are records that lie below the reports and do not know them.  What makes a page or a data
frame of one is therefore told from above: the package itself, which is always imported first and
knows all its names, enters it into ``VIEWS``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

VIEWS: dict[str, Callable[[object], Any]] = {}  # by kind: "html", "dataframe"


class Displayed:
    """A result that can be looked at."""

    def _repr_html_(self) -> str:
        """A part of a page: what IPython shows."""
        text: str = VIEWS["html"](self)
        return text

    def to_dataframe(self) -> pandas.DataFrame:
        """A row for each thing the result tells of; columns are named as in the JSON reports.

        Raises ``MissingError`` without pandas.
        """
        return VIEWS["dataframe"](self)
