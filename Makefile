# SPDX-License-Identifier: Apache-2.0
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Tools that are pinned. clang's version is in bpf/gen.go as well.
CLANG := clang-19=clang-19 llvm-strip-19=llvm-19
GOLANGCI_LINT_VERSION := v2.15.0
HELM_VERSION := v3.22.0
HELM4_VERSION := v4.3.2
ACTIONLINT_VERSION := v1.7.12
# Later ones need modules that the Go proxy does not serve.
NFPM_VERSION := v2.45.2
# Kept out of go.mod: their dependencies would choose the versions of ours.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/blixt
GOLANGCI_LINT := $(CACHE)/golangci-lint-$(GOLANGCI_LINT_VERSION)
HELM := $(CACHE)/helm-$(HELM_VERSION)
HELM4 := $(CACHE)/helm-$(HELM4_VERSION)

# Builds the tool $@ of the cache, of a package of others and its version: whole, or not at all.
define install
mkdir -p $(@D)
tmp=$$(mktemp -d $(@D)/XXXXXX) && trap "rm -rf $$tmp" EXIT && \
GOBIN=$$tmp go install $(1)@$(2) && \
mv $$tmp/$(notdir $(1)) $@
endef

# The same version as the library that tests use.
COSIGN_VERSION := $(shell awk '$$1 == "github.com/sigstore/cosign/v3" { print $$2 }' bytecode/cosign/go.mod)
COSIGN := $(CACHE)/cosign-$(COSIGN_VERSION)
HUGO_VERSION := v0.165.0
HUGO := $(CACHE)/hugo-$(HUGO_VERSION)
ACTIONLINT := $(CACHE)/actionlint-$(ACTIONLINT_VERSION)
# It compresses packages, each Go in another way.
NFPM := $(CACHE)/nfpm-$(NFPM_VERSION)-$(shell go env GOVERSION)

NGINX_STREAM := /usr/lib/nginx/modules/ngx_stream_module.so
# Clients and servers that others wrote, and what makes networks.
TEST_TOOLS := curl=curl nginx=nginx-light $(NGINX_STREAM)=libnginx-mod-stream haproxy=haproxy dig=bind9-dnsutils dnsmasq=dnsmasq-base iperf3=iperf3 \
	ethtool=ethtool ip=iproute2 nft=nftables modprobe=kmod promtool=prometheus \
	zsh=zsh fish=fish mandoc=mandoc /usr/share/bash-completion/bash_completion=bash-completion
# What the tests of packages run, and what is looked for in packages.
PACKAGE_TOOLS := nginx=nginx-light curl=curl /lib/systemd/systemd=systemd-sysv dpkg-deb=dpkg rpm=rpm lintian=lintian pkill=procps
# What looks at the page, and a font: a bare Debian has none.
BROWSER := chromium=chromium /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf=fonts-dejavu-core
# Fuzz targets, as package:function.
FUZZ := ./bpf:FuzzPacket ./operator/gateway:FuzzTranslate ./operator/gateway:FuzzTranslate_Tenants ./operator/manifest:FuzzRead ./operator/manifest:FuzzPlainValue ./operator/phrase:FuzzPrintable ./operator/migrate/haproxy:FuzzRead ./operator/migrate/ipvs:FuzzRead ./operator/migrate/keepalived:FuzzRead ./operator/migrate/ingressnginx:FuzzRead ./operator/migrate/services:FuzzRead ./operator/migrate/nginx:FuzzRead
FUZZTIME ?= 60s
# The packages whose tests need no root.
QUICK := ./e2e/stories ./operator/lb/... ./operator/gateway/... ./operator/manifest/... ./operator/node/bpfman/...

# Debian keeps ip, nginx and dnsmasq in sbin, which is not in everybody's PATH.
export PATH := $(PATH):/usr/sbin:/sbin
export CGO_ENABLED := 0
# How what is released is built, said here only. With grpc's traces, which nobody reads, the linker
# would have to keep every exported method, as they come with html/template. -s takes 20 MB of
# symbols, without which stack traces and profiles are the same: a debugger has to build its own.
# All else is built in the same way, or dependencies would be compiled twice.
TAGS := grpcnotrace
FLAGS := -trimpath -tags=$(TAGS) -ldflags=-s
export GOFLAGS := $(shell go env GOFLAGS) $(FLAGS)

