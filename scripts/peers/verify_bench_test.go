package peers

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-attestation/attest"
	pbattest "github.com/google/go-tpm-tools/proto/attest"
	pbtpm "github.com/google/go-tpm-tools/proto/tpm"
	"github.com/google/go-tpm-tools/server"
	"github.com/google/go-tpm/tpm2"

	"waxseal/measure"
	"waxseal/measure/evidence"
	"waxseal/measure/evidence/evidencetest"
)

// BenchmarkVerification times each verifier by turns with the floor, so that
// what else the machine does meets both alike. x/floor is the median of the
// ratios of all turns, ns/op and floor-ns/op are medians, and B/op is of the
// verifier alone.
func BenchmarkVerification(b *testing.B) {
	for _, s := range sizes {
		a := newAnswer(b, s)
		for _, v := range []struct {
			name    string
			prepare func(*testing.B) turn
		}{
			{"waxseal-known-log", a.waxseal},
			{"waxseal-new-log", a.waxsealNewLog},
			{"go-attestation", a.goAttestation},
			{"go-tpm-tools", a.goTPMTools},
		} {
			b.Run(s.curve.Params().Name+"/"+v.name, func(b *testing.B) { byTurns(b, a.floor().run, v.prepare(b)) })
		}
	}
}

// turn makes a verification ready, outside of what is timed.
type turn func() (verify func() error)

// always is a turn that needs nothing made ready.
func always(verify func() error) turn { return func() func() error { return verify } }

func byTurns(b *testing.B, floor func() error, next turn) {
	bytes := allocated(b, next)
	var floors, verifies, ratios []float64
	for b.Loop() {
		verify := next()
		f, v := timed(b, floor), timed(b, verify)
		floors, verifies, ratios = append(floors, f), append(verifies, v), append(ratios, v/f)
	}
	b.ReportMetric(median(verifies), "ns/op")
	b.ReportMetric(median(floors), "floor-ns/op")
	b.ReportMetric(median(ratios), "x/floor")
	b.ReportMetric(bytes, "B/op")
}

func timed(b *testing.B, f func() error) float64 {
	start := time.Now()
	err := f()
	d := time.Since(start)
	ok(b, err)
	return float64(d)
}

// allocated returns the bytes that one verification allocates.
func allocated(b *testing.B, next turn) float64 {
	const calls = 20
	var ready [calls]func() error
	for i := range ready {
		ready[i] = next()
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, verify := range ready {
		ok(b, verify())
	}
	runtime.ReadMemStats(&after)
	return float64(after.TotalAlloc-before.TotalAlloc) / calls
}

func median(x []float64) float64 {
	x = slices.Sorted(slices.Values(x))
	return x[len(x)/2]
}

// waxseal is a verifier that asks every few minutes: it knows the router's
// certificates, and has read the same log before.
func (a answer) waxseal(b *testing.B) turn {
	v, trust := evidence.NewVerifier(a.router.Trust()), a.router.Trust()
	verify := func() error {
		_, err := v.Verify(a.evidence, a.challenge, trust)
		return err
	}
	ok(b, verify())
	return always(verify)
}

// waxsealNewLog is the first answer after a boot: the verifier knows the
// router's certificates, from an answer over fewer PCRs, but has never read
// the log for these.
func (a answer) waxsealNewLog(b *testing.B) turn {
	pcrs := a.challenge.PCRs
	before := must(evidencetest.Challenge(a.bank, pcrs[:len(pcrs)-1]...))(b)
	answered := must(a.router.Answer(before))(b)
	trust := a.router.Trust()
	return func() func() error {
		v := evidence.NewVerifier(trust)
		_, err := v.Verify(answered, before, trust)
		ok(b, err)
		return func() error {
			_, err := v.Verify(a.evidence, a.challenge, trust)
			return err
		}
	}
}

// goAttestation reads the log in TCG form and replays it against the quoted
// PCRs. The key is parsed once, in advance.
func (a answer) goAttestation(*testing.B) turn {
	algs := map[measure.Alg]crypto.Hash{measure.SHA256: crypto.SHA256, measure.SHA384: crypto.SHA384}
	key := &attest.AKPublic{Public: &a.router.AK.PublicKey, Hash: algs[a.bank]}
	quotes := []attest.Quote{{Quote: a.evidence.Quoted, Signature: a.evidence.Signature}}
	return always(func() error {
		var pcrs []attest.PCR
		for pcr, value := range a.evidence.PCRs {
			pcrs = append(pcrs, attest.PCR{Index: int(pcr), Digest: value, DigestAlg: algs[a.bank]})
		}
		if err := key.VerifyAll(quotes, pcrs, a.challenge.Nonce); err != nil {
			return err
		}
		log, err := attest.ParseEventLog(a.tcg)
		if err != nil {
			return err
		}
		events, err := log.Verify(pcrs)
		if err == nil && len(events) < length/2 {
			err = errors.New("events are missing")
		}
		return err
	})
}

// goTPMTools also reads from the firmware's events what state the machine is in.
func (a answer) goTPMTools(b *testing.B) turn {
	pcrs := &pbtpm.PCRs{Hash: pbtpm.HashAlgo(a.bank), Pcrs: map[uint32][]byte{}}
	for pcr, value := range a.evidence.PCRs {
		pcrs.Pcrs[uint32(pcr)] = value
	}
	attestation := &pbattest.Attestation{
		AkPub:    public(b, &a.router.AK.PublicKey),
		Quotes:   []*pbtpm.Quote{{Quote: a.evidence.Quoted, RawSig: a.evidence.Signature, Pcrs: pcrs}},
		EventLog: a.tcg,
	}
	opts := server.VerifyOpts{
		Nonce: a.challenge.Nonce, TrustedAKs: []crypto.PublicKey{&a.router.AK.PublicKey},
		AllowEmptySBVar: true, AllowEFIAppBeforeCallingEvent: true,
	}
	return always(func() error {
		_, err := server.VerifyAttestation(attestation, opts)
		return err
	})
}

// public returns the TPMT_PUBLIC of an attestation key.
func public(b testing.TB, key *ecdsa.PublicKey) []byte {
	curve, hash := tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256
	if key.Curve == elliptic.P384() {
		curve, hash = tpm2.TPMECCNistP384, tpm2.TPMAlgSHA384
	}
	point := must(key.Bytes())(b)[1:]
	return tpm2.Marshal(tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, Restricted: true, SignEncrypt: true},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Scheme:  tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: hash})},
			CurveID: curve,
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: point[:len(point)/2]}, Y: tpm2.TPM2BECCParameter{Buffer: point[len(point)/2:]},
		}),
	})
}
