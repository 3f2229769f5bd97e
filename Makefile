# trafficshift.istio: everything a newcomer and a developer start with. `make` alone lists it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# What runs long is to be seen at once, also through a pipe.
export PYTHONUNBUFFERED := 1
# Set by hand they would send Ansible to another checkout's settings or collections.
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
unexport ANSIBLE_COLLECTIONS_PATH
# The demo's lab; other labs of the same name and other clusters are not touched.
INVENTORY := inventories/kind
LAB ?= trafficshift
PORT ?= 31400
CACHE := $(or $(TRAFFICSHIFT_CACHE),$(HOME)/.cache/trafficshift-lab)
PLAYBOOK := ansible-playbook -i $(INVENTORY) -e kind_lab_name=$(LAB) -e kind_lab_port=$(PORT)

.PHONY: help setup demo lab test test-faults lint unit sanity package browser envoy kind registry verdict-table bench clean

help: ## list what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 16

setup: ## set up the virtual environment
	@tests/setup.sh

lab: setup ## bring up the lab: a kind cluster on this machine
	$(PLAYBOOK) playbooks/lab_up.yml

demo: lab ## bring the lab up, run the whole task on it and show what was seen
	$(PLAYBOOK) playbooks/site.yml
	@tests/look_around.sh $(LAB)

test: setup ## run every test but those of rollouts on a lab that breaks
	python tests/run.py

test-faults: setup ## run the tests of rollouts on a lab that breaks: molecule/rollout
	python tests/run.py faults

lint unit sanity package browser envoy kind registry: setup ## run one part of the tests
	python tests/run.py $@

verdict-table: setup ## simulate the verdict's error rates, 20,000 runs a case
	python tests/verdict_table.py

bench: setup ## measure the probe engine beside a C client, asyncio and the written task's shell loop
	python tests/bench/bench.py

clean: ## remove the demo's lab, everything that was built, the reports and the virtual environment
	@[[ ! -d "$(CACHE)/labs/$(LAB)" ]] || { tests/setup.sh && $(PLAYBOOK) playbooks/lab_down.yml; }
	@tests/forget_cache.sh
	rm -rf .venv .cache build reports tests/output .mypy_cache .ruff_cache .pytest_cache .hypothesis .ansible
