module waxseal/scripts/difftest

go 1.26.0

require (
	github.com/google/go-attestation v0.6.1
	github.com/google/go-eventlog v0.0.3-0.20260416001248-6807b85eecf0
	waxseal v0.0.0
)

require (
	github.com/google/go-tpm v0.9.8 // indirect
	golang.org/x/sys v0.49.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace waxseal => ../..
