// Package difftest compares measure/eventlog with code that nobody here wrote:
// tpm2_eventlog of tpm2-tools, google/go-eventlog and google/go-attestation.
// All must replay the logs that we write, and real logs of firmware, to the
// same PCR values.
//
// It holds tests only, in a Go module of its own, so that what it depends on
// stays out of the programs that ship. Run it with
//
//	cd scripts/difftest && go test ./...
package difftest
