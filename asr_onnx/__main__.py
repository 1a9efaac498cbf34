"""``asr-onnx`` and ``python -m asr_onnx``: watch signals before the imports that take long."""

from asr_onnx import interrupts


def main() -> None:
    """Import the command line and run it."""
    interrupts.end_at_once()
    from asr_onnx.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
