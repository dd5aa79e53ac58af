.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
MAKEFLAGS += --no-print-directory
BENCH ?= dedup influence precision ranks scale incontext performance

.PHONY: help setup libnuma run test lint format bench lock chart image kind-up kind-test kind-down test-cluster clean

BIN := .venv/bin
PYTHON_VERSION := 3.11
UV_VERSION := 0.13.9
# pytest: two workers fit 12 GiB; a file's tests stay together, since they share servers and models; in the order of
# the folders, since the longest comes first (tests/acceptance)
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder

# A folder of wheels that pip is told about is good for uv too. Where it has the CPU build of torch, that one is
# taken; elsewhere uv knows where PyTorch publishes its CPU builds. The file, and so its hash, is the same.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
ifeq ($(wildcard $(UV_FIND_LINKS)/torch-*+cpu-*.whl),)
TORCH_BACKEND := --torch-backend cpu
endif

# deepspeed compiles an op when one is used, not at installation
export DS_BUILD_OPS := 0

# Where the environment forbids bytecode, each of a run's processes would compile torch and transformers anew: a training
# then takes 31 s of a core to begin, and 13 s otherwise.
export PYTHONDONTWRITEBYTECODE :=

# The uv on the PATH if it is new enough ([tool.uv] in pyproject.toml), else our own
UV = $(shell uv cache dir >/dev/null 2>&1 && echo uv || echo .uv/bin/uv)
COMPILE = "$$uv" pip compile pyproject.toml -q --generate-hashes --no-header --no-annotate --no-emit-index-url \
	--python-version $(PYTHON_VERSION) --python-platform x86_64-manylinux_2_28 $(LOCK_FLAGS)

# docker, podman or buildah; which of the Dockerfile's targets; the base of all, which a digest pins; gpu-cu12 for CUDA 12
CONTAINER ?= docker
TARGETS ?= controller cpu
PYTHON_IMAGE ?=
GPU_LOCK ?=
BUILD = $(CONTAINER) build $(if $(filter buildah,$(CONTAINER)),--layers) $(if $(PYTHON_IMAGE),--build-arg PYTHON_IMAGE=$(PYTHON_IMAGE)) \
	--build-arg UV_VERSION=$(UV_VERSION) $(if $(GPU_LOCK),--build-arg GPU_LOCK=$(GPU_LOCK))

# A registry (host:port) that kind's nodes pull from; without one, kind load moves whole images (charts/kind-up)
export KIND_REGISTRY ?=
export KIND_CLUSTER ?= montessori
# Of the cluster tests: a context of KUBECONFIG (the current one if empty), images that its nodes can pull, arguments
CONTEXT ?=
TEST_IMAGE ?= montessori-test:dev
CONTROLLER_IMAGE ?= montessori-controller:dev
CLUSTER_ARGS ?= tests/cluster
# What must not be missing; docker: the nodes are containers of this machine, whose processes some faults stop
REQUIRED ?= helm,cluster

STAMP := .venv/.setup-$(shell cat pyproject.toml locks/dev.txt | sha256sum | cut -c1-12)

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 22

