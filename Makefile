# `make demo` and `make test` do all their own set-up on a fresh machine.
VENV := .venv
PY := $(VENV)/bin/python
GPU_COMPILER := .gpu_compiler
SELENIUM := .selenium
SEED ?= 0
OUT ?= outputs/demo
SOAK ?= outputs/soak
export MUJOCO_GL ?= egl

.PHONY: demo test test-slow test-chaos test-ray test-aot test-libero test-browser docs docs-serve soak style lint bench bench-gpu bench-algorithms install system-packages browser-packages clean

demo: install
	$(PY) -m bridge.demo --seed=$(SEED) --output_dir=$(OUT)

test: install
	$(PY) -m pytest -n 2 --dist worksteal

# Tests that take long and have a quicker sibling in `make test`; and that the benchmarks run and compare equals.
test-slow: install
	JAX_PLATFORMS=cpu $(PY) -m pytest -n 2 --dist worksteal -m slow

# Kills, stops and starves real processes, rots their files and fills their disks; about three minutes.
test-chaos: install
	JAX_PLATFORMS=cpu $(PY) -m pytest -n 2 --dist worksteal tests/chaos

# A launch on a Ray cluster of two nodes on this machine: an actor is killed, a node taken away.
test-ray: $(VENV)/.ray_installed
	JAX_PLATFORMS=cpu $(PY) -m pytest tests/cluster

# Compiles the published size for NVIDIA cards, without one: what memory it takes, and by which arithmetic.
test-aot: install $(GPU_COMPILER)/.installed
	JAX_PLATFORMS=cpu PYTHONPATH=$(GPU_COMPILER) $(PY) -m pytest -s tests/aot

# Needs LIBERO's assets (pirl-libero-setup); skips without. The slow ones too.
test-libero: install
	$(PY) -m pytest -n 2 --dist worksteal -m "slow or not slow" tests/libero

# The documentation as a site, in build/site/; whatever a link, an anchor or a docstring lacks is an error.
docs: install
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet --config-file docs/site/mkdocs.yml
	@echo "built: build/site/index.html"

docs-serve: install
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs serve --strict --config-file docs/site/mkdocs.yml

# The pages of a run and of an evaluation in a real Chromium; writes the pictures of the docs.
test-browser: install browser-packages $(SELENIUM)/.installed
	JAX_PLATFORMS=cpu PYTHONPATH=$(SELENIUM) $(PY) -m pytest tests/browser

# Hours: a million made-up messages, a learner restarted again and again, 64 actors, 20 rounds of trouble, 200
# crash points. Each part writes a JSON into $(SOAK); the first two go on there if they were stopped.
soak: install
	nice $(PY) tests/soak/fuzz.py --output=$(SOAK)/fuzz.json
	nice $(PY) tests/soak/restarts.py --folder=$(SOAK)/restarts --output=$(SOAK)/restarts.json
	nice $(PY) tests/soak/many_actors.py --output=$(SOAK)/many_actors.json
	JAX_PLATFORMS=cpu nice $(PY) -m pytest tests/chaos/test_rounds.py --rounds=20 --hang_after_s=60 --result=$(SOAK)/rounds.json
	JAX_PLATFORMS=cpu nice $(PY) -m pytest tests/chaos/test_rounds.py --rounds=20 --served \
		--hang_after_s=60 --result=$(SOAK)/served_rounds.json
	JAX_PLATFORMS=cpu nice $(PY) -m pytest tests/chaos/test_saving.py --crash_points=200 \
		--result=$(SOAK)/crash_points.json

style: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

lint: style
	$(VENV)/bin/pyright

bench: install
	@for bench in $(filter-out %/bench_gpu.py,$(wildcard tests/benchmarks/bench_*.py)); do \
		echo "== $$bench"; $(PY) $$bench || exit 1; done

# On a GPU: speed against torch, memory against the plan, what each precision costs (docs/benchmarks.md).
bench-gpu: install
	$(PY) tests/benchmarks/bench_gpu.py --output_dir=outputs/bench_gpu

