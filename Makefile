# Copyright The Tokenward Authors.
# SPDX-License-Identifier: Apache-2.0

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

GO ?= go
# The release that images and manifests name, such as 0.1.0.
VERSION ?=
IMG ?= ghcr.io/tokenward/tokenward:$(or $(VERSION),latest)
LDFLAGS := -s -w -X main.version=$(or $(VERSION),dev)
# Builds the image: docker, podman or buildah.
CONTAINER_TOOL ?= docker
# What `make images` builds for; the nodes of `make cluster-up` need this machine's.
PLATFORMS ?= linux/$(shell $(GO) env GOARCH)
# How many nodes `make cluster-up` starts.
NODES ?= 2
# What e2e installs first and upgrades, until there is a release: the first commit whose
# sidecar has clients leave before the application ends (ADR 0022).
PREVIOUS ?= 89823335f942
# Where that cluster keeps everything; another folder is another cluster.
CLUSTER_DIR ?= /var/lib/tokenward-cluster
# Time per fuzz target.
FUZZTIME ?= 10s
# Rounds of the exactly-once figure of bench-sessions, by which the others are scaled.
ROUNDS ?= 1000
# Which of its figures, as a pattern of `go test -run`; all when empty.
FIGURE ?=
# Packages that `make test` and `make lint` look at.
PACKAGES ?= ./...

BIN := bin
TOOLS := controller-gen kustomize crd-ref-docs golangci-lint
# All that `make generate` and `make build-installer` write.
GENERATED := api config/crd/bases config/rbac/manager_role.yaml config/rbac/issuer_role.yaml docs/reference.md dist
GO_MODULES := . hack/tools hack/cluster/components hack/cluster/coredns

##@ Everyday

.PHONY: help
help: ## Show this help.
	@awk 'BEGIN {FS = ":.*## "; print "Usage: make <target>"} \
		/^##@ / {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z0-9-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: cluster-binaries build ## Walk the whole flow against a real API server; KEEP=1 leaves it running.
	@CGO_ENABLED=0 $(GO) build -o $(BIN)/demo ./hack/demo
	@exec $(BIN)/demo -stage=local -backend=$(or $(BACKEND),embedded) $(if $(KEEP),-keep)

.PHONY: demo-postgres
demo-postgres: ## The same with users in a table and sessions in PostgreSQL.
	@$(MAKE) demo BACKEND=postgres

.PHONY: demo-cluster
demo-cluster: ## The same on real nodes: those of KUBECONFIG, else cluster-up starts two, as root.
	@if [[ -z "$${KUBECONFIG:-}" ]]; then $(MAKE) cluster-up; else hack/cluster/build.sh $(BIN)/k8s kubectl; fi
	@$(MAKE) images build
	@CGO_ENABLED=0 $(GO) build -o $(BIN)/demo ./hack/demo
	@export KUBECONFIG="$${KUBECONFIG:-$(CLUSTER_DIR)/kubeconfig}"; exec $(BIN)/demo -stage=cluster $(if $(KEEP),-keep)

.PHONY: test
test: cluster-binaries ## Run all tests, with the race detector, against a real API server.
	@compiler=$$($(GO) env CC); compiler=$${compiler%% *}; \
	if command -v "$$compiler" >/dev/null; then \
		export CGO_ENABLED=1; race=-race; \
	else \
		export CGO_ENABLED=0; race=; \
		echo "test: running WITHOUT the race detector: it needs a C compiler and there is no $$compiler." >&2; \
		echo "test: get one with \`apt-get install gcc libc6-dev\` (Debian) or \`dnf install gcc\` (Fedora)." >&2; \
	fi; \
	$(GO) test $$race -shuffle=on -timeout 15m $(PACKAGES)

