# Two commands do all their own set-up: `make demo` and `make test`.

PYTHON ?= python3
# bf16 halves the time where the processor multiplies it in hardware.
PRECISION ?= $(shell grep -qsE 'avx512_bf16|amx_bf16' /proc/cpuinfo && echo bf16 || echo no)

.PHONY: setup demo speedrun test test-slow test-lowest quality style results

setup: .venv/installed

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet -r requirements.txt
	touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	.venv/bin/python -m pip install --quiet -r requirements-dev.txt
	touch $@

demo: setup
	.venv/bin/python train_a2n.py --dataset_name sample --permute_channels --scale 2 \
		--recipe cpu --patch_size 48 --max_train_steps 1050 \
		--validation_steps 400 --mixed_precision $(PRECISION) \
		--output_dir out/demo --resume_from_checkpoint latest
	.venv/bin/python evaluate.py --model out/demo --benchmarks sample --per_image \
		--output out/demo/evaluation.json --comparison out/demo/comparison.png --overwrite

# Three trainings, each scored on Set5 x2 when it is over: docs/speedrun.md has the rules.
speedrun: setup
	.venv/bin/python -m benchmarks.speedrun \
		$(if $(BENCHMARK_DIR),--benchmark_dir $(BENCHMARK_DIR)) --overwrite -- \
		train_a2n.py --dataset_name sample --permute_channels --recipe cpu \
		--mixed_precision $(PRECISION)

test: .venv/installed-dev quality
	.venv/bin/python -m pytest -m "not slow" --numprocesses auto --dist loadgroup

test-slow: .venv/installed-dev
	.venv/bin/python -m pytest -m slow --numprocesses auto --dist loadgroup --timeout 0

# The oldest packages that requirements.txt allows, in an environment of its own.
test-lowest:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python \
		--resolution lowest-direct -r requirements.txt pytest==8.3.5
	.venv-lowest/bin/python -m pytest -m "not slow" tests/images tests/test_networks.py \
		tests/test_metrics.py

quality: .venv/installed-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

results: setup
	.venv/bin/python -m results.table

style: .venv/installed-dev
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .
