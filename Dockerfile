# The command line in a container: docs/packaging.md says how to run it, also read-only and on a GPU.
FROM python:3.13-slim-trixie AS build
WORKDIR /src
RUN pip install --no-cache-dir 'build>=1.2'
COPY pyproject.toml setup.cfg setup.py MANIFEST.in README.md LICENSE ./
COPY sample_models sample_models
COPY asr_onnx asr_onnx
RUN python -m build --wheel --outdir /dist

FROM python:3.13-slim-trixie
# The wheel is lent to this step, so that no layer holds it a second time.
RUN --mount=type=bind,from=build,source=/dist,target=/dist pip install --no-cache-dir /dist/*.whl
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin asr
# Whatever user it runs as, all that is written outside the volume goes to /tmp.
ENV HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib PYTHONUNBUFFERED=1
USER 10001
WORKDIR /data
ENTRYPOINT ["asr-onnx"]
CMD ["--help"]
