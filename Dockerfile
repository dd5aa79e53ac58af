# One file, three images: `controller` (no machine-learning library), `cpu` and `gpu` (every stage).
#   make image                                # controller and cpu; CONTAINER=docker|podman|buildah, TARGETS="controller gpu"
#   docker build --target cpu -t montessori-cpu .
# Plain Dockerfile instructions, so that docker with and without BuildKit, podman and buildah all build it. What changes
# seldom comes first: packages from the lock, the built-in model, then the project's code, so that a change of code
# rebuilds and moves some megabytes. A digest pins the base: --build-arg PYTHON_IMAGE=python@sha256:…
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS base
# torch and others ask for the user's name. /tmp and /cache are the writable places of a read-only root.
RUN echo 'montessori:x:10001:10001::/tmp:/usr/sbin/nologin' >>/etc/passwd && echo 'montessori:x:10001:' >>/etc/group \
 && mkdir -m 1777 /cache
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp MONTESSORI_CACHE=/cache HF_HOME=/cache/huggingface \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app

FROM base AS builder
ARG UV_VERSION=0.13.9
RUN pip install --no-cache-dir --root-user-action=ignore --disable-pip-version-check -q uv==${UV_VERSION}
# deepspeed compiles an op when one is used, not at installation. Bytecode is made here, since the root is read-only
# later, and is not checked against its source's time, which copying between layers may change.
ENV DS_BUILD_OPS=0 UV_NO_CACHE=1 UV_LINK_MODE=copy PYC_INVALIDATION_MODE=UNCHECKED_HASH
# The project lies beside the environment, found by a .pth file: PYTHONPATH stays free for stages of somebody else's.
# A folder of wheels in the base image that has the CPU build of torch wins over PyTorch's own index.
RUN printf '%s\n' '#!/bin/sh -eu' \
      'uv venv -q --python "$(command -v python3)" /opt/venv' \
      'if [ "$1" = cpu ] && ! ls "${UV_FIND_LINKS:-/nowhere}"/torch-*+cpu-*.whl >/dev/null 2>&1; then' \
      '  set -- "$1" --torch-backend cpu' \
      'fi' \
      'lock=/locks/$1.txt; shift' \
      'uv pip sync -q --python /opt/venv --compile-bytecode --require-hashes "$@" "$lock"' \
      'echo /app >"$(echo /opt/venv/lib/python*/site-packages)/montessori.pth"' \
      >/usr/local/bin/install-lock && chmod 755 /usr/local/bin/install-lock

# The code, with its bytecode and what the controller knows of the stages' packages.
FROM builder AS code
COPY locks/cpu.txt locks/gpu.txt locks/gpu-cu12.txt /locks/
COPY recipes /app/recipes
COPY stages /app/stages
COPY flow /app/flow
COPY k8s /app/k8s
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /app \
 && python3 -m k8s.versions /locks/cpu.txt >/app/stage-versions-cpu.json \
 && python3 -m k8s.versions /locks/gpu.txt /locks/cpu.txt >/app/stage-versions-gpu.json \
 && python3 -m k8s.versions /locks/gpu-cu12.txt /locks/cpu.txt >/app/stage-versions-gpu-cu12.json

FROM builder AS controller-packages
COPY locks/controller.txt /locks/
# Half of the packages' size is what this program never opens: the Kubernetes client's asynchronous copy, bytecode of
# its 700 generated models (loaded on demand), and AWS's descriptions of services other than the store's.
RUN install-lock controller && cd /opt/venv/lib/python*/site-packages \
 && rm -r kubernetes/aio && rm -r kubernetes/client/models/__pycache__ kubernetes/client/api/__pycache__ \
 && find botocore/data -mindepth 1 -maxdepth 1 -type d ! -name s3 ! -name sts ! -name 'sso*' ! -name signin -exec rm -r {} +

FROM base AS controller
COPY --from=controller-packages /opt/venv /opt/venv
COPY --from=code /app /app
USER 10001:10001
ENTRYPOINT ["python", "-m", "k8s"]

FROM builder AS cpu-packages
COPY locks/cpu.txt /locks/
RUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends binutils >/dev/null
# Debuggers' symbols of vLLM and torch, and the tests of five packages: half a gigabyte that no stage reads.
RUN install-lock cpu && cd /opt/venv/lib/python*/site-packages \
 && strip --strip-unneeded vllm/*.so torch/lib/libtorch_*.so \
 && find pandas pyarrow scipy sklearn sympy -type d -name tests -prune -exec rm -r {} +

# builtin:smollm2, so that a pod needs no hub: converted with the packages above and no more code than does it.
FROM cpu-packages AS model
COPY stages/__init__.py /app/stages/
COPY stages/contract/__init__.py stages/contract/errors.py /app/stages/contract/
COPY stages/contract/store /app/stages/contract/store
COPY stages/models /app/stages/models
RUN python -m stages.models.builtin

FROM base AS runtime
# vLLM looks for NUMA nodes
RUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends libnuma1 >/dev/null \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*

FROM runtime AS cpu
COPY --from=cpu-packages /opt/venv /opt/venv
COPY --from=model /opt/venv/share/montessori /opt/venv/share/montessori
COPY --from=code /app /app
# Threads that wait for the next product spin, and pods that share cores spin away each other's time: two first-order
# stages on two cores took 2.3 s a score each with GNU OpenMP's default and 0.58 s with this; one alone 0.38 and 0.42 s.
ENV GOMP_SPINCOUNT=1000
USER 10001:10001
ENTRYPOINT ["python", "-m", "stages"]

# What the cluster tests run: the stages and the controller, and toy stages that start in a second.
FROM cpu AS test
COPY tests /app/tests
ENTRYPOINT ["python", "-m", "tests.cluster.toy"]

# CUDA 13; GPU_LOCK=gpu-cu12 for drivers before 580, with `stages.flavor: gpu-cu12` in the chart's values.
FROM builder AS gpu-packages
ARG GPU_LOCK=gpu
COPY locks/gpu.txt locks/gpu-cu12.txt /locks/
RUN install-lock ${GPU_LOCK}

# The CUDA libraries come with the wheels, the driver with the node. Triton compiles its launchers where they run.
FROM runtime AS gpu
RUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends gcc libc6-dev >/dev/null \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
COPY --from=gpu-packages /opt/venv /opt/venv
COPY --from=model /opt/venv/share/montessori /opt/venv/share/montessori
COPY --from=code /app /app
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
ENTRYPOINT ["python", "-m", "stages"]
