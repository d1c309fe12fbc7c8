# SPDX-License-Identifier: MIT
# `make run` and `make test` do all set-up themselves. Only `make apt` changes the machine.

KERNEL ?= auto
PYTHON ?= python3
VENV := .venv
L2GATE := $(VENV)/bin/l2gate
PACKAGES := make git gcc libc6-dev mmdebstrap uidmap bubblewrap qemu-system-x86 squashfs-tools cpio zstd \
	debian-archive-keyring ca-certificates python3-venv openssh-client
ARGUMENTS = --kernel '$(KERNEL)' $(if $(HOST),--host '$(HOST)') $(if $(EXPECT),--expect '$(EXPECT)') \
	$(if $(L2),--l2 '$(L2)') $(if $(MODULES),--modules '$(MODULES)') $(if $(BOCHS),--bochs '$(BOCHS)') $(if $(JSON),--json '$(JSON)')
RUFF := $(VENV)/bin/ruff
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
LOCK := requirements-lock.txt
UV := uv==0.13.9
STAMP := $(VENV)/.l2gate-stamp
# Which Python made .venv, and where: .venv serves no other Python and no other place.
IDENTITY = { $(1) -c 'import sys; print(*sys.version_info[:2], sys.base_prefix)' && pwd -P; }
ASKED := $(if $(filter file default,$(origin PYTHON)),$(VENV)/bin/python,$(PYTHON))
OTHER := $(shell $(call IDENTITY,$(ASKED)) 2>/dev/null | cmp -s - $(STAMP) || echo other)

.DEFAULT_GOAL := help
.PHONY: help setup apt venv images run test test-install doctor compare bench soak matrix mutants observe lint \
	unit lock clean distclean

help:
	@echo 'make run    all set-up, then ask KERNEL ($(KERNEL)); also HOST, EXPECT, L2, JSON'
	@echo 'make test   all set-up, then lint, unit tests and the system tests both ways'
	@echo 'make test-install  these commands, typed on bare Debian systems: SUITES, WHO, COLD=no'
	@echo 'make compare  all set-up, then the same cases on the Intel and on the AMD host, side by side'
	@echo 'make doctor   every prerequisite on HOST at once: found, enough, mend'
	@echo 'make bench    where the seconds go, over N (3) runs on each host; make soak: N (50) runs'
	@echo 'make matrix   all set-up, other Debian kernels too, then each kernel on each host: one table'
	@echo 'make mutants  all set-up, then kernels broken on purpose: each must be caught; make observe'
	@echo 'make setup  apt + venv + images: after it nothing is fetched any more'
	@echo 'make apt    Debian packages: the only step that changes the machine (root or sudo)'
	@echo 'make venv   .venv from requirements-lock.txt; make lock: writes that from requirements.txt'
	@echo 'make images Debian trixie, L0/L1/L2 images and kernel modules, into the cache'
	@echo 'make lint   ruff, mypy, and the helper with -Werror'
	@echo 'make unit   the tests that need no VM'
	@echo 'make clean  .venv and build output; make distclean: the cache as well'

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
	  echo "  mend: run 'make apt' as root, or install sudo" >&2; exit 2; fi; \
	echo "installing:" $$missing; \
	$$sudo apt-get update -q && \
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing

venv: $(STAMP)
	@:
# From what the lock names and nothing else, the project's own build too.
$(STAMP): $(LOCK) lib/pyproject.toml $(if $(OTHER),other-venv)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "l2gate needs Python 3.11 or later; $(PYTHON) is older or missing" >&2; \
	    echo "  mend: make PYTHON=/path/to/python3.11" >&2; exit 2; }
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
	@$(L2GATE) run $(ARGUMENTS)

# Side by side, one on each core, up to four: an emulator keeps one core busy.
test: setup lint
	@$(VENV)/bin/python -m pytest -c lib/pyproject.toml --rootdir . -p no:cacheprovider -v \
	  -n auto --maxprocesses 4 --dist worksteal --durations=0 --durations-min=5 \
	  tests/contract tests/unit

# SUITES, WHO (root, user): some of them; COLD=no: with this machine's cache, read-only.
test-install: apt venv $(if $(filter no,$(COLD)),images)
	@$(VENV)/bin/python tests/install $(if $(SUITES),--suites $(SUITES)) $(if $(WHO),--who $(WHO)) \
	  $(if $(COLD),--cold '$(COLD)')

doctor: venv
	@$(L2GATE) doctor $(ARGUMENTS)

compare: setup
	@$(L2GATE) compare --kernel '$(KERNEL)'

bench soak: setup
	@$(L2GATE) $@ $(ARGUMENTS) $(if $(N),--runs '$(N)')

# KERNELS, MUTANTS: some of them; HOST: one host; JOBS: how many at a time.
matrix mutants: setup
	@$(L2GATE) $@ $(if $(HOST),--host '$(HOST)') $(if $(JOBS),--jobs '$(JOBS)') \
	  $(if $(filter matrix,$@),$(KERNELS),$(MUTANTS))

observe: setup
	@$(L2GATE) observe $(if $(HOST),--host '$(HOST)') $(if $(filter-out auto,$(KERNEL)),--kernel '$(KERNEL)')

unit: venv
	@$(VENV)/bin/python -m pytest -c lib/pyproject.toml --rootdir . -p no:cacheprovider tests/unit

lint: venv
	@$(RUFF) check -q --config lib/pyproject.toml lib tests
	@$(RUFF) format -q --check --config lib/pyproject.toml lib tests
	@$(VENV)/bin/mypy --config-file lib/pyproject.toml lib/l2gate tests/unit tests/contract tests/install
	@mkdir -p build && $(MAKE) -s -C lib/helper OUT=../../build l2gate-helper

clean:
	rm -rf build $(VENV) lib/l2gate.egg-info

distclean: clean
	rm -rf "$${L2GATE_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/l2gate}"