.uv/bin/uv:
	@python3 -m venv .uv || { echo "make: python3 has no venv module; install it (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	.uv/bin/pip install -q uv==$(UV_VERSION)

libnuma:
	@[ "$$(uname -s)" = Linux ] || exit 0
	has() { python3 -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null; }
	has && exit 0
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends libnuma1 >/dev/null
	fi
	has || { echo "make: vLLM needs libnuma.so.1; install it (Debian, Ubuntu: sudo apt install libnuma1; Fedora: sudo dnf install numactl-libs)" >&2; exit 1; }

setup: $(STAMP) ## .venv with the locked packages, the project and the built-in model

$(STAMP):
	@$(MAKE) libnuma
	uv=$(UV)
	[ "$$uv" = uv ] || $(MAKE) .uv/bin/uv
	[ -x $(BIN)/python ] || "$$uv" venv -q --python $(PYTHON_VERSION) .venv
	echo "Installing locks/dev.txt into .venv"
	"$$uv" pip sync -q --python $(BIN)/python --require-hashes $(TORCH_BACKEND) locks/dev.txt
	"$$uv" pip install -q --python $(BIN)/python --no-deps -e .
	$(BIN)/python -m stages.models.builtin
	rm -f .venv/.setup-*
	touch $@

run: setup ## the whole loop on this machine: recipes/quickstart.yaml
	@$(BIN)/montessori run recipes/quickstart.yaml

test: setup ## the tests; PYTEST_ARGS="-x tests/contract" for some of them
	@$(BIN)/pytest $(PYTEST_ARGS)

lint: setup ## ruff, mypy, import-linter; the chart's documents, and helm lint where helm is
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python charts/document.py --check charts/montessori
	if command -v helm >/dev/null; then
		for values in charts/montessori/ci/*.yaml; do
			helm lint --quiet --strict --kube-version 1.33.0 charts/montessori -f "$$values"
		done
	else
		echo "make: helm is not on the PATH: the templates were not linted (https://helm.sh/docs/intro/install)"
	fi

format: setup ## rewrite the files as ruff would have them
	@$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## the measurements that README and docs quote; BENCH="influence scale" for some of them
	@for script in $(BENCH); do
		echo "== bench/$$script.py"
		$(BIN)/python -m "bench.$$script"
	done

lock: ## resolve locks/ again; LOCK_FLAGS=--upgrade for newer versions
	@uv=$(UV)
	[ "$$uv" = uv ] || $(MAKE) .uv/bin/uv
	cpu="$(TORCH_BACKEND) --extra cpu --extra k8s --extra lm-eval --excludes locks/cpu-excludes.txt"
	$(COMPILE) $$cpu -o locks/cpu.txt
	$(COMPILE) $$cpu --extra dev --constraints locks/cpu.txt -o locks/dev.txt # the same versions, and developers' tools
	# The CUDA build of torch is the registry's own: a folder of CPU wheels must not win over it.
	for flavor in gpu gpu-cu12; do
		UV_FIND_LINKS= $(COMPILE) --extra $$flavor --extra lm-eval -o locks/$$flavor.txt
	done
	$(COMPILE) --extra k8s --excludes locks/controller-excludes.txt -o locks/controller.txt

chart: setup ## the chart's schema and README from the comments in values.yaml
	@$(BIN)/python charts/document.py charts/montessori

image: ## images montessori-TARGET:dev; CONTAINER=docker|podman|buildah, TARGETS="controller gpu"
	@mkdir -p build/images # their ids: by a tag alone, the tests would take another checkout's images for these
	for target in $(TARGETS); do
		echo "-- montessori-$$target:dev"
		$(BUILD) -q --target "$$target" -t "montessori-$$target:dev" . >"build/images/$$target.part"
		mv "build/images/$$target.part" "build/images/$$target"
	done

kind-up: ## a kind cluster with MinIO, this checkout's images and the chart; again after a change, or half-way
	@charts/kind-up

kind-test: setup ## the tests that need a cluster, on kind-up's
	@[ -f build/kind/test-image ] || { echo "make: there is no cluster yet: make kind-up" >&2; exit 1; }
	$(MAKE) test-cluster KUBECONFIG="$$PWD/build/kind/kubeconfig" TEST_IMAGE="$$(cat build/kind/test-image)" \
		CONTROLLER_IMAGE="$$(cat build/kind/controller-image)" REQUIRED=helm,cluster,docker

kind-down: ## remove kind-up's cluster
	@kind delete cluster -q --name $(KIND_CLUSTER)
	rm -rf build/kind

test-cluster: setup ## the same on any cluster: KUBECONFIG=… CONTEXT=… TEST_IMAGE=… CONTROLLER_IMAGE=… (targets `test`, `controller`)
	@export MONTESSORI_REQUIRE=$(REQUIRED) MONTESSORI_KUBE_CONTEXT="$(CONTEXT)" MONTESSORI_TEST_IMAGE="$(TEST_IMAGE)" \
		MONTESSORI_CONTROLLER_IMAGE="$(CONTROLLER_IMAGE)"
	$(BIN)/pytest $(CLUSTER_ARGS)

clean: ## remove what make and the tools made; runs/ stays
	@rm -rf .venv .uv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +
