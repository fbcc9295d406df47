package evidence_test

import (
	"crypto/elliptic"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"waxseal/measure"
	"waxseal/measure/evidence"
	"waxseal/measure/evidence/evidencetest"
)

// public is the TPMT_PUBLIC of an attestation key on P-256, with an empty
// policy.
func public(t testing.TB, r *evidencetest.Router, attributes uint32, hash measure.Alg) []byte {
	point := must(r.AK.PublicKey.Bytes())(t)
	be := binary.BigEndian
	b := be.AppendUint16([]byte{0, 0x23}, uint16(measure.SHA256))
	b = be.AppendUint32(b, attributes)
	b = append(b, 0, 0, 0, 0x10, 0, 0x18)
	b = append(be.AppendUint16(b, uint16(hash)), 0, 3, 0, 0x10)
	b = append(append(b, 0, 32), point[1:33]...)
	return append(append(b, 0, 32), point[33:]...)
}

// 0x50072: fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, restricted, sign.
const attestation = 0x00050072

func TestEnrolledKeyIsHeldAgainstTheQuote(t *testing.T) {
	r := booted(t, elliptic.P256())
	b := ask(t, r, measure.SHA256)
	b.trust.Public = public(t, r, attestation, measure.SHA256)
	if _, err := b.verify(); !errors.Is(err, evidence.ErrKey) {
		t.Errorf("quote that names another signer: %v, want: %v", err, evidence.ErrKey)
	}
	key := must(evidence.ParseAttestationKey(b.trust.Public))(t)
	b.attest(t, func(a *evidencetest.Attest) { a.Signer = key.QualifiedName() })
	must(b.verify())(t)

	b.trust.Public = public(t, r, attestation&^(1<<16), measure.SHA256)
	if _, err := b.verify(); !errors.Is(err, evidence.ErrKey) {
		t.Errorf("the enrolled key is not restricted: %v, want: %v", err, evidence.ErrKey)
	}
	b.trust.Public = public(t, must(evidencetest.New("WX-0002", elliptic.P256()))(t), attestation, measure.SHA256)
	other := must(evidence.ParseAttestationKey(b.trust.Public))(t)
	b.attest(t, func(a *evidencetest.Attest) { a.Signer = other.QualifiedName() })
	if _, err := b.verify(); !errors.Is(err, evidence.ErrKey) {
		t.Errorf("another key was enrolled, and the quote has its name: %v, want: %v", err, evidence.ErrKey)
	}
}

// A signed manifest names a key without a certificate: then only its public
// area speaks, and it has to be there.
func TestPublicAreaAloneSpeaksForARouterOnlyWhereThatIsAsked(t *testing.T) {
	r := booted(t, elliptic.P256())
	good := func() bundle {
		b := ask(t, r, measure.SHA256)
		b.evidence.Certificates = evidence.Certificates{}
		b.trust.Roots, b.trust.Public, b.trust.PublicAlone = nil, public(t, r, attestation, measure.SHA256), true
		key := must(evidence.ParseAttestationKey(b.trust.Public))(t)
		b.attest(t, func(a *evidencetest.Attest) { a.Signer = key.QualifiedName() })
		return b
	}
	if v := must(good().verify())(t); v.Serial() != "WX-0001" {
		t.Errorf("serial number is %q", v.Serial())
	}
	for name, c := range map[string]struct {
		change func(*bundle)
		want   error
	}{
		"not asked for":       {func(b *bundle) { b.trust.PublicAlone = false }, evidence.ErrTrust},
		"no public area":      {func(b *bundle) { b.trust.Public = nil }, evidence.ErrTrust},
		"no serial number":    {func(b *bundle) { b.trust.Serial = "" }, evidence.ErrTrust},
		"roots beside it":     {func(b *bundle) { b.trust.Roots = r.Trust().Roots }, evidence.ErrTrust},
		"a certificate comes": {func(b *bundle) { b.evidence.Certificates.IAK = []string{"x"} }, evidence.ErrCertificate},
		"another is reported": {func(b *bundle) { b.evidence.Card.Serial = "WX-0002" }, evidence.ErrSerial},
		"not restricted":      {func(b *bundle) { b.trust.Public = public(t, r, attestation&^(1<<16), measure.SHA256) }, evidence.ErrKey},
		"another key":         {func(b *bundle) { b.trust.Public = public(t, booted(t, elliptic.P256()), attestation, measure.SHA256) }, evidence.ErrSignature},
	} {
		b := good()
		c.change(&b)
		if _, err := b.verify(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want: %v", name, err, c.want)
		}
	}
}

// D-18: a key that is not restricted to its TPM's own words proves nothing.
func TestKeysThatAreNoAttestationKeysAreRefused(t *testing.T) {
	r := must(evidencetest.New("WX-0001", elliptic.P256()))(t)
	for name, attributes := range map[string]uint32{
		"not restricted": attestation &^ (1 << 16), "not fixedTPM": attestation &^ (1 << 1),
		"not fixedParent": attestation &^ (1 << 4), "not sensitiveDataOrigin": attestation &^ (1 << 5),
		"does not sign": attestation &^ (1 << 18), "also decrypts": attestation | 1<<17,
	} {
		if _, err := evidence.ParseAttestationKey(public(t, r, attributes, measure.SHA256)); !errors.Is(err, evidence.ErrKey) {
			t.Errorf("%s: %v, want: %v", name, err, evidence.ErrKey)
		}
	}
	if _, err := evidence.ParseAttestationKey(public(t, r, attestation, measure.SHA1)); !errors.Is(err, evidence.ErrScheme) {
		t.Errorf("signs over SHA-1: %v, want: %v", err, evidence.ErrScheme)
	}
	for name, patch := range map[string]struct {
		at    int
		value byte
	}{
		"RSA": {1, 0x01}, "named by SHA-1": {3, 0x04}, "with a symmetric cipher": {11, 0x06}, "of another scheme": {13, 0x1a},
		"on curve P-224": {17, 0x02}, "with a key derivation": {19, 0x20}, "on another curve than its point": {17, 0x04},
	} {
		spoilt := public(t, r, attestation, measure.SHA256)
		spoilt[patch.at] = patch.value
		if _, err := evidence.ParseAttestationKey(spoilt); !errors.Is(err, evidence.ErrKey) && !errors.Is(err, evidence.ErrScheme) {
			t.Errorf("%s: %v", name, err)
		}
	}
	long := public(t, r, attestation, measure.SHA256)
	long = slices.Concat(long[:20], []byte{0, 33, 0}, long[22:])
	if _, err := evidence.ParseAttestationKey(long); !errors.Is(err, evidence.ErrKey) {
		t.Errorf("point longer than its curve: %v, want: %v", err, evidence.ErrKey)
	}
	good := public(t, r, attestation, measure.SHA256)
	for n := range good {
		if _, err := evidence.ParseAttestationKey(good[:n]); err == nil {
			t.Errorf("public area cut at byte %d is accepted", n)
		}
	}
	if _, err := evidence.ParseAttestationKey(append(good, 0)); !errors.Is(err, evidence.ErrKey) {
		t.Errorf("trailing byte: %v, want: %v", err, evidence.ErrKey)
	}
	good[len(good)-1] ^= 1
	if _, err := evidence.ParseAttestationKey(good); !errors.Is(err, evidence.ErrKey) {
		t.Errorf("point beside the curve: %v, want: %v", err, evidence.ErrKey)
	}
}
