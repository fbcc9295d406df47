package devid_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"testing"

	"waxseal/measure/devid"
	"waxseal/measure/devid/devidtest"
)

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func parse(t testing.TB, kind devid.Kind, public []byte) devid.Key {
	t.Helper()
	return must(devid.Parse(kind, public))(t)
}

func TestKeysOfTheTemplatesAreKnown(t *testing.T) {
	tpm := must(devidtest.New())(t)
	for _, kind := range []devid.Kind{devid.IAK, devid.IDevID} {
		public := tpm.Public(kind)
		key := parse(t, kind, public)
		if !key.Public.Equal(tpm.Keys[kind].Public()) || !bytes.Equal(key.Name, devidtest.Certification(public).Name) {
			t.Errorf("%s is read as another key", kind)
		}
		attributes := binary.BigEndian.Uint32(public[4:])
		parse(t, kind, devidtest.Public(key.Public, attributes|1<<10, devid.Policy(kind))) // noDA
		for i := range public {
			if _, err := devid.Parse(kind, public[:i]); !errors.Is(err, devid.ErrTemplate) {
				t.Errorf("%s cut to %d bytes: %v", kind, i, err)
			}
		}
	}
}

// D-18, and the policy by which nobody but the endorsement hierarchy moves or
// certifies the key.
func TestKeysOfOtherTemplatesAreRefused(t *testing.T) {
	tpm := must(devidtest.New())(t)
	iak, policy := &tpm.Keys[devid.IAK].PublicKey, devid.Policy(devid.IAK)
	small := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	for bit := range 32 {
		if bit == 10 {
			continue // noDA
		}
		if _, err := devid.Parse(devid.IAK, devidtest.Public(iak, devidtest.AttributesIAK^1<<bit, policy)); !errors.Is(err, devid.ErrTemplate) {
			t.Errorf("attribute %d changed: %v", bit, err)
		}
	}
	other := bytes.Clone(policy)
	other[47] ^= 1
	public := tpm.Public(devid.IAK)
	patched := func(at int, value byte) []byte {
		b := bytes.Clone(public)
		b[at] = value
		return b
	}
	for name, public := range map[string][]byte{
		"no policy":        devidtest.Public(iak, devidtest.AttributesIAK, nil),
		"other policy":     devidtest.Public(iak, devidtest.AttributesIAK, other),
		"IDevID's policy":  devidtest.Public(iak, devidtest.AttributesIAK, devid.Policy(devid.IDevID)),
		"P-256":            devidtest.Public(&small.PublicKey, devidtest.AttributesIAK, policy),
		"the IDevID":       tpm.Public(devid.IDevID),
		"RSA":              patched(1, 0x01),
		"named by SHA-256": patched(3, 0x0b),
		"trailing byte":    append(bytes.Clone(public), 0),
		"nothing":          nil,
	} {
		if _, err := devid.Parse(devid.IAK, public); !errors.Is(err, devid.ErrTemplate) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := devid.Parse(devid.IDevID, public); !errors.Is(err, devid.ErrTemplate) {
		t.Errorf("the IAK as IDevID: %v", err)
	}
	if _, err := devid.Parse("EK", public); !errors.Is(err, devid.ErrTemplate) {
		t.Errorf("another kind: %v", err)
	}
}

// Each case takes away one thing that is looked at.
func TestCertificationOfAnotherKeyIsRefused(t *testing.T) {
	tpm, other := must(devidtest.New())(t), must(devidtest.New())(t)
	iak, idevid := parse(t, devid.IAK, tpm.Public(devid.IAK)), parse(t, devid.IDevID, tpm.Public(devid.IDevID))
	good := devidtest.Certification(tpm.Public(devid.IDevID))
	foreign := devidtest.Certification(other.Public(devid.IDevID))
	check := func(a devidtest.Attest, by devidtest.TPM) error {
		b := a.Bytes()
		return idevid.CertifiedBy(iak, b, must(by.Sign(devid.IAK, b))(t))
	}
	if err := check(good, tpm); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*devidtest.Attest)
		by     devidtest.TPM
		want   error
	}{
		"D-01 other magic":            {func(a *devidtest.Attest) { a.Magic++ }, tpm, devid.ErrCertify},
		"D-02 a quote":                {func(a *devidtest.Attest) { a.Type = 0x8018 }, tpm, devid.ErrCertify},
		"D-19 name of another key":    {func(a *devidtest.Attest) { a.Name = foreign.Name }, tpm, devid.ErrOtherKey},
		"name and qualified name one": {func(a *devidtest.Attest) { a.QualifiedName = a.Name }, tpm, devid.ErrTemplate},
		"of another hierarchy":        {func(a *devidtest.Attest) { a.QualifiedName = foreign.QualifiedName }, tpm, devid.ErrTemplate},
		"extra data":                  {func(a *devidtest.Attest) { a.ExtraData = []byte("x") }, tpm, devid.ErrCertify},
		"name too long":               {func(a *devidtest.Attest) { a.Name = make([]byte, 67) }, tpm, devid.ErrCertify},
		"too long":                    {func(a *devidtest.Attest) { a.ExtraData = make([]byte, 1024) }, tpm, devid.ErrCertify},
		"D-21 by another TPM's IAK":   {func(*devidtest.Attest) {}, other, devid.ErrSignature},
	} {
		a := good
		c.change(&a)
		if err := check(a, c.by); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want: %v", name, err, c.want)
		}
	}
	b := good.Bytes()
	if err := idevid.CertifiedBy(iak, b, nil); !errors.Is(err, devid.ErrSignature) {
		t.Errorf("D-03 no signature: %v", err)
	}
	if err := idevid.CertifiedBy(idevid, b, must(tpm.Sign(devid.IDevID, b))(t)); !errors.Is(err, devid.ErrCertify) {
		t.Errorf("the IDevID by itself: %v", err)
	}
	if err := iak.CertifiedBy(iak, b, must(tpm.Sign(devid.IAK, b))(t)); !errors.Is(err, devid.ErrCertify) {
		t.Errorf("the IAK by itself: %v", err)
	}
}

