# portreeve: `make help` lists the targets.

GO ?= $(firstword $(shell command -v go) /usr/local/go/bin/go)
PREFIX ?= /usr/local
DESTDIR ?=
# tests of one package may take this long
TIMEOUT ?= 30m
# each fuzz target runs this long
FUZZTIME ?= 30s
BENCHFLAGS ?=
# SYNs on each kind of link, and more flags: -complete, -seed=N, -links=veth,TUN
PACKETS ?= 350000
CLOTHESFLAGS ?= -seed=0
# rulesets, and more flags: -seed=N, -ruleset=N, -stages=N
RULESETS ?= 500
FIREWALLSFLAGS ?= -seed=0
# operations, and more flags: -seed=N, -environments=N, -limit=10s
CHAOS ?= 2000
CHAOSFLAGS ?= -seed=0 -environments=4
# -only=REGEXP of client/origin/play/way, -print
FOREIGNFLAGS ?=
STATICCHECK_VERSION = v0.8.2
STATICCHECK = .build/bin/staticcheck-$(STATICCHECK_VERSION)

# su leaves root without the last two
export PATH := $(PATH):$(dir $(GO)):/usr/sbin:/sbin

.DEFAULT_GOAL := build
.PHONY: build generate check test test-kernels clothes firewalls chaos mutants faults odd differential foreign races bench fuzz demo install clean help root

build: ## build bin/portreeve; needs Go and nothing else
	$(GO) build -trimpath -o bin/portreeve ./cmd/portreeve

generate: ## compile the BPF programs again and write what is generated
	scripts/install-deps generate
	$(GO) generate ./...

check: $(STATICCHECK) ## gofmt, vet, staticcheck, shellcheck, Vagrantfile, generated code
	scripts/install-deps check
	scripts/check-format
	$(GO) vet ./...
	$(GO) vet -C testenv/foreign/golang ./...
	$(STATICCHECK) ./...
	scripts/check-shell
	scripts/check-vagrant
	scripts/check-generated

# -count=1: tests that build portreeve and run it are stale in go's cache.
test: root ## run every test, as root; installs the Debian packages that are missing
	scripts/install-deps build test
	$(GO) test -count=1 -timeout $(TIMEOUT) ./...

test-kernels: root ## the data-path tests on Debian's kernels in QEMU and on this one, as root
	scripts/install-deps build test kernels
	$(GO) run ./testenv/kernels

clothes: root ## SYNs in every dress at a closed service, as root: the origin may answer none of two million
	scripts/install-deps build test
	$(GO) test -count=1 -timeout $(TIMEOUT) -v -run '^TestClothes$$' ./testenv/clothes -args -packets=$(PACKETS) $(CLOTHESFLAGS)

firewalls: root ## random rulesets of an administrator before and after attach, as root: whose verdict changes?
	scripts/install-deps build test
	$(GO) test -count=1 -timeout 2h -v -run '^TestFirewalls$$' ./testenv/firewalls -args -rulesets=$(RULESETS) $(FIREWALLSFLAGS)

chaos: root ## random operations on gateways that carry mail, as root: is any lost, does it flow again? CHAOS=2000
	scripts/install-deps build test
	$(GO) test -count=1 -timeout 4h -v -run '^TestChaos$$' ./testenv/chaos -args -operations=$(CHAOS) -within=0 $(CHAOSFLAGS)

mutants: ## break the inspector's checks one by one; every defect must fail the tests that are named for it
	$(GO) test -count=1 -timeout 1h -tags mutants -v -run '^TestMutants$$' ./pkg/session

faults: ## cut, stall and spoil both legs of recorded conversations at every octet and every step
	$(GO) test -count=1 -timeout $(TIMEOUT) -v -run '^(TestFaultAt|TestHostileOrigin|TestEndings)' ./pkg/session -args -stride=1

odd: ## the corpus of odd mail through sessions in every form, with every policy, cut in every way
	$(GO) test -count=1 -timeout $(TIMEOUT) -v -run '^(TestSession|TestModes)$$' ./testenv/odd -args -complete

differential: root ## all mail of real clients to Postfix, Exim and OpenSMTPD, with and without the gateway, as root
	scripts/install-deps build test
	$(GO) test -count=1 -timeout 2h ./testenv/differential -complete

foreign: root ## mail software of others as clients and origins, the same with the gateway as without, as root
	scripts/install-deps build test foreign
	scripts/node-modules
	$(GO) test -count=1 -timeout 1h -v ./testenv/foreign -args -complete $(FOREIGNFLAGS)

RACES ?= 20000
races: ## both peers wayward over real TCP at random moments; RACES=100000
	$(GO) test -count=1 -timeout 2h -v -run '^TestRaces$$' ./pkg/relay -args -races=$(RACES) -seed=0

fuzz: ## run each fuzz target for FUZZTIME (30s), two at a time
	scripts/fuzz $(FUZZTIME)

demo: root ## a message through the gateway to a real Postfix, as root
	scripts/install-deps build demo
	$(MAKE) --no-print-directory build
	$(GO) run ./testenv/demo bin/portreeve

bench: root ## cost beside HAProxy, nginx, Postfix and routing, as root; BENCH=short for minutes; BENCHFLAGS="-before OTHER/portreeve"
	scripts/install-deps build bench
	$(MAKE) --no-print-directory build
	$(GO) run ./testenv/bench $(if $(filter short,$(BENCH)),-short) $(BENCHFLAGS) bin/portreeve

install: build ## install program, manual and reference configuration below PREFIX (/usr/local)
	install -D -m 755 bin/portreeve $(DESTDIR)$(PREFIX)/sbin/portreeve
	install -d $(DESTDIR)$(PREFIX)/share/man/man7 $(DESTDIR)$(PREFIX)/share/man/man8
	bin/portreeve man $(DESTDIR)$(PREFIX)/share/man/man8
	mv $(DESTDIR)$(PREFIX)/share/man/man8/*.7 $(DESTDIR)$(PREFIX)/share/man/man7
	install -D -m 644 pkg/config/reference.yaml $(DESTDIR)$(PREFIX)/share/doc/portreeve/reference.yaml
	install -D -m 644 pkg/doctor/findings.md $(DESTDIR)$(PREFIX)/share/doc/portreeve/findings.md
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	bin/portreeve completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/portreeve

clean: ## remove what make made in this directory
	rm -rf bin .build

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

root:
	@[ "$$(id -u)" = 0 ] || { echo "$(MAKECMDGOALS) builds network namespaces and loads BPF programs: run it as root, for example with sudo make $(MAKECMDGOALS)" >&2; exit 1; }

$(STATICCHECK):
	GOBIN=$(CURDIR)/.build/bin $(GO) install honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION)
	mv .build/bin/staticcheck $@
