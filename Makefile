# One command each. `make` alone lists them.
#
#   PYTHON   the interpreter to make the virtual environment with   (make test PYTHON=python3.12)
#   VENV     where that environment is kept                         (make test VENV=.venv-3.12)
#   ARGS     more words for pytest, the benchmarks or the torture   (make test ARGS="tests/scenarios -k R5")

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=

BIN := $(VENV)/bin
# What hangs ends its worker, and another one goes on: a test that hangs inside an event loop cannot be interrupted.
ALL := -n auto --timeout-method=thread
# Which interpreter an environment was made with is in the name of a stamp inside it: another PYTHON is another
# stamp, so the environment is made anew instead of being used with the wrong Python.
MADE := $(VENV)/.made-with-$(subst /,_,$(PYTHON))
# The tables and pictures of docs/benchmarks.md. The repository has the numbers that they are made of, and not them.
PICTURES := docs/_static/benchmarks/.drawn

# pyright's launcher asks the network for a newer release, unless told not to.
export PYRIGHT_PYTHON_IGNORE_WARNINGS = 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1

# Examples in both flavours: the async one, of which the blocking one is made. A directory is a package.
TWINS := async_chat.py:chat_server.py async_echo.py:echo_threads.py async_http_client.py:http_client.py \
	async_mutual_tls.py:mutual_tls.py async_psk_greeter.py:psk_greeter.py async_starttls.py:starttls.py \
	async_redis_client.py:redis_client.py async_tls_echo.py:tls_echo.py async_udp_echo.py:udp_exchange.py \
	postgres/aio:postgres/blocking

twin = for pair in $(TWINS); do \
	$(BIN)/python -m wireline twin $(1) examples/$${pair%:*} examples/$${pair\#*:} || exit 1; done

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-bench torture lint format types twins man messages docs bench bench-quick clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile
	@echo
	@sed -n 's/^#   /  /p' Makefile

demo: $(VENV)/.has-cli ## watch bytes move: a short story on loopback, each step checked
	$(BIN)/python examples/demo.py

test: $(VENV)/.has-test ## run a sample of the tests in three minutes, or what ARGS says (make test ARGS="tests/net -k R5")
	$(BIN)/python -m pytest $(or $(ARGS),--sample $(ALL))

test-all: $(VENV)/.has-test ## run all tests: every scenario in every flavour, on every loop, over every transport
	$(BIN)/python -m pytest $(ALL) $(ARGS)

test-bench: $(VENV)/.has-test ## run the tests of the benchmarks
	$(BIN)/python -m pytest $(ALL) $(or $(ARGS),tests/benchmarks)

torture: $(VENV)/.has-test ## try the library hard: everything, for hours; or a part (make torture ARGS="syscalls --size ci")
	$(BIN)/python -m tests.torture $(or $(ARGS),--full)

lint: $(VENV)/.has-dev ## ruff (lint and format), import-linter (who may import whom), the measures of tools/house.py
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python tools/house.py
	@$(call twin,--check)

format: $(VENV)/.has-dev ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

twins: $(VENV)/.has-cli ## make the blocking examples of the async ones
	@$(call twin,)

types: $(VENV)/.has-dev ## mypy --strict, and pyright on the public face
	$(BIN)/mypy --strict
	PATH="$(abspath $(BIN)):$$PATH" pyright
	PATH="$(abspath $(BIN)):$$PATH" pyright --verifytypes wireline --ignoreexternal

man: $(VENV)/.has-cli ## write the manual pages, from the parsers as --help is: man -l build/man/wireline.1
	$(BIN)/python tools/man.py build/man

messages: $(VENV)/.has-test ## run the tests of the command, and write docs/reference/messages.md with what it said
	$(BIN)/python tools/messages.py --record

docs: $(VENV)/.has-docs $(PICTURES) ## build the documentation: warnings are errors, links are checked
	$(BIN)/sphinx-build -W --keep-going -n -q -b html docs docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -n -q -b linkcheck docs docs/_build/linkcheck
	@echo "docs: docs/_build/html/index.html"

$(PICTURES): benchmarks/results.json $(wildcard benchmarks/_*.py) | $(VENV)/.has-docs
	$(BIN)/python -m benchmarks --from $< --plots $(@D)
	@touch $@

bench: $(VENV)/.has-bench ## measure everything, every byte checked; a quarter of an hour at most
	$(BIN)/python -m benchmarks --rounds 5 --scale 0.6 $(ARGS)

bench-quick: $(VENV)/.has-bench ## measure the most important rows; two minutes at most
	$(BIN)/python -m benchmarks --headline --quick $(ARGS)

clean: ## remove what these commands made: environments, caches, built pages
	rm -rf .venv .venv-* .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache \
		.ruff_cache build dist docs/_build docs/_static/benchmarks htmlcov src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ----------------------------------------------------------------------------------------- the environment
# `.has-EXTRA`: the project and that extra are installed. Made again when pyproject.toml or constraints.txt changes.

$(VENV)/.has-%: pyproject.toml constraints.txt $(MADE)
	@echo "$(VENV): installing wireline[$*]"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$*]' || { \
		echo "make: cannot install wireline[$*] into $(VENV); pip's own words are above." >&2; \
		echo "      It needs a package index, or wheels of what pyproject.toml lists." >&2; exit 1; }
	@touch $@

.PRECIOUS: $(VENV)/.has-%

# What is there already is kept when it is the same Python and works; else it is made again from nothing.
VERSION := 'import sys; print(sys.version)'

$(MADE):
	@"$(PYTHON)" -c '' || { \
		echo "make: there is no '$(PYTHON)' that runs. Install Python 3.11 or newer, or name one: make PYTHON=..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make: '$(PYTHON)' is $$("$(PYTHON)" -V 2>&1); wireline needs 3.11 or newer: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "make: '$(PYTHON)' cannot make virtual environments: its modules venv and ensurepip are missing" >&2; \
		echo "      (on Debian and Ubuntu they are in the package python3-venv)." >&2; exit 1; }
	@test ! -e "$(VENV)" -o -f "$(VENV)/pyvenv.cfg" || { \
		echo "make: '$(VENV)' is there and is no virtual environment; it is left alone. Say VENV=another" >&2; exit 1; }
	@if test "$$("$(BIN)/python" -c $(VERSION) 2>&1)" = "$$("$(PYTHON)" -c $(VERSION))" \
		&& "$(BIN)/python" -m pip --version >/dev/null 2>&1; then \
		echo "$(VENV): using it as it is"; \
	else \
		echo "$(VENV): making it with $$("$(PYTHON)" -V)"; "$(PYTHON)" -m venv --clear "$(VENV)"; \
	fi
	@touch $@
