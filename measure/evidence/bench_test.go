package evidence_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"testing"

	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/evidence"
	"waxseal/measure/evidence/evidencetest"
)

// long is a bundle whose log has 105 events.
func long(b *testing.B, curve elliptic.Curve, bank measure.Alg) bundle {
	r := must(evidencetest.New("WX-0001", curve))(b)
	for i := range 40 {
		ok(b, r.Firmware(measure.PCR(i%8), eventlog.EVEFIVariableBoot, fmt.Append(nil, i), make([]byte, 100)))
	}
	ok(b, r.Separators())
	ok(b, r.Start())
	for i := range 52 {
		ok(b, r.Measure(fmt.Sprintf("config/uci/item-%d?c=uci1", i), fmt.Append(nil, i)))
	}
	ok(b, r.Cap("phase/handoff/switch_root"))
	if len(r.Log.Events) != 105 {
		b.Fatalf("%d events", len(r.Log.Events))
	}
	return ask(b, r, bank)
}

var sizes = []struct {
	curve elliptic.Curve
	bank  measure.Alg
}{{elliptic.P256(), measure.SHA256}, {elliptic.P384(), measure.SHA384}}

// BenchmarkFloor is the work that nobody can do without: one signature, one
// hash of each of our events, one extend of each event.
func BenchmarkFloor(b *testing.B) {
	for _, size := range sizes {
		b.Run(size.curve.Params().Name, func(b *testing.B) {
			bundle := long(b, size.curve, size.bank)
			sum := measure.Hash(evidencetest.Scheme(size.curve), bundle.evidence.Quoted).Sum
			signature := must(ecdsa.SignASN1(rand.Reader, bundle.router.AK, sum))(b)
			h := size.bank.New()
			value := make([]byte, 0, 64)
			b.ReportAllocs()
			for b.Loop() {
				if !ecdsa.VerifyASN1(&bundle.router.AK.PublicKey, measure.Hash(evidencetest.Scheme(size.curve), bundle.evidence.Quoted).Sum, signature) {
					b.Fatal("signature")
				}
				for _, e := range bundle.router.Log.Events {
					if e.Ours {
						h.Reset()
						h.Write(e.Data)
						value = h.Sum(value[:0])
					}
					h.Reset()
					h.Write(value)
					h.Write(e.Digests[0].Sum)
					value = h.Sum(value[:0])
				}
			}
		})
	}
}

// BenchmarkVerify has seen router and log before, as a verifier does that asks
// every five minutes.
func BenchmarkVerify(b *testing.B) {
	for _, size := range sizes {
		b.Run(size.curve.Params().Name, func(b *testing.B) {
			bundle := long(b, size.curve, size.bank)
			verifier := evidence.NewVerifier(bundle.trust)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := verifier.Verify(bundle.evidence, bundle.challenge, bundle.trust); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkVerifyNewLog knows the router, but has never seen its log.
func BenchmarkVerifyNewLog(b *testing.B) {
	for _, size := range sizes {
		b.Run(size.curve.Params().Name, func(b *testing.B) {
			bundle := long(b, size.curve, size.bank)
			verifier := evidence.NewVerifier(bundle.trust)
			b.ReportAllocs()
			for b.Loop() {
				evidence.ForgetLogs(verifier)
				if _, err := verifier.Verify(bundle.evidence, bundle.challenge, bundle.trust); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkVerifyFirst has seen neither router nor log.
func BenchmarkVerifyFirst(b *testing.B) {
	bundle := long(b, elliptic.P256(), measure.SHA256)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := bundle.verify(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerifySecond is the one time that a log is read and copied, to be
// kept: when it comes for the second time.
func BenchmarkVerifySecond(b *testing.B) {
	bundle := long(b, elliptic.P256(), measure.SHA256)
	verifier := evidence.NewVerifier(bundle.trust)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		evidence.ForgetLogs(verifier)
		if _, err := verifier.Verify(bundle.evidence, bundle.challenge, bundle.trust); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if _, err := verifier.Verify(bundle.evidence, bundle.challenge, bundle.trust); err != nil {
			b.Fatal(err)
		}
	}
}