# Every noise mode with every algorithm on a task with a known optimum and gradient.
bench-algorithms: install
	$(PY) tests/benchmarks/bench_algorithms.py

install: system-packages $(VENV)/.installed
	@echo "installed: $(VENV) has pirl-jax, LeRobot, LIBERO and what the tests need. To use it: source $(VENV)/bin/activate"

# uv where it works, else python3.12's own venv and pip; with pip inside either, for what is added later.
$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "Installing into $(VENV): torch and jax take a few minutes the first time."
	@if uv --version >/dev/null 2>&1; then \
		[ -x $(PY) ] || uv venv --quiet --seed --python 3.12 $(VENV); \
		uv pip install --quiet --compile-bytecode --python $(PY) --constraint constraints.txt --editable ".[dev]"; \
	else \
		[ -x $(PY) ] || $$(command -v python3.12 || echo python3) -m venv $(VENV); \
		$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 12))' || \
			{ rm -rf $(VENV); echo "Python >= 3.12 is needed: install python3.12 (or uv) and run again." >&2; exit 1; }; \
		$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"; \
	fi
	@touch $@

$(VENV)/.ray_installed: $(VENV)/.installed
	@if uv --version >/dev/null 2>&1; then \
		uv pip install --quiet --python $(PY) --constraint constraints.txt --editable ".[dev,ray]"; \
	else \
		$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev,ray]"; \
	fi
	@touch $@

# JAX's CUDA compiler, which needs no GPU and no driver; beside the environment, in which it would look for one.
$(GPU_COMPILER)/.installed: $(VENV)/.installed
	@version=$$($(PY) -c 'import jax; print(jax.__version__)'); \
	wheels="jax-cuda13-plugin==$$version jax-cuda13-pjrt==$$version nvidia-cuda-nvcc nvidia-cuda-crt nvidia-nvvm"; \
	if uv --version >/dev/null 2>&1; then \
		uv pip install --quiet --python $(PY) --target $(GPU_COMPILER) --no-deps $$wheels; \
	else \
		$(PY) -m pip install --quiet --disable-pip-version-check --target $(GPU_COMPILER) --no-deps $$wheels; \
	fi
	@touch $@

# What steers a browser; beside the environment, in which HTTP clients would load its trio at every start.
$(SELENIUM)/.installed: $(VENV)/.installed
	@if uv --version >/dev/null 2>&1; then \
		uv pip install --quiet --python $(PY) --target $(SELENIUM) --constraint constraints.txt selenium; \
	else \
		$(PY) -m pip install --quiet --disable-pip-version-check --target $(SELENIUM) \
			--constraint constraints.txt selenium; \
	fi
	@touch $@

# MuJoCo renders off-screen through EGL; a bare Debian or Ubuntu lacks Mesa's software implementation.
system-packages: PACKAGES := libegl1 libegl-mesa0 libgl1-mesa-dri libgles2 libglvnd0 libosmesa6
system-packages: PURPOSE := Off-screen rendering
# Debian's own browser, and what steers it.
browser-packages: PACKAGES := chromium chromium-driver
browser-packages: PURPOSE := A browser to test with
system-packages browser-packages:
	@if command -v dpkg >/dev/null 2>&1 && [ -z "$$PIRL_SKIP_SYSTEM_PACKAGES" ]; then \
		missing=""; for p in $(PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
		if [ -n "$$missing" ]; then \
			if [ "$$(id -u)" = 0 ]; then sudo=""; elif sudo -n true 2>/dev/null; then sudo="sudo"; else sudo="none"; fi; \
			if [ "$$sudo" = none ]; then \
				echo "$(PURPOSE) needs:$$missing"; echo "Run: sudo apt-get install$$missing"; \
				echo "(or set PIRL_SKIP_SYSTEM_PACKAGES=1 where a GPU driver provides EGL)"; exit 1; \
			fi; \
			echo "Installing$$missing"; $$sudo apt-get update -qq; \
			DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
		fi; \
	fi

clean:
	rm -rf $(VENV) $(GPU_COMPILER) $(SELENIUM) outputs build
