# The work is in scripts/. demo, test, check and bench do all their set-up.
.PHONY: help setup build demo test inside check bench fuzz generate reproduce clean

help: ## what can be done
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

setup: ## install what waxseal is built and tested with (Debian 12, root)
	@scripts/setup

build: ## the three programs, into bin/
	@scripts/build

demo: setup build ## boot a router, attest it, change one thing at a time, see it named
	@scripts/demo

test: setup build ## all tests, with real TPMs and routers in QEMU
	@scripts/test

inside: setup build ## the watch and its attacks on the router's own kernel, in QEMU (many minutes)
	@go test -tags inside -count=1 -v -timeout 60m -run 'TestMirrorsInQEMU|TestProbesInQEMU' ./cmd/waxseal

check: setup ## format, vet, staticcheck, walls, generated files, modules
	@scripts/check

bench: setup build ## performance as ratios against floors and peers
	@scripts/bench

fuzz: ## every fuzz target for FUZZTIME (default 30s)
	@scripts/fuzz

generate: setup ## write generated files again
	@scripts/generate

reproduce: setup build ## build an image twice and compare
	@scripts/reproduce

clean: ## remove bin/ and build/
	@rm -rf bin build
