# make run    the gateway, ready to be called (installs what it needs on first use)
# make call   a test call to it: the clinic conversation
# make pjsip  builds PJSIP as a gateway needs it and installs it (3 minutes, once; native/pjsua2/README.md)
# make test   make check (fast, deterministic) and make e2e (real processes, real time)
# make show   every case of what make e2e tries a few of: each backend on each leg, each fault of each service
# make bench  see bench/README.md
SHELL := /bin/bash
PYTHON ?= $(shell scripts/find-python)
VENV ?= .venv
TRUNKLINE := $(VENV)/bin/trunkline
.PHONY: run call pjsip test check e2e show setup setup-test lock diagrams clean

run: setup
	@exec $(TRUNKLINE) serve

call: setup
	@$(TRUNKLINE) call http://$${TRUNKLINE_HTTP__HOST:-127.0.0.1}:$${TRUNKLINE_HTTP__PORT:-8080}/twilio/voice \
	  --script scripts/clinic.caller --out reply.wav && echo "The call is in reply.wav (left: caller, right: agent)."

setup:
	@scripts/setup "$(PYTHON)" "$(VENV)" run

setup-test:
	@scripts/setup "$(PYTHON)" "$(VENV)" test

pjsip:
	@scripts/setup "$(PYTHON)" "$(VENV)" build
	@scripts/pjsip "$(VENV)"

test: setup-test
	@$(MAKE) --no-print-directory pjsip
	@$(MAKE) --no-print-directory check e2e

check: setup-test
	@scripts/check "$(VENV)"

e2e: setup-test pjsip
	@scripts/e2e "$(VENV)"

show: setup-test pjsip
	@$(VENV)/bin/python -m pytest -q -m "e2e and show" -n 2

PIN := -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url \
  --no-emit-find-links
# Pins every dependency of every extra for all supported Pythons, with hashes; what `make run` installs is a part of it.
lock: setup-test
	@$(VENV)/bin/pip install -q uv
	@$(VENV)/bin/uv pip compile $(PIN) --all-extras pyproject.toml -o requirements-test.lock
	@$(VENV)/bin/uv pip compile $(PIN) --extra local --extra openai --extra webrtc --extra build -c requirements-test.lock \
	  pyproject.toml -o requirements.lock
	@$(VENV)/bin/uv pip compile $(PIN) native/pjsua2/tools.in -o native/pjsua2/tools.lock
	@$(VENV)/bin/uv pip compile $(PIN) native/pjsua2/published.in -o requirements-sip.lock

diagrams: setup
	@$(VENV)/bin/python scripts/draw.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
