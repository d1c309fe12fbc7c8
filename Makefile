# SPDX-License-Identifier: MIT
# `make run` and `make test` do all set-up themselves. Only `make apt` changes the machine.

PYTHON ?= python3
VENV := .venv
L2GATE := $(VENV)/bin/l2gate
PACKAGES := make git gcc libc6-dev mmdebstrap uidmap bubblewrap qemu-system-x86 squashfs-tools cpio zstd \
	debian-archive-keyring ca-certificates python3-venv openssh-client clang-format shellcheck
RUFF := $(VENV)/bin/ruff
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
LOCK := requirements-lock.txt
UV := uv==0.13.9
STAMP := $(VENV)/.l2gate-stamp
# Which Python made .venv, and where: .venv serves no other Python and no other place.
IDENTITY = { $(1) -c 'import sys; print(*sys.version_info[:2], sys.base_prefix)' && pwd -P; }
ASKED := $(if $(filter file default,$(origin PYTHON)),$(VENV)/bin/python,$(PYTHON))
OTHER := $(shell $(call IDENTITY,$(ASKED)) 2>/dev/null | cmp -s - $(STAMP) || echo other)

# What each goal takes on make's command line, and the option that it becomes. Anything else there
# would silently be another question: it is refused, and so is a value that is empty.
JOB := HOST KERNEL EXPECT_KERNEL EXPECT CASE L2 PROOF QEMU MODULES WAIT SSH_CONFIG BOCHS PATIENCE
TAKES_run := $(JOB) JSON TESTS
TAKES_doctor := HOST KERNEL EXPECT_KERNEL L2 QEMU MODULES SSH_CONFIG BOCHS PATIENCE
TAKES_compare := KERNEL EXPECT CASE L2 PROOF BOCHS PATIENCE
TAKES_bench := $(JOB) N
TAKES_soak := $(JOB) N
TAKES_matrix := HOST JOBS BOCHS PATIENCE KERNELS
TAKES_mutants := HOST JOBS BOCHS PATIENCE MUTANTS
TAKES_eras := HOST JOBS BOCHS PATIENCE TREES
TAKES_observe := HOST KERNEL BOCHS PATIENCE
TAKES_test-install := SUITES WHO COLD
FLAG_HOST := --host
FLAG_KERNEL := --kernel
FLAG_EXPECT_KERNEL := --expect-kernel
FLAG_EXPECT := --expect
FLAG_CASE := --case
FLAG_L2 := --l2
FLAG_PROOF := --proof
FLAG_QEMU := --qemu
FLAG_MODULES := --modules
FLAG_WAIT := --wait
FLAG_SSH_CONFIG := --ssh-config
FLAG_BOCHS := --bochs
FLAG_PATIENCE := --patience
FLAG_JSON := --json
FLAG_N := --runs
FLAG_JOBS := --jobs
FLAG_SUITES := --suites
FLAG_WHO := --who
FLAG_COLD := --cold
GOALS := $(or $(MAKECMDGOALS),help)
TAKEN := $(foreach goal,$(GOALS),$(TAKES_$(goal)))
GIVEN := $(foreach v,$(.VARIABLES),$(if $(filter command,$(origin $v)),$v))
UNKNOWN := $(firstword $(filter-out $(TAKEN) PYTHON CC CFLAGS,$(GIVEN)))
EMPTY := $(firstword $(foreach v,$(filter $(TAKEN) PYTHON,$(GIVEN)),$(if $(strip $($v)),,$v)))
# Many a login shell sets HOST to this machine's name; what is none of l2gate's is not meant for it.
MEANT := $(filter-out HOST,$(TAKEN)) $(if $(filter auto local emulated-% ssh:%,$(HOST)),HOST)
STRAY := $(firstword $(foreach v,$(MEANT),$(if $(filter environment,$(origin $v)),$v)))
LIKE = $(shell $(PYTHON) -c 'import difflib, sys; \
  print(*(", did you mean " + w + "?" for w in difflib.get_close_matches(sys.argv[1], sys.argv[2:], 1)))' \
  $(UNKNOWN) $(TAKEN) 2>/dev/null)
$(if $(UNKNOWN),$(error make $(GOALS) does not take $(UNKNOWN)$(or $(LIKE),.) It takes: $(or $(TAKEN),nothing)))
$(if $(EMPTY),$(error $(EMPTY) is empty; is a variable not set? leave $(EMPTY) out, or give it a value))
$(if $(STRAY),$(error $(STRAY) in the environment is not read; write: make $(GOALS) $(STRAY)=...))
quoted = '$(subst ','\'',$($(1)))'
OPTIONS = $(foreach v,$(filter $(TAKEN),$(GIVEN)),$(if $(FLAG_$v),$(FLAG_$v) $(call quoted,$v)))
WORDS = $(foreach v,TESTS KERNELS MUTANTS TREES,$(if $(filter $v,$(GIVEN)),$($v)))

.DEFAULT_GOAL := help
# `make -j run` must not make .venv before `apt` has brought what makes it.
.NOTPARALLEL:
.PHONY: help setup apt venv images run test test-install doctor compare bench soak matrix mutants eras observe lint \
	unit lock clean distclean