func TestEveryBitOfACertificationCounts(t *testing.T) {
	tpm := must(devidtest.New())(t)
	iak, idevid := parse(t, devid.IAK, tpm.Public(devid.IAK)), parse(t, devid.IDevID, tpm.Public(devid.IDevID))
	attest := devidtest.Certification(tpm.Public(devid.IDevID)).Bytes()
	signature := must(tpm.Sign(devid.IAK, attest))(t)
	secret := bytes.Repeat([]byte{7}, 32)
	word := devidtest.Certification(tpm.Public(devid.IAK)).Bytes()
	tag := devidtest.Tag(secret, word)
	if err := errors.Join(idevid.CertifiedBy(iak, attest, signature), iak.CertifiedByHMAC(secret, word, tag)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		good []byte
		try  func([]byte) error
	}{
		{"attest", attest, func(b []byte) error { return idevid.CertifiedBy(iak, b, signature) }},
		{"signature", signature, func(b []byte) error { return idevid.CertifiedBy(iak, attest, b) }},
		{"word", word, func(b []byte) error { return iak.CertifiedByHMAC(secret, b, tag) }},
		{"tag", tag, func(b []byte) error { return iak.CertifiedByHMAC(secret, word, b) }},
		{"secret", secret, func(b []byte) error { return iak.CertifiedByHMAC(b, word, tag) }},
	} {
		for i := range len(c.good) * 8 {
			b := bytes.Clone(c.good)
			b[i/8] ^= 1 << (i % 8)
			if c.try(b) == nil {
				t.Errorf("%s: bit %d does not count", c.name, i)
			}
		}
		for n := range c.good {
			if c.try(c.good[:n]) == nil {
				t.Errorf("%s: cut to %d bytes", c.name, n)
			}
		}
		if c.name != "secret" && c.try(append(bytes.Clone(c.good), 0)) == nil {
			t.Errorf("%s: a byte too many", c.name)
		}
	}
}

func TestTagOfAnotherKeyIsRefused(t *testing.T) {
	tpm := must(devidtest.New())(t)
	iak := parse(t, devid.IAK, tpm.Public(devid.IAK))
	word := devidtest.Certification(tpm.Public(devid.IAK)).Bytes()
	secret := bytes.Repeat([]byte{7}, 32)
	if err := iak.CertifiedByHMAC(secret, word, devidtest.Tag(bytes.Repeat([]byte{8}, 32), word)); !errors.Is(err, devid.ErrSignature) {
		t.Errorf("another key: %v", err)
	}
	if err := iak.CertifiedByHMAC(nil, word, devidtest.Tag(nil, word)); !errors.Is(err, devid.ErrSignature) {
		t.Errorf("an empty key: %v", err)
	}
	other := must(devidtest.New())(t)
	word = devidtest.Certification(other.Public(devid.IAK)).Bytes()
	if err := iak.CertifiedByHMAC(secret, word, devidtest.Tag(secret, word)); !errors.Is(err, devid.ErrOtherKey) {
		t.Errorf("another IAK: %v", err)
	}
}

func FuzzCertification(f *testing.F) {
	tpm := must(devidtest.New())(f)
	iak, idevid := parse(f, devid.IAK, tpm.Public(devid.IAK)), parse(f, devid.IDevID, tpm.Public(devid.IDevID))
	f.Add(tpm.Public(devid.IAK), devidtest.Certification(tpm.Public(devid.IDevID)).Bytes(), must(tpm.Sign(devid.IAK, nil))(f))
	f.Add([]byte{}, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, public, attest, signature []byte) {
		if key, err := devid.Parse(devid.IAK, public); err == nil && len(key.Name) != 50 {
			t.Errorf("name of %d bytes", len(key.Name))
		}
		if idevid.CertifiedBy(iak, attest, signature) == nil {
			t.Error("a certification is forged")
		}
		if iak.CertifiedByHMAC(make([]byte, 32), attest, signature) == nil {
			t.Error("a tag is forged")
		}
	})
}
