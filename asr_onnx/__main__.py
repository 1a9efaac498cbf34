"""``python -m asr_onnx``"""

from asr_onnx.cli.main import main

if __name__ == "__main__":
    main()