help:
	@echo 'make run    all set-up, then ask KERNEL (debian:6.12+patched) on HOST (emulated-intel);'
	@echo '            also $(filter-out HOST KERNEL,$(TAKES_run))'
	@echo 'make test   all set-up, then lint, unit tests and the system tests both ways'
	@echo 'make test-install  these commands, typed on bare Debian systems: SUITES, WHO, COLD=no'
	@echo 'make compare  all set-up, then the same cases on the Intel and on the AMD host, side by side'
	@echo 'make doctor   every prerequisite on HOST at once: found, enough, hint'
	@echo 'make bench    where the seconds go, over N (3) runs on each host; make soak: N (50) runs'
	@echo 'make matrix   all set-up, other Debian kernels too, then each kernel on each host: one table'
	@echo 'make mutants  all set-up, then kernels broken on purpose: each must be caught; make observe'
	@echo 'make eras   kernels built from your source trees TREES (4.4 to 6.x), on each host: one table'
	@echo 'make setup  apt + venv + images: after it nothing is fetched any more'
	@echo 'make apt    Debian packages: the only step that changes the machine (root or sudo)'
	@echo 'make venv   .venv from requirements-lock.txt; make lock: writes that from requirements.txt'
	@echo 'make images Debian trixie, L0/L1/L2 images and kernel modules, into the cache'
	@echo 'make lint   ruff, mypy, clang-format, shellcheck, and the helper with -Werror'
	@echo 'make unit   the tests that need no VM'
	@echo 'make clean  .venv and build output; make distclean: cache and state as well'

setup: apt venv images

# Installs only what is missing, so that it asks neither the network nor for a password twice.
apt:
	@missing=$$(for p in $(PACKAGES); do \
	  dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || \
	  { [ $$p = python3-venv ] && $(PYTHON) -c 'import ensurepip' 2>/dev/null; } || echo $$p; done); \
	[ -z "$$missing" ] && exit 0; \
	sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	if [ -n "$$sudo" ] && ! command -v sudo >/dev/null; then \
	  echo "l2gate needs these packages:" $$missing >&2; \
	  echo "  hint: run 'make apt' as root, or install sudo" >&2; exit 2; fi; \
	echo "installing:" $$missing; \
	$$sudo apt-get update -q && \
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing

venv: $(STAMP)
	@:
# From what the lock names and nothing else, the project's own build too.
$(STAMP): $(LOCK) lib/pyproject.toml $(if $(OTHER),other-venv)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "l2gate needs Python 3.11 or later; $(PYTHON) is older or missing" >&2; \
	    echo "  hint: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo 'making .venv'
	@$(if $(OTHER),$(PYTHON) -m venv --clear $(VENV),rm -f $@)
	@$(PIP) install -q --require-hashes -r $(LOCK)
	@$(PIP) install -q --no-deps --no-build-isolation \
	  --config-settings editable_mode=compat -e lib
	@$(call IDENTITY,$(VENV)/bin/python) >$@
.PHONY: other-venv
other-venv:

# Writes the lock from requirements.txt; what is in it already stays as it is: to take newer
# versions of all that requirements.txt does not name, remove the lock first.
lock:
	@$(PYTHON) -m venv build/lock && build/lock/bin/python -m pip install -q $(UV)
	@build/lock/bin/uv pip compile -q --no-config --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --custom-compile-command 'make lock' -o $(LOCK) requirements.txt

images: venv
	@$(L2GATE) images

run: setup
	@$(L2GATE) run $(OPTIONS) $(WORDS)

# Side by side, one on each core, up to four: an emulator keeps one core busy.
test: setup lint
	@$(VENV)/bin/python -m pytest -c lib/pyproject.toml --rootdir . -p no:cacheprovider -v \
	  -n auto --maxprocesses 4 --dist worksteal --durations=0 --durations-min=5 \
	  tests/acceptance tests/unit

# SUITES, WHO (root, user): some of them; COLD=no: with this machine's cache, read-only.
test-install: apt venv $(if $(filter no,$(COLD)),images)
	@$(VENV)/bin/python tests/install $(foreach v,$(filter $(TAKEN),$(GIVEN)),$(FLAG_$v) $($v))

doctor: venv
	@$(L2GATE) doctor $(OPTIONS)

# KERNELS, MUTANTS: some of them; JOBS: how many at a time; N: how many runs. TREES: Linux source trees
# of yours, 4.4 to 6.x; the first call fetches the compiler for them.
compare bench soak matrix mutants eras observe: setup
	@$(L2GATE) $@ $(OPTIONS) $(WORDS)

unit: venv
	@$(VENV)/bin/python -m pytest -c lib/pyproject.toml --rootdir . -p no:cacheprovider tests/unit

lint: venv
	@$(RUFF) check -q --config lib/pyproject.toml lib tests
	@$(RUFF) format -q --check --config lib/pyproject.toml lib tests
	@$(VENV)/bin/mypy --config-file lib/pyproject.toml lib/l2gate tests/unit tests/acceptance tests/install tests/injection
	@clang-format --dry-run -Werror lib/helper/*.[ch] images/bochs/*.c
	@find .ci images lib -name '*.sh' -exec shellcheck --shell=dash {} +
	@shellcheck .ci/run
	@mkdir -p build && $(MAKE) -s -C lib/helper OUT=../../build l2gate-helper

clean:
	if [ -x $(L2GATE) ]; then $(L2GATE) warm --stop; fi
	rm -rf build $(VENV) lib/l2gate.egg-info

distclean: clean
	rm -rf "$${L2GATE_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/l2gate}" \
	  "$${L2GATE_STATE:-$${XDG_STATE_HOME:-$$HOME/.local/state}/l2gate}"
