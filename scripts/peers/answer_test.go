package peers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"
	"math/big"
	"os"
	"slices"
	"testing"

	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/evidence"
	"waxseal/measure/evidence/evidencetest"
)

// size is a strength: the attestation key's curve and the quoted bank.
type size struct {
	curve elliptic.Curve
	bank  measure.Alg
}

var sizes = []size{{elliptic.P256(), measure.SHA256}, {elliptic.P384(), measure.SHA384}}

// length is the number of events of the log that all verify.
const length = 105

// answer is what one router answered to one challenge.
type answer struct {
	size
	router    *evidencetest.Router
	challenge evidence.Challenge
	evidence  evidence.Evidence
	tcg       []byte // the log as the peers read it
	der       []byte // the signature as crypto/ecdsa reads it
	place     int    // of the quoted bank in each event
}

// newAnswer returns the answer of a router with a real firmware's log, followed
// by records of ours.
func newAnswer(b testing.TB, s size) answer {
	b.Helper()
	r := must(evidencetest.New("WX-0001", s.curve))(b)
	firmware := must(eventlog.DecodeTCG(must(os.ReadFile("../../measure/eventlog/testdata/qemu-ovmf-uki.tcg"))(b)))(b)
	measureAll(b, r, must(firmware.Select(r.Log.Banks))(b))
	a := answer{size: s, router: r, place: slices.Index(r.Log.Banks, s.bank)}
	a.challenge = must(evidencetest.Challenge(s.bank, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15))(b)
	a.evidence = must(r.Answer(a.challenge))(b)
	a.tcg = must(eventlog.EncodeTCG(r.Log))(b)
	a.der = der(b, a.evidence.Signature)
	return a
}

func measureAll(b testing.TB, r *evidencetest.Router, firmware eventlog.Log) {
	b.Helper()
	for _, e := range firmware.Events {
		r.Log.Events = append(r.Log.Events, e)
		if e.Extends() {
			ok(b, r.Extend(e.PCR, e.Digests))
		}
	}
	ok(b, r.Start())
	caps := len(r.Profile.Capped())
	for i := len(r.Log.Events); i < length-caps; i++ {
		ok(b, r.Measure(fmt.Sprintf("config/uci/item-%d?c=uci1", i), fmt.Append(nil, i)))
	}
	ok(b, r.Cap("phase/handoff/switch_root"))
	if len(r.Log.Events) != length {
		b.Fatalf("%d events: want %d", len(r.Log.Events), length)
	}
}

// der turns a TPMT_SIGNATURE of scheme ECDSA into SEQUENCE { r, s }: two
// numbers of two algorithms, then two numbers with their sizes.
func der(b testing.TB, signature []byte) []byte {
	b.Helper()
	n := int(signature[4])<<8 | int(signature[5])
	r, s := signature[6:6+n], signature[6+n+2:]
	return must(asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(r), new(big.Int).SetBytes(s)}))(b)
}

// floor is what nobody can do without: the signature, and the hashes of the
// log's replay in the quoted bank. That is one hash for each event that was
// extended, and one for each record of ours, whose digest must cover its name.
// The bank's hash is that of the signature in both sizes.
type floor struct {
	answer
	h   hash.Hash
	sum []byte
}

func (a answer) floor() *floor { return &floor{answer: a, h: a.bank.New(), sum: make([]byte, 0, 64)} }

func (f *floor) run() error {
	if !ecdsa.VerifyASN1(&f.router.AK.PublicKey, f.hash(f.evidence.Quoted), f.der) {
		return errors.New("signature is not good")
	}
	var pcrs [measure.NumPCRs][64]byte
	for _, e := range f.router.Log.Events {
		if !e.Extends() {
			continue
		}
		if e.Ours {
			f.hash(e.Data)
		}
		value := pcrs[e.PCR][:f.bank.Size()]
		copy(value, f.hash(value, e.Digests[f.place].Sum))
	}
	return nil
}

// hash returns the digest of parts; it is good until the next call.
func (f *floor) hash(parts ...[]byte) []byte {
	f.h.Reset()
	for _, p := range parts {
		f.h.Write(p)
	}
	f.sum = f.h.Sum(f.sum[:0])
	return f.sum
}

// must returns what a call gave, or ends the benchmark.
func must[T any](v T, err error) func(testing.TB) T {
	return func(b testing.TB) T {
		b.Helper()
		ok(b, err)
		return v
	}
}

func ok(b testing.TB, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}