.PHONY: help
help: ## Print this
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

# All others that build blixt do it by this target.
BIN ?= bin/blixt
# With DOCS=1, operator/manual/site.zip is built in, which release build has put there.
comma := ,
WITH_DOCS := $(if $(filter command%,$(origin DOCS)),-tags=$(TAGS)$(comma)docs)
.PHONY: build
build: ## Build bin/blixt, or BIN=path; needs only Go, and git to tell its version
	go build -buildvcs=auto $(WITH_DOCS) -o "$(BIN)" ./operator/cmd/blixt

.PHONY: man
man: build ## Write the man pages of all commands into bin/man
	bin/blixt man bin/man

.PHONY: test-docs
test-docs: root docs ## Open each page of the site in Chromium, ask its search what readers ask (root)
	@.ci/need $(BROWSER)
	@HUGO="$(HUGO)" .ci/tests docs

# Links to files that are no pages lead to the tag, if there is one here, and else to main.
.PHONY: docs
docs: $(HUGO) ## Make the site of the documentation in bin/docs, and check its links; builds Hugo, once, in about 3 minutes
	@go run ./operator/cmd/release docs -hugo="$(HUGO)" -version="$$(git describe --tags --exact-match 2>/dev/null || echo main)"

# Into REGISTRY/operator and REGISTRY/bytecode, by HTTPS, with the credentials of docker or podman login.
PLATFORMS ?= linux/amd64,linux/arm64
.PHONY: images
images: ## Push the images and print the chart's values, REGISTRY=registry.example.com/blixt; SIGN_KEY=cosign.key signs them, CA_FILE= trusts a private CA, PLATFORMS=linux/amd64 is quicker
	@go run ./operator/cmd/release images -registry="$(REGISTRY)" -platforms="$(PLATFORMS)" -sign-key="$(SIGN_KEY)" -ca-file="$(CA_FILE)"

.PHONY: bpfman-digests
bpfman-digests: ## Write the digests of bpfman's images into the chart's values, as their registry has them; CHECK=1 only compares
	@go run ./operator/cmd/release digests $(if $(CHECK),-check)

# What is released is the commit with the tag VERSION. The tools below are those of that commit.
DIST ?= dist
.PHONY: release
release: REGISTRY ?= ghcr.io/kubernetes-sigs/blixt
release: ## Make all that users install, of the tag VERSION=v1.2.3, in DIST=dist; REGISTRY= is where images will be pushed to, PLATFORMS=linux/amd64 is quicker
	@GOWORK=off GOFLAGS="$(FLAGS)" go run ./operator/cmd/release build -version="$(VERSION)" -registry="$(REGISTRY)" -platforms="$(PLATFORMS)" -dist="$(DIST)" -builder="$(BUILDER)"

.PHONY: publish
publish: $(if $(SIGN_KEY),,$(COSIGN)) ## Push and sign the release in DIST=dist, with SIGN_KEY=cosign.key or, without it, as the workflow of GitHub in which this runs; CA_FILE= trusts a private CA, UNTAGGED=1 publishes a commit without the tag
	@go run ./operator/cmd/release publish -dist="$(DIST)" $(if $(SIGN_KEY),-sign-key="$(SIGN_KEY)",-keyless -cosign="$(COSIGN)") -ca-file="$(CA_FILE)" $(if $(UNTAGGED),-untagged)

.PHONY: release-tools
release-tools: $(HELM) $(NFPM) $(HUGO)
	@printf '%s\n' "helm=$(HELM)" "nfpm=$(NFPM)" "hugo=$(HUGO)"

.PHONY: generate
generate: ## Compile the C and generate Go from it; gets clang 19 and protoc when missing
	@.ci/need $(CLANG) protoc=protobuf-compiler
	go generate ./...

