"""Everything this tool refuses, each as one line that names the thing and the cure."""

from pathlib import Path


class AsrError(Exception):
    """Base of all errors a user can cause; the command line prints its text and exits."""

    exit_code = 1


class UsageError(AsrError):
    """An invalid option or argument."""

    exit_code = 2


class OutOfReachError(UsageError):
    """An amount that cannot be removed from this model."""


class ModelError(AsrError):
    """A model that cannot be read, changed or written."""


class OutputTakenError(ModelError):
    """An output that came into being meanwhile: the model is ``kept`` beside it."""

    def __init__(self, message: str, kept: Path) -> None:
        super().__init__(message)
        self.kept = kept


class CalibrationError(AsrError):
    """Calibration data that cannot be used."""


class ProviderError(AsrError):
    """An execution provider that was asked for and does not work."""


class MissingError(AsrError):
    """A package that is not installed, and that only some uses need."""


class QualityError(AsrError):
    """A model that is worse than the user allows."""

    exit_code = 3
