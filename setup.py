"""Put the sample models into wheels; all else about the package is in pyproject.toml and setup.cfg.

They lie in sample_models/ beside the package, and once only.  An editable installation finds them
there (see asr_onnx/samples.py); a wheel gets them as asr_onnx/sample_models.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SAMPLES = Path("sample_models")
# Those of asr_onnx/samples.py: what else lies in that folder was made by trying things.
PARTS = ("README.md", "digits_resnet_bn.onnx", "digits_resnet_folded.onnx", "digits/*/*/*.png")


class BuildWithSamples(build_py):
    """``build_py``, and the sample models."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for source, target in self._samples().items():
            self.mkpath(str(target.parent))
            self.copy_file(str(source), str(target))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        made = [] if self.editable_mode else [str(t) for t in self._samples().values()]
        return [*super().get_outputs(include_bytecode), *made]

    def _samples(self) -> dict[Path, Path]:
        folder = Path(self.build_lib) / "asr_onnx"
        return {path: folder / path for part in PARTS for path in sorted(SAMPLES.glob(part))}


setup(cmdclass={"build_py": BuildWithSamples})
