package delivery

import (
	"time"

	"waxseal/measure/wire"
)

// Transcript is all that was said at the doorstep, and nothing that was
// concluded from it. Judge needs no more.
type Transcript struct {
	Manifest  []byte // the sealed file
	Reference []byte // of reference values; nil: those in the manifest

	Fresh   [32]byte          // what was drawn for this check
	Request wire.ProofRequest // what was asked; its nonce is derived from Fresh, manifest and secret
	Inside  Inside            // what the credentials hold

	Issued   time.Time // when the challenge was made
	Received time.Time // when the whole answer was there

	Identity wire.Identity // what the device shows of itself
	Proof    *wire.Proof   // nil: it gave none
	Refusal  string        // why it gave none, in its own words
}

// Inside are the secrets that were put into the two credentials, new for each
// check.
type Inside struct{ IAK, IDevID []byte }

// Timeout bounds the time from the challenge to the answer: a slow TPM takes a
// second for each of five commands.
const Timeout = 30 * time.Second