# git knows the generated files by their attribute; -o adds those not in git yet.
.PHONY: verify
verify: generate ## Check that generated files match their source, and go.mod and gofmt
	@changed=$$(git ls-files -mo --exclude-standard ':(attr:linguist-generated)'); \
	if [ -n "$$changed" ]; then \
		git --no-pager diff --stat -- $$changed; \
		echo "generated files differ from what git has: run make generate, commit" $$changed >&2; exit 1; \
	fi
	go mod tidy -diff
	cd e2e/prometheus && go mod tidy -diff
	cd e2e/browser && go mod tidy -diff
	cd e2e/sigstore && go mod tidy -diff
	@unformatted=$$(git ls-files -co --exclude-standard '*.go' | xargs gofmt -l); \
	if [ -n "$$unformatted" ]; then echo "run gofmt -w" $$unformatted >&2; exit 1; fi
	@echo verified

.PHONY: lint
lint: $(GOLANGCI_LINT) $(ACTIONLINT) ## Check style, that imports follow the arrow, scripts and workflows
	@.ci/need shellcheck=shellcheck
	$(ACTIONLINT)
	$(GOLANGCI_LINT) run ./...
	git grep -lzE '^#!.*\bbash$$' | xargs -0 shellcheck

$(HUGO):
	$(call install,github.com/gohugoio/hugo,$(HUGO_VERSION))

$(GOLANGCI_LINT):
	$(call install,github.com/golangci/golangci-lint/v2/cmd/golangci-lint,$(GOLANGCI_LINT_VERSION))

$(ACTIONLINT):
	$(call install,github.com/rhysd/actionlint/cmd/actionlint,$(ACTIONLINT_VERSION))

$(NFPM):
	$(call install,github.com/goreleaser/nfpm/v2/cmd/nfpm,$(NFPM_VERSION))

# In a network namespace that somebody has just made, the loopback device is down.
.PHONY: root
root:
	@if [ $$(id -u) -ne 0 ]; then echo "this loads eBPF programs and makes network namespaces: run it as root" >&2; exit 1; fi
	@.ci/need ip=iproute2
	@ip link set lo up

# What kind a test is of .ci/tests tells, and sees to it that none is of no kind.
.PHONY: test
test: root ## Run the tests that need no Kubernetes, Helm or bpfman (root); gets the tools they use when missing
	@.ci/need $(CLANG) $(TEST_TOOLS) $(BROWSER)
	@.ci/tests plain

.PHONY: test-bpfman
test-bpfman: root bpfman ## Run the tests that have bpfman load (root); builds it, once
	@.ci/need $(CLANG) $(TEST_TOOLS)
	@.ci/tests bpfman

.PHONY: test-apiserver
test-apiserver: root kubernetes helm $(HELM4) ## Run the tests of the operator, the chart and the examples against an API server (root); builds that and Helm 3 and 4, once
	@.ci/tests apiserver

# Their host runs a systemd of its own, over the files of this machine: DISTRIBUTION is a folder
# with those of another one, as debootstrap makes it.
DISTRIBUTION ?= /
.PHONY: test-packages
test-packages: root $(NFPM) ## Install, upgrade and remove the packages for Debian and RPM under traffic (root); builds nfpm, once; DISTRIBUTION=folder takes another one's files
	@.ci/need $(PACKAGE_TOOLS)
	go test -tags=e2e,$(TAGS) -json -count=1 -timeout=15m ./e2e/packages -args -nfpm="$(NFPM)" -root="$(DISTRIBUTION)" | go run .ci/gotest.go

.PHONY: bpfman
bpfman: ## Build bpfman for the tests, once, in 5 to 9 minutes; gets what it needs when missing
	@.ci/bpfman

.PHONY: kubernetes
kubernetes: ## Build etcd and the Kubernetes API server for the tests, once, in about 7 minutes
	@.ci/kubernetes

.PHONY: helm
helm: $(HELM) ## Build Helm for the tests in clusters, once, in about a minute

$(HELM):
	$(call install,helm.sh/helm/v3/cmd/helm,$(HELM_VERSION))

$(HELM4):
	$(call install,helm.sh/helm/v4/cmd/helm,$(HELM4_VERSION))

.PHONY: test-cosign
test-cosign: cosign ## Publish releases with a key and as a workflow does, and have cosign verify them; builds it, once
	@.ci/tests cosign

.PHONY: cosign
cosign: $(COSIGN) ## Build cosign, which signs releases without a key, once, in about 4 minutes