.PHONY: test-fuzz
test-fuzz: ## Fuzz every target for FUZZTIME (10s).
	@grep -rlE --include='*_test.go' '^func Fuzz' api controllers internal issuer sidecar | xargs -r -n1 dirname | sort -u | while read -r package; do \
		grep -hoE '^func Fuzz\w+' "$$package"/*_test.go | awk '{print $$2}' | while read -r target; do \
			echo "fuzz: $$package $$target for $(FUZZTIME)"; \
			$(GO) test -run='^$$' -fuzz="^$$target$$" -fuzztime=$(FUZZTIME) -fuzzminimizetime=20x "./$$package"; \
		done; \
	done

.PHONY: bench-sessions
bench-sessions: cluster-binaries ## Measure what is promised of sessions; ROUNDS (1000) scales it, about a quarter of an hour.
	@CGO_ENABLED=0 $(GO) test -c -o $(BIN)/bench-sessions ./test/sessions
	@cd test/sessions && TOKENWARD_REQUIRE_SERVERS=1 exec ../../$(BIN)/bench-sessions -test.run '^TestSessions$$/$(FIGURE)' -test.timeout 2h -rounds $(ROUNDS)

.PHONY: lint
lint: $(BIN)/golangci-lint ## Lint everything, the API types by Kubernetes conventions too.
	@$(BIN)/golangci-lint run $(PACKAGES)
	@$(BIN)/golangci-lint run --build-tags e2e ./test/e2e
	@$(BIN)/golangci-lint fmt --diff

.PHONY: fmt
fmt: $(BIN)/golangci-lint ## Format the code.
	@$(BIN)/golangci-lint fmt

.PHONY: fix
fix: $(BIN)/golangci-lint ## Have the linters mend what they can.
	@$(BIN)/golangci-lint run --fix $(PACKAGES)

##@ Generated files

.PHONY: generate
generate: $(BIN)/controller-gen $(BIN)/crd-ref-docs ## Generate deepcopy, apply configurations, CRDs, RBAC and the API reference.
	@echo "generate: deepcopy, apply configurations, CRDs"
	@$(BIN)/controller-gen paths=./api/v1alpha1/ \
		object:headerFile=hack/boilerplate.go.txt \
		applyconfiguration:headerFile=hack/boilerplate.go.txt \
		crd output:crd:dir=config/crd/bases
	@echo "generate: RBAC of manager and issuer"
	@$(BIN)/controller-gen paths=./controllers/... \
		rbac:roleName=tokenward-manager,fileName=manager_role.yaml output:rbac:dir=config/rbac
	@$(BIN)/controller-gen paths="./issuer/...;./internal/session/...;./internal/users/..." \
		rbac:roleName=tokenward-issuer,fileName=issuer_role.yaml output:rbac:dir=config/rbac
	@echo "generate: docs/reference.md"
	@$(BIN)/crd-ref-docs --source-path=api --config=hack/reference/config.yaml \
		--renderer=markdown --output-path=docs/reference.md --log-level=ERROR

.PHONY: build-installer
build-installer: $(BIN)/kustomize ## Render config/default for IMG into dist/install.yaml.
	@mkdir -p dist $(BIN)/installer/image
	@echo 'resources: [../../../config/default]' > $(BIN)/installer/image/kustomization.yaml
	@cd $(BIN)/installer/image && ../../kustomize edit set image 'ghcr.io/tokenward/tokenward=$(IMG)'
	@printf '%s\n' 'resources: [image]' 'components: [../../config/components/sidecar-image]' > $(BIN)/installer/kustomization.yaml
	@$(BIN)/kustomize build $(BIN)/installer > $(BIN)/installer/install.yaml
	@mv $(BIN)/installer/install.yaml dist/install.yaml
	@echo "build-installer: dist/install.yaml for $(IMG)"

.PHONY: verify
verify: generate build-installer ## Fail when a generated file or a go.mod is not up to date.
	@changed=$$(git status --porcelain -- $(GENERATED)); \
	if [[ -n $$changed ]]; then \
		git --no-pager diff -- $(GENERATED); \
		printf 'verify: these files are generated and not committed as they are now; commit them:\n%s\n' "$$changed" >&2; \
		exit 1; \
	fi
	@for module in $(GO_MODULES); do \
		(cd "$$module" && $(GO) mod tidy -diff) || { echo "verify: run \`go mod tidy\` in $$module" >&2; exit 1; }; \
	done
	@echo "verify: everything is up to date"

##@ Building

.PHONY: build
build: ## Build the static binaries tokenward, tokenward-sidecar and tokenward-redirect into bin/.
	@CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/tokenward .
	@CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/tokenward-sidecar ./sidecar
	@CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/tokenward-redirect ./redirect

.PHONY: image
image: ## Build the image IMG with CONTAINER_TOOL (docker).
	$(CONTAINER_TOOL) build --build-arg VERSION=$(or $(VERSION),dev) -t $(IMG) .

.PHONY: push
push: ## Push the image IMG.
	$(CONTAINER_TOOL) push $(IMG)

.PHONY: cluster-binaries
cluster-binaries: ## Build etcd and kube-apiserver into bin/k8s, unless KUBEBUILDER_ASSETS has them.
	@if [[ -n "$${KUBEBUILDER_ASSETS:-}" ]]; then \
		echo "cluster: using the binaries in KUBEBUILDER_ASSETS=$$KUBEBUILDER_ASSETS"; \
	else \
		hack/cluster/build.sh $(BIN)/k8s; \
	fi

.PHONY: images
images: ## Build all images into bin/images, an OCI layout, without a container tool; PLATFORMS=linux/amd64,linux/arm64.
	@$(GO) run ./hack/image -out $(BIN)/images -name $(IMG) -version $(or $(VERSION),dev) -platforms $(PLATFORMS)

.PHONY: image-local
image-local: ## Build the Dockerfile's image with buildah and no registry, into bin/images in place of the one of `make images`.
	@hack/image/dockerfile.sh $(BIN)/images $(IMG) $(or $(VERSION),dev)

##@ A cluster with nodes, on this machine, as root

.PHONY: cluster-up
cluster-up: cluster-check $(BIN)/images/index.json cluster-programs ## Start NODES (2) nodes with everything a cluster has, or what is missing of them.
	@$(CLUSTER) up $(CLUSTER_FLAGS)

.PHONY: cluster-down
cluster-down: cluster-program ## End the cluster and remove all that it was.
	@$(CLUSTER) down $(CLUSTER_FLAGS)

.PHONY: cluster-status
cluster-status: cluster-program ## Say what runs and what it needs, or that nothing is left.
	@$(CLUSTER) status $(CLUSTER_FLAGS)

.PHONY: previous
previous: ## Build the image of the commit PREVIOUS into bin/images, and its manifest into bin/previous.
	@hack/image/previous.sh $(PREVIOUS) $(BIN)/images ghcr.io/tokenward/tokenward:latest $(BIN)/previous/install.yaml

.PHONY: e2e
e2e: ## Install on the cluster (KUBECONFIG, else cluster-up starts one) and test it as its users would.
	@if [[ -z "$${KUBECONFIG:-}" ]]; then $(MAKE) cluster-up; else hack/cluster/build.sh $(BIN)/k8s kubectl; fi
	@$(MAKE) images previous
	@CGO_ENABLED=0 $(GO) test -tags e2e -c -o $(BIN)/e2e ./test/e2e
	@cd test/e2e && TOKENWARD_PREVIOUS=../../$(BIN)/previous/install.yaml KUBECONFIG="$${KUBECONFIG:-$(CLUSTER_DIR)/kubeconfig}" exec ../../$(BIN)/e2e -test.timeout 30m

CLUSTER = $(BIN)/cluster
CLUSTER_FLAGS = -dir $(CLUSTER_DIR) -bin $(BIN)/k8s -images $(BIN)/images -nodes $(NODES)

# Before what takes minutes to build.
.PHONY: cluster-check
cluster-check: cluster-program ## Say what this machine lacks for nodes, and install the packages.
	@$(CLUSTER) check

.PHONY: cluster-programs
cluster-programs: cluster-program
	@hack/cluster/build.sh $(BIN)/k8s etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl

.PHONY: cluster-program
cluster-program:
	@CGO_ENABLED=0 $(GO) build -o $(CLUSTER) ./hack/cluster/node

$(BIN)/images/index.json:
	@$(MAKE) images

##@ Tools

.PHONY: tools
tools: $(addprefix $(BIN)/,$(TOOLS)) ## Build the pinned tools of hack/tools into bin/.

.PHONY: clean
clean: ## Remove everything that was built.
	rm -rf $(BIN) cover.out

TOOL_SOURCES := hack/tools/go.mod hack/tools/go.sum

$(BIN)/controller-gen: $(TOOL_SOURCES)
	$(call go-tool,sigs.k8s.io/controller-tools/cmd/controller-gen)

$(BIN)/kustomize: $(TOOL_SOURCES)
	$(call go-tool,sigs.k8s.io/kustomize/kustomize/v5)

$(BIN)/crd-ref-docs: $(TOOL_SOURCES)
	$(call go-tool,github.com/elastic/crd-ref-docs)

$(BIN)/golangci-lint: $(TOOL_SOURCES) hack/tools/golangci-lint/main.go
	$(call go-tool,./golangci-lint)

# go-tool builds one tool. Without C, so that every machine can.
define go-tool
	@echo "tools: building $(@F) (needs a minute the first time)"
	@cd hack/tools && CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o ../../$@ $(1)
	@touch $@
endef
