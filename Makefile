# Everything here makes .venv first if it has to (scripts/setup); as root it also installs Debian packages.
.PHONY: setup models lock check test demo docs dashboards dist trials bench-steer bench-datagram bench-relay bench-scale bench-calls bench-capacity bench-turns bench-vad bench-endings bench-placement clean

PYTHON := .venv/bin/python

setup:
	@scripts/setup dev

# Small neural models, so that calls can be answered with no network and no key: 294 MB to download.
models:
	@scripts/setup models

# After a change of dependencies in pyproject.toml: pins them, with hashes. UPGRADE=NAME takes that package's newest.
lock:
	@scripts/lock $(if $(UPGRADE),--upgrade-package $(UPGRADE))

check: setup
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/ruff check --quiet .
	@.venv/bin/mypy --no-error-summary
	@found=$$(.venv/bin/lint-imports --no-logo --no-cache) || { echo "$$found"; exit 1; }
	@echo "check: clean"

test: check
	@scripts/test

# make demo ONCE=1 ends after its calls, and installs no models; neither does MODELS=no. PORT=8090 has the page there.
demo:
	@scripts/setup $(if $(ONCE)$(filter no,$(MODELS)),,demo)
	@$(PYTHON) -m firsthop demo $(if $(ONCE),--once) $(if $(PORT),--port $(PORT))

# The pages that are made from the code.
docs:
	@scripts/setup
	@$(PYTHON) -m firsthop config --markdown > docs/configuration.md
	@$(PYTHON) -m wire.reference > docs/messages.md
	@$(PYTHON) -m runtime.families > docs/metrics.md

# The files that Grafana imports.
dashboards:
	@scripts/setup
	@$(PYTHON) -m bench.dashboards

# The wheel to install on hosts, the source distribution, and what the wheel needs as an SBOM, in dist/.
dist:
	@scripts/setup dist
	@$(PYTHON) -m lab.machines.wheels dist
	@$(PYTHON) -m lab.machines.sbom dist

trials: setup
	$(PYTHON) -m pytest -m trials --timeout 3600
	$(PYTHON) -m pytest -m trials --timeout 3600 --one-host tests/appliance/attacks tests/appliance/test_calls.py tests/appliance/test_frozen.py tests/appliance/test_handover.py tests/appliance/test_recovery.py tests/appliance/test_transceiver_host.py

# As root: nanoseconds a packet in XDP, and its memory.
bench-steer:
	@scripts/setup
	@$(PYTHON) -m bench.steer

# Half a minute: what a frame in and one out costs the transceiver, beside aiortc's classes.
bench-datagram:
	@scripts/setup bench
	@$(PYTHON) -m bench.datagram

# As root, about twenty minutes: what relaying costs, beside nginx, coturn and the least that C can do, and past the worker.
bench-relay:
	@scripts/setup bench
	@$(PYTHON) -m bench.relay

# As root, four minutes: what a call costs with several workers and transceivers, beside one of each. On a host of
# 16 cores: make bench-scale SCALE="--workers 0,1,2 --transceivers 3,4,5,6,7 --load 8,9,10,11,12"
bench-scale:
	@scripts/setup bench
	@$(PYTHON) -m bench.scale $(SCALE)

# As root, about a quarter of an hour: what a call costs, beside aiortc, FastRTC and Janus.
bench-calls:
	@scripts/setup bench
	@$(PYTHON) -m bench.calls

# As root, ten minutes: how many calls a transceiver lets in, beside the most that it could serve.
bench-capacity:
	@scripts/setup bench
	@$(PYTHON) -m bench.capacity

# As root, three minutes: how soon an answer begins, and how soon it stops when it is spoken over.
bench-turns:
	@scripts/setup bench
	@$(PYTHON) -m bench.turns

# A minute: what turn detection finds in speech under noise, and what it costs.
bench-vad:
	@scripts/setup bench
	@$(PYTHON) -m bench.vad

# Two minutes: how soon the end of a turn is noticed, and how many callers who only pause are cut off.
bench-endings: models
	@scripts/setup bench
	@$(PYTHON) -m bench.endings

# Five minutes: a day of calls on ten thousand transceivers, placed by firsthop's own code and by simpler ways.
bench-placement:
	@scripts/setup bench
	@$(PYTHON) -m bench.placement

clean:
	rm -rf .machines .venv .venv-aiortc .venv-ansible .venv-fastrtc .venv-lock build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache tests/artifacts
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
