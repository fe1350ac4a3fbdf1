# freshet: the serverless GPU cloud on your own Nomad cluster. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE ?= $(or $(FRESHET_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/freshet)
MODULES := . sdk examples/gosearch
GO_BUILD := CGO_ENABLED=0 go build -trimpath -ldflags '-s -w'

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

.PHONY: build
build: ## Build all programs into bin/
	@mkdir -p bin
	$(GO_BUILD) -o bin/ ./cmd/...

.PHONY: tools
tools: ## Build the pinned nomad and runsc, once, into the cache
	@tools/install nomad runsc

.PHONY: demo
demo: build tools ## From nothing to a call: start a cluster, deploy gosearch, scale it up and down
	@bin/freshet demo

.PHONY: test
test: build ## Run all tests with the race detector, the end-to-end tests through the real system too
	@tools/test $(MODULES)

.PHONY: test-long
test-long: build ## Run what takes longer: fuzzing and repeated failures
	@tools/test-long

.PHONY: bench
bench: build ## Print the performance table and write bench/out.json
	@FRESHET_NOMAD=$$(tools/install nomad) FRESHET_RUNSC=$$(tools/install runsc) \
		FRESHET_PYTHON_IMAGE=$$(tools/python-image python3 python3-minimal python3-numpy) go run ./bench

.PHONY: lint
lint: ## Run the linters
	@tools/lint $(MODULES)

.PHONY: clean
clean: ## Remove what was built here; the tools' cache stays
	rm -rf bin bench/out.json
