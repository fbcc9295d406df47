// Package peers holds our code against that of others.
//
// Its benchmarks measure what it costs to verify one answer of a router, by
// measure/evidence and by others: google/go-attestation and the server package
// of google/go-tpm-tools. All are given the same quote and the same log;
// scripts/bench runs them. Its tests show that others accept what we write:
// go-tpm-tools what fleet/export exports, golang-jwt and veraison/go-cose our
// tokens; and that our decoders accept no mutant that others refuse.
//
// It is a Go module of its own, so that what it depends on stays out of the
// programs that ship.
package peers
