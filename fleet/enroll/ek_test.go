package enroll_test

import (
	"bytes"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"waxseal/fleet/enroll"
	"waxseal/measure/evidence/evidencetest"
	"waxseal/measure/wire"
)

// ekCertificate is the certificate of an EK, as a TPM's maker issues it.
func ekCertificate(t *testing.T, by evidencetest.Authority, key any, changes ...func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := evidencetest.Leaf("")
	template.UnknownExtKeyUsage = append(template.UnknownExtKeyUsage, []int{2, 23, 133, 8, 1})
	for _, change := range changes {
		change(template)
	}
	cert, err := by.Certify(template, key)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestEKIsReadFromItsCertificateOrKey(t *testing.T) {
	keys, err := eks()
	if err != nil {
		t.Fatal(err)
	}
	ek := &keys[0].PublicKey
	maker, other := authority(t, "TPM maker", nil), authority(t, "TPM maker", nil)
	ca := []*x509.Certificate{maker.Certificate}
	plain := publicPEM(t, ek)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skip("this Go makes no weak keys") // crypto/rsa refuses below 1024 bits
	}
	for name, c := range map[string]struct {
		text string
		good bool
	}{
		"certificate":            {pemOf(ekCertificate(t, maker, ek)), true},
		"key":                    {plain, true},
		"of another maker":       {pemOf(ekCertificate(t, other, ek)), false},
		"expired":                {pemOf(ekCertificate(t, maker, ek, func(c *x509.Certificate) { c.NotAfter = noon().AddDate(0, 0, -1) })), false},
		"of no EK":               {pemOf(ekCertificate(t, maker, ek, func(c *x509.Certificate) { c.UnknownExtKeyUsage = nil })), false},
		"of an EC key":           {pemOf(ekCertificate(t, maker, &newKey(t, elliptic.P384()).PublicKey)), false},
		"EC key":                 {publicPEM(t, &newKey(t, elliptic.P384()).PublicKey), false},
		"RSA-1024":               {publicPEM(t, &small.PublicKey), false},
		"RSA with exponent 3":    {publicPEM(t, &rsa.PublicKey{N: ek.N, E: 3}), false},
		"two blocks":             {plain + plain, false},
		"no PEM":                 {"x", false},
		"empty":                  {"", false},
		"a block of another use": {string(bytes.ReplaceAll([]byte(plain), []byte("PUBLIC KEY"), []byte("SOMETHING"))), false},
	} {
		got, err := enroll.ReadEK(file(t, c.text), serial, ca, noon())
		if c.good != (err == nil) || !c.good && !errors.Is(err, enroll.ErrEK) {
			t.Errorf("%s: %v", name, err)
		}
		if c.good && !got.Key.Equal(ek) {
			t.Errorf("%s: read as another key", name)
		}
	}
	if _, err := enroll.ReadEK(file(t, pemOf(ekCertificate(t, maker, ek))), serial, nil, noon()); !errors.Is(err, enroll.ErrEK) {
		t.Errorf("a certificate without a CA: %v", err)
	}
	if _, err := enroll.ReadEK(file(t, plain), "", ca, noon()); !errors.Is(err, enroll.ErrEK) {
		t.Errorf("no serial number: %v", err)
	}
}

func pemOf(cert *x509.Certificate) string { return wire.ChainOf(cert).String() }

func publicPEM(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
