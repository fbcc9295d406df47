package evidence_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"slices"
	"testing"

	"waxseal/measure"
	"waxseal/measure/evidence"
	"waxseal/measure/evidence/evidencetest"
)

// What went wrong in other verifiers, done to this one.

// disguised is a router that booted something else, and tells it with the PCR values and
// the log of one that booted well.
func disguised(t *testing.T) (b bundle, well *evidencetest.Router) {
	t.Helper()
	bad := must(evidencetest.New("WX-0001", elliptic.P256()))(t)
	firmware(t, bad)
	ok(t, bad.Start())
	ok(t, bad.Measure("bootloader/mtd/u-boot", []byte("rootkit")))
	ok(t, bad.Cap("phase/handoff/switch_root"))
	well = booted(t, elliptic.P256())
	b = ask(t, bad, measure.SHA256)
	good := must(well.Answer(b.challenge))(t)
	b.evidence.PCRs, b.evidence.Log, b.evidence.Contents = good.PCRs, good.Log, good.Contents
	return b, well
}

// values concatenates what a quote over pcrs is a digest of.
func values(r *evidencetest.Router, pcrs ...measure.PCR) []byte {
	var all []byte
	for _, pcr := range pcrs {
		all = append(all, r.PCR(measure.SHA256, pcr)...)
	}
	return all
}

// go-attestation before 0.4.0: a quote over some PCRs, or over none, was held
// valid for all the values that came with it, and the log was replayed to
// values that no TPM had signed.
func TestCVE2022_0317_ValuesThatTheQuoteDoesNotCoverAreRefused(t *testing.T) {
	for name, covered := range map[string][]measure.PCR{
		"none": nil, "one that is as it should be": {1}, "all but the one that was changed": slices.DeleteFunc(slices.Clone(asked), func(p measure.PCR) bool { return p == 12 }),
	} {
		t.Run(name, func(t *testing.T) {
			b, _ := disguised(t)
			b.attest(t, func(a *evidencetest.Attest) {
				a.Selections = []evidencetest.Selection{evidencetest.Select(measure.SHA256, covered...)}
				a.PCRDigest = measure.Hash(measure.SHA256, values(b.router, covered...)).Sum
			})
			if _, err := b.verify(); !errors.Is(err, evidence.ErrSelection) {
				t.Errorf("Verify: %v, want: %v", err, evidence.ErrSelection)
			}
		})
	}
	b, _ := disguised(t) // as asked, and so the values themselves are caught
	if _, err := b.verify(); !errors.Is(err, evidence.ErrValues) {
		t.Errorf("Verify: %v, want: %v", err, evidence.ErrValues)
	}
}

// tpm2_checkquote before 5.7 never looked at the magic number, by which a TPM
// marks what it has made itself: any bytes that a key could be brought to sign
// passed for a quote.
func TestCVE2024_29038_QuoteThatNoTPMGeneratedIsRefused(t *testing.T) {
	for _, magic := range []uint32{0, 0xffffffff, 0x474354ff, 0xff544346} {
		b := ask(t, booted(t, elliptic.P256()), measure.SHA256)
		b.attest(t, func(a *evidencetest.Attest) { a.Magic = magic })
		if _, err := b.verify(); !errors.Is(err, evidence.ErrAttest) {
			t.Errorf("magic 0x%08x: %v, want: %v", magic, err, evidence.ErrAttest)
		}
	}
}

// tpm2_checkquote before 5.7 took the PCR selection from beside the quote. A
// quote is over concatenated values and does not say whose they are: whoever
// puts good values into other PCRs gets the digest of a good boot.
func TestCVE2024_29039_GoodValuesInOtherPCRsAreRefused(t *testing.T) {
	others := []measure.PCR{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 17, 18, 23}
	for name, quoted := range map[string]evidencetest.Selection{
		"other PCRs of the bank":         evidencetest.Select(measure.SHA256, others...),
		"a PCR that can be reset beside": evidencetest.Select(measure.SHA256, append(slices.Clone(asked), 16)...),
	} {
		b, well := disguised(t)
		b.attest(t, func(a *evidencetest.Attest) {
			a.Selections = []evidencetest.Selection{quoted}
			a.PCRDigest = measure.Hash(measure.SHA256, values(well, asked...)).Sum
		})
		if _, err := b.verify(); !errors.Is(err, evidence.ErrSelection) {
			t.Errorf("%s: %v, want: %v", name, err, evidence.ErrSelection)
		}
	}
}

// Keylime before 6.0: that a TPM holds the attestation key was proven for the
// name that the agent sent; quotes were checked with a public key that it sent
// beside, and nothing said that the two were one key.
func TestCVE2021_3406_KeyBesideTheProvenOneIsRefused(t *testing.T) {
	r := booted(t, elliptic.P256())
	b := ask(t, r, measure.SHA256)
	b.trust.Public = public(t, r, attestation, measure.SHA256) // proven to be in the TPM
	proven := must(evidence.ParseAttestationKey(b.trust.Public))(t)
	b.attest(t, func(a *evidencetest.Attest) { a.Signer = proven.QualifiedName() })
	must(b.verify())(t)

	software := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	cert := must(r.Owner.Certify(evidencetest.Leaf(r.Serial), software.Public()))(t)
	b.evidence.Certificates.OIAK = evidencetest.PEM(cert)
	b.evidence.Signature = must(evidencetest.Sign(software, b.evidence.Quoted))(t)
	if _, err := b.verify(); !errors.Is(err, evidence.ErrKey) {
		t.Errorf("quote by a key in software, under the name of the TPM's: %v, want: %v", err, evidence.ErrKey)
	}
}
