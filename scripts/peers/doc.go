// Package peers measures what it costs to verify one answer of a router, by
// measure/evidence and by others: google/go-attestation and the server package
// of google/go-tpm-tools. All are given the same quote and the same log.
//
// It holds benchmarks only, in a Go module of its own, so that what it depends
// on stays out of the programs that ship. scripts/bench runs it.
package peers
