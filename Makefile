# Everything that is done with this checkout. `make` lists it.

GOLANGCI_LINT := v2.15.0
VERSION       := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LINT          := bin/tools/golangci-lint-$(GOLANGCI_LINT)
FUZZTIME      ?= 20s
IMAGE         ?= wallcrawler:$(VERSION)
BROWSER_IMAGE ?= wallcrawler-browser:$(VERSION)
IMAGE_ARGS     = --build-arg VERSION=$(VERSION) --provenance=false $(if $(PLATFORMS),--platform $(PLATFORMS)) $(if $(PUSH),--output type=registry$(,)rewrite-timestamp=true,--load)
,             := ,
# What `make test` tests: make test PKG=./proxy/...
PKG           ?= ./...
# Tests in modules of their own, whose dependencies are none of ours.
ALSO          := $(if $(filter ./...,$(PKG)),-also charts/test)

.DEFAULT_GOAL := help
.PHONY: help dev test soak setup build check lint layers fmt bench bench-relay conformance replicas chaos cover fuzz docs docker chart sbom release mixed golden sim sim-long mutants mutants-replay

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

dev: ## run the whole system on this machine and print a connect URL (ARGS="--containers 1")
	@.ci/setup dev
	@$(MAKE) --no-print-directory build
	@exec bin/wallcrawler dev $(ARGS)

test: setup ## run all tests with the race detector (PKG=./proxy/... for some)
	@go run .ci/count.go $(ALSO) -race -shuffle=on -timeout 10m $(PKG)

setup: ## install what building and testing need and is missing (Debian: by apt)
	@.ci/setup

build: ## build bin/wallcrawler
	@CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/wallcrawler ./cmd/wallcrawler

check: ## run all that CI runs
	@.ci/run

lint: $(LINT) ## run the linters of .golangci.yml
	@$(LINT) run ./...

$(LINT):
	@echo 'building golangci-lint $(GOLANGCI_LINT), once: it takes some minutes' >&2
	@GOBIN=$(CURDIR)/bin/tools/new go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT)
	@mv bin/tools/new/golangci-lint $@ && rmdir bin/tools/new

layers: ## prove which package imports which
	@.ci/layers

fmt: ## format the Go files
	@git ls-files '*.go' | xargs gofmt -w

bench: setup ## measure the built program on a quiet machine and print tables (ARGS=…)
	@go run ./e2e/bench $(ARGS)

bench-relay: ## measure the relay beside nginx, haproxy, Node and Go's own (ARGS='-rounds 1 -relay setup,nginx')
	@.ci/setup
	@.ci/setup bench
	@go run ./e2e/bench -only relay $(ARGS)

conformance: setup ## judge the relay byte by byte, as Autobahn does endpoints (ARGS="-run '7.*' -junit report.xml")
	@go run ./e2e/conformance $(ARGS)

soak: setup ## hold 5,000 sessions for half an hour and see whether anything grows (ARGS='-minutes 2 -sessions 500')
	@go run ./e2e/soak $(ARGS)

replicas: setup ## end replicas and Redis under a hundred v1 clients, N times over (N=10)
	@go run .ci/count.go -strict -race -timeout 30m -run '^TestThreeReplicas$$' -count=$(or $(N),10) ./e2e

chaos: setup ## kill, freeze and cut off replicas, agents, Redis and a Redis Cluster under traffic (ARGS="-run leader -times 5")
	@go run ./e2e/chaos $(ARGS)

sim: ## live through 400 simulated worlds and check every step (ARGS='-seed 7 -worlds 1')
	@go run ./controller/sim/simulate $(or $(ARGS),-worlds 400 -whole)

sim-long: ## the same for an hour
	@go run ./controller/sim/simulate -for 1h -whole -seed 1000000

mutants: ## plant each bug of controller/sim/mutants, find a seed that shows it, and record that
	@go run ./controller/sim/mutants -record

mutants-replay: ## plant each bug again and see that its recorded seed still shows it
	@go run ./controller/sim/mutants

cover: setup ## write coverage of all packages to bin/cover.html
	@mkdir -p bin
	@go test -coverpkg=./... -coverprofile=bin/cover.txt ./... && go tool cover -html=bin/cover.txt -o bin/cover.html
	@go tool cover -func=bin/cover.txt | tail -1

fuzz: ## fuzz each parser of foreign bytes for a while (FUZZTIME=20s)
	@go list -f '{{$$p := .ImportPath}}{{range .TestGoFiles}}{{$$p}} {{$$.Dir}}/{{.}}{{"\n"}}{{end}}{{range .XTestGoFiles}}{{$$p}} {{$$.Dir}}/{{.}}{{"\n"}}{{end}}' ./... | \
	while read -r pkg file; do [ -z "$$file" ] || sed -n "s|^func \(Fuzz[A-Za-z0-9_]*\)(.*|$$pkg \1|p" "$$file"; done | \
	while read -r pkg name; do echo "$$pkg $$name"; go test -run '^$$' -fuzz "^$$name$$" -fuzztime $(FUZZTIME) "$$pkg" </dev/null || exit 1; done

docs: ## write the pages that are generated from the code
	@go generate ./...

golden: setup ## remake the templates that deploy/cdk keeps
	@npm run --silent --prefix deploy/cdk golden

chart: ## render charts/wallcrawler (ARGS="-f values.yaml"), with the Helm that charts/test pins
	@go -C charts/test tool helm template wallcrawler ../wallcrawler --kube-version 1.34.0 $(or $(ARGS),-f values/trial.yaml)

docker: ## build the images of the service and of containers (PLATFORMS=linux/amd64,linux/arm64 PUSH=1)
	@SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) docker buildx build $(IMAGE_ARGS) -t $(IMAGE) .
	@SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) docker buildx build $(IMAGE_ARGS) -f Dockerfile.browser -t $(BROWSER_IMAGE) .

sbom: build ## list all modules in bin/wallcrawler with their sums, as CycloneDX (bin/sbom.json)
	@go run .ci/sbom.go bin/wallcrawler > bin/sbom.json

release: ## build archives of all platforms and their sums in dist/, and prove that they can be built again
	@.ci/release $(VERSION)

mixed: setup ## run an earlier commit and this one on one Redis, with live sessions (FROM=tag or commit)
	@WALLCRAWLER_MIXED_FROM=$(FROM) go run .ci/count.go -strict -timeout 15m -run '^TestMixedVersions$$' ./e2e