$(COSIGN):
	$(call install,github.com/sigstore/cosign/v3/cmd/cosign,$(COSIGN_VERSION))

# Only as given to make: in the environment it may name a cluster that is not for tests.
GIVEN := $(if $(findstring command line,$(origin KUBECONFIG)),$(abspath $(KUBECONFIG)))
.PHONY: e2e
e2e: $(if $(GIVEN),e2e-given,e2e-own) ## Test in a real cluster with bpfman, which it starts and stops (root); builds what that takes once, in about 10 minutes on two cores; KUBECONFIG= REGISTRY= tests in another, see e2e/README.md

# What begins without bpfman and Gateway API, or takes bpfman apart; in a cluster whose
# kube-proxy works in the other mode.
EMPTY := ^(TestReadme|TestRelease|TestFixes)$$
OTHER := -no-bpfman -proxy=iptables
# What e2e/upgrade tests as well, with less around it, and what changes only with bpfman.
# TestPaths takes three minutes in each combination of networks, of which e2e-long has all.
LONG := ^(TestUpgradeFromLayout1|TestFixes|TestPaths)$$
.PHONY: e2e-own
e2e-own: root helm
	@.ci/kubernetes --all
	@.ci/need $(CLANG) $(TEST_TOOLS)
	go vet -tags=e2e,$(TAGS) ./e2e/...
	go test -tags=e2e,$(TAGS) -json -count=1 -timeout=40m -p=1 -skip='$(EMPTY)|$(LONG)' ./e2e/cluster/... | go run .ci/gotest.go
	go test -tags=e2e,$(TAGS) -json -count=1 -timeout=30m -run='$(EMPTY)' -skip='$(LONG)' ./e2e/cluster -args $(OTHER) | go run .ci/gotest.go
	go test -tags=e2e,$(TAGS) -json -count=1 -timeout=20m ./e2e/client | go run .ci/gotest.go

# All that no change should have to wait for, or fail of by chance: each fuzz target
# for a minute (make test runs what they have found), floods of a minute, each fault and fix, 100
# rollouts under load, large transfers, every combination of networks, and
# flannel's.
.PHONY: e2e-long
e2e-long: root helm ## As make e2e, with all that takes longer (root): more than an hour
	@.ci/kubernetes --all
	@.ci/need $(CLANG) $(TEST_TOOLS)
	@$(MAKE) --no-print-directory fuzz
	go test -json -count=1 ./e2e/attack -args -long | go run .ci/gotest.go
	go test -json -count=1 -run='^TestShortConnections$$' ./bpf -args -short-connections=1200000 | go run .ci/gotest.go
	go test -tags=e2e,$(TAGS) -json -count=1 -timeout=120m -skip='$(EMPTY)' ./e2e/cluster -args -long -rollouts=100 -large | go run .ci/gotest.go
	go test -tags=e2e,$(TAGS) -json -count=1 -timeout=50m -run='$(EMPTY)' ./e2e/cluster -args $(OTHER) -long | go run .ci/gotest.go
	go test -tags=e2e,$(TAGS) -json -count=1 -timeout=20m -run='^TestPaths$$' ./e2e/cluster -args -proxy=iptables -overlay | go run .ci/gotest.go
	go test -tags=e2e,$(TAGS) -json -count=1 -timeout=40m ./e2e/client -args -long | go run .ci/gotest.go
	go test -tags=e2e,$(TAGS) -json -count=1 -timeout=20m -run='^TestPaths$$' ./e2e/cluster -args -overlay | go run .ci/gotest.go
	go test -tags=e2e,$(TAGS) -json -count=1 -timeout=20m -run='^TestPaths$$' ./e2e/cluster -args -proxy=iptables | go run .ci/gotest.go
	go test -tags=e2e,$(TAGS) -json -count=1 -timeout=20m -run='^(TestPaths|TestClientAddresses)$$' ./e2e/cluster -args -flannel=vxlan | go run .ci/gotest.go
	go test -tags=e2e,$(TAGS) -json -count=1 -timeout=20m -run='^(TestPaths|TestClientAddresses)$$' ./e2e/cluster -args -proxy=iptables -flannel=host-gw | go run .ci/gotest.go

.PHONY: e2e-given
e2e-given:
	go vet -tags=e2e,$(TAGS) ./e2e/...
	go test -tags=e2e,$(TAGS) -json -count=1 -timeout=20m ./e2e/cluster -args -kubeconfig="$(GIVEN)" -registry="$(REGISTRY)" \
		$(if $(CA_FILE),-ca-file="$(abspath $(CA_FILE))") $(if $(POOL),-pool="$(POOL)") | go run .ci/gotest.go -skip=cluster

# The report's version is git's: let there be nothing that is not committed.
REPORT ?= bin/conformance
.PHONY: conformance
conformance: root helm ## Run Gateway API's conformance suite in a real cluster (root); the report goes into REPORT=bin/conformance
	@.ci/kubernetes --all
	mkdir -p "$(REPORT)"
	cd e2e/conformance && go vet .
	cd e2e/conformance && go test -count=1 -timeout=20m . -args -report-output="$(abspath $(REPORT))/report.yaml"
	@cat "$(REPORT)/tests.md"

# A failure prints what to run to see it again. Which mistakes are made does not depend on
# chance, unless SEED=0 says so.
SOAK ?= 2m
SEED ?= 1
.PHONY: soak
soak: root ## Make mistakes on a host that serves, about SOAK=2m long (root); SEED=1 decides which, 0: chance; FROM= begins at a step, ONLY= takes one kind
	@.ci/need $(TEST_TOOLS)
	go test -tags=e2e,$(TAGS) -count=1 -timeout=24h -run='^TestSoak$$' ./e2e/soak -args -for=$(SOAK) -seed=$(SEED) $(if $(FROM),-from=$(FROM)) $(if $(ONLY),-only="$(ONLY)")

# Figures are worth something on a quiet machine only; ratios are more worth than they are.
BENCH ?= all
OUT ?= bin/bench.json
.PHONY: bench
bench: root ## Measure what Blixt costs, beside what else does the same job (root); BENCH=live runs a part (live, tcp, micro, publish, memory), COMPARE=old.json compares, OUT=bin/bench.json gets the figures, BLIXT=path measures another blixt
	@.ci/need $(TEST_TOOLS)
	@mkdir -p "$(dir $(OUT))"
	go run ./e2e/bench -part="$(BENCH)" -out="$(OUT)" $(if $(COMPARE),-compare="$(COMPARE)") $(if $(BLIXT),-blixt="$(BLIXT)")

.PHONY: bench-docs
bench-docs: ## Measure all, and make docs/performance.md of it (root)
	@$(MAKE) --no-print-directory bench BENCH=all OUT=docs/performance/performance.json
	go generate ./e2e/bench

.PHONY: pictures
pictures: root ## Take the pictures of the page that the docs show, of a host with traffic, in about a minute (root)
	@.ci/need $(BROWSER)
	cd e2e/browser && go test -count=1 -run='^TestPictures$$' . -args -pictures="$(abspath docs/pictures)"

.PHONY: kernels
kernels: ## Test on other kernels, in an emulator (x86-64, on Debian 12); gets them, and the emulator, when missing
	@.ci/kernels

.PHONY: test-quick
test-quick: ## Run the tests that need no root
	go test $(QUICK)

# go test -fuzz does not mind when there is nothing to fuzz.
.PHONY: fuzz
fuzz: root ## Fuzz packets and objects, FUZZTIME=60s each (root)
	@for f in $(FUZZ); do \
		go test -list="^$${f#*:}$$" "$${f%:*}" | grep -x "$${f#*:}" >/dev/null || { echo "no fuzz target $$f" >&2; exit 1; }; \
		go test -run='^$$' -fuzz="^$${f#*:}$$" -fuzztime=$(FUZZTIME) -fuzzminimizetime=10x -timeout=15m "$${f%:*}"; \
	done

.PHONY: demo
demo: root build ## Balance TCP and UDP between network namespaces and show it (root); KEEP=1 leaves it running
	@.ci/need ip=iproute2
	go run ./examples/standalone/demo -blixt bin/blixt

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin dist .dist.partial
	go clean -testcache -fuzzcache
