package factory_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"waxseal/hw/tpm"
	"waxseal/hw/tpm/tpmtest"
	"waxseal/images/factory"
)

// tpmMaker is a maker of TPMs: a root, and an intermediate that certifies EKs.
type tpmMaker struct {
	root, issuer       *x509.Certificate
	rootKey, issuerKey crypto.Signer
}

func newTPMMaker(t *testing.T, issuerKey crypto.Signer, change func(issuer *x509.Certificate)) tpmMaker {
	t.Helper()
	m := tpmMaker{rootKey: p384(t), issuerKey: issuerKey}
	root := caCert("maker root")
	m.root = issueCert(t, root, root, m.rootKey.Public(), m.rootKey)
	issuer := caCert("maker issuer")
	change(issuer)
	m.issuer = issueCert(t, issuer, m.root, issuerKey.Public(), m.rootKey)
	return m
}

func p384(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func caCert(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(20, 0, 0),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
}

func issueCert(t *testing.T, template, issuer *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// trust has the CA of a vendor believe the maker.
func (m tpmMaker) trust(t *testing.T, ca *factory.CA) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "makers.pem")
	var file []byte
	for _, c := range []*x509.Certificate{m.root, m.issuer} {
		file = append(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ca.TrustEKs(path); err != nil {
		t.Fatal(err)
	}
	ca.Now = func() time.Time { return now }
}

// ekCert is the certificate of an EK as a maker writes it.
func ekCert(pub crypto.PublicKey) *x509.Certificate {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: now.AddDate(0, -1, 0), NotAfter: now.AddDate(15, 0, 0),
		KeyUsage: x509.KeyUsageKeyAgreement, BasicConstraintsValid: true,
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{{2, 23, 133, 8, 1}},
		ExtraExtensions:    []pkix.Extension{sanOf("id:00001014", "swtpm", "id:20191023")},
	}
	if _, ok := pub.(*rsa.PublicKey); ok {
		template.KeyUsage = x509.KeyUsageKeyEncipherment
	}
	return template
}

// sanOf is the critical subject alternative name with the model of a TPM.
func sanOf(values ...string) pkix.Extension {
	var name pkix.RDNSequence
	for i, v := range values {
		name = append(name, pkix.RelativeDistinguishedNameSET{{Type: asn1.ObjectIdentifier{2, 23, 133, 2, i + 1}, Value: v}})
	}
	return sanWith(name)
}

func sanWith(name pkix.RDNSequence) pkix.Extension {
	inner, err := asn1.Marshal(name)
	if err != nil {
		panic(err)
	}
	der, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: inner}})
	if err != nil {
		panic(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: der}
}

// put writes a certificate into the TPM, as its maker does.
func put(t *testing.T, d *tpm.Device, index uint32, der []byte) {
	t.Helper()
	if err := errors.Join(d.NVDefine(t.Context(), index, len(der)), d.NVWrite(t.Context(), index, der)); err != nil {
		t.Fatal(err)
	}
}

// eks returns the public halves of both EKs.
func eks(t *testing.T, d *tpm.Device) (*rsa.PublicKey, *ecdsa.PublicKey) {
	t.Helper()
	if err := errors.Join(d.CreateKey(t.Context(), tpm.EK), d.CreateKey(t.Context(), tpm.EK384)); err != nil {
		t.Fatal(err)
	}
	a, _, err := d.EKPublic(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := d.Public(t.Context(), tpm.EK384)
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

func TestEKCertificatesThatAreNotForThisTPMAreRefused(t *testing.T) {
	d, other := tpmtest.Swtpm(t), tpmtest.Swtpm(t)
	rsaEK, p384EK := eks(t, d)
	foreignRSA, foreignP384 := eks(t, other)
	none := func(*x509.Certificate) {}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	maker := newTPMMaker(t, p384(t), none)
	stranger := newTPMMaker(t, p384(t), none)
	expired := newTPMMaker(t, p384(t), func(c *x509.Certificate) { c.NotAfter = now.AddDate(0, -1, 0) })
	noCA := newTPMMaker(t, p384(t), func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature })
	small := newTPMMaker(t, weak, none)
	ca := newCA(t)

	for _, c := range []struct {
		name   string
		maker  tpmMaker // who issues
		trust  tpmMaker // who is believed
		change func(a, b *x509.Certificate)
		keys   func(a *rsa.PublicKey, b *ecdsa.PublicKey) (crypto.PublicKey, crypto.PublicKey)
		good   bool
	}{
		{name: "both as they should be", good: true},
		{name: "RSA of another TPM", keys: func(_ *rsa.PublicKey, b *ecdsa.PublicKey) (crypto.PublicKey, crypto.PublicKey) { return foreignRSA, b }},
		{name: "P-384 of another TPM", keys: func(a *rsa.PublicKey, _ *ecdsa.PublicKey) (crypto.PublicKey, crypto.PublicKey) { return a, foreignP384 }},
		{name: "swapped", keys: func(a *rsa.PublicKey, b *ecdsa.PublicKey) (crypto.PublicKey, crypto.PublicKey) { return b, a }},
		{name: "of an unknown maker", maker: stranger},
		{name: "of an expired issuer", maker: expired, trust: expired},
		{name: "of an issuer that is no CA", maker: noCA, trust: noCA},
		{name: "of an issuer with a weak key", maker: small, trust: small},
		{name: "expired", change: func(a, _ *x509.Certificate) { a.NotAfter = now.AddDate(0, 0, -1) }},
		{name: "P-384 expired", change: func(_, b *x509.Certificate) { b.NotAfter = now.AddDate(0, 0, -1) }},
		{name: "not valid yet", change: func(a, _ *x509.Certificate) { a.NotBefore = now.AddDate(0, 0, 1) }},
		{name: "of the platform", change: func(a, _ *x509.Certificate) {
			a.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{2, 23, 133, 8, 2}}
		}},
		{name: "of an attestation key", change: func(_, b *x509.Certificate) {
			b.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{2, 23, 133, 8, 3}}
		}},
		{name: "of a TLS server", change: func(a, _ *x509.Certificate) {
			a.UnknownExtKeyUsage, a.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}},
		{name: "without a usage", change: func(a, _ *x509.Certificate) { a.UnknownExtKeyUsage, a.KeyUsage = nil, 0 }, good: true},
		{name: "of a CA", change: func(a, _ *x509.Certificate) { a.IsCA = true }},
		{name: "of a key that signs", change: func(_, b *x509.Certificate) { b.KeyUsage |= x509.KeyUsageDigitalSignature }},
		{name: "RSA for key agreement", change: func(a, _ *x509.Certificate) { a.KeyUsage = x509.KeyUsageKeyAgreement }},
		{name: "P-384 for key encipherment", change: func(_, b *x509.Certificate) { b.KeyUsage = x509.KeyUsageKeyEncipherment }},
		{name: "without a model", change: func(a, _ *x509.Certificate) { a.Subject.CommonName, a.ExtraExtensions = "EK", nil }},
		{name: "with a DNS name instead", change: func(a, _ *x509.Certificate) {
			a.ExtraExtensions, a.DNSNames = nil, []string{"tpm.example"}
		}},
		{name: "without the version", change: func(a, _ *x509.Certificate) { a.ExtraExtensions = []pkix.Extension{sanOf("id:00001014", "swtpm")} }},
		{name: "with an empty model", change: func(_, b *x509.Certificate) { b.ExtraExtensions = []pkix.Extension{sanOf("id:1", "", "id:2")} }},
		{name: "with two makers", change: func(a, _ *x509.Certificate) {
			id := asn1.ObjectIdentifier{2, 23, 133, 2, 1}
			a.ExtraExtensions = []pkix.Extension{sanWith(pkix.RDNSequence{{{Type: id, Value: "a"}}, {{Type: id, Value: "b"}}})}
		}},
		{name: "with a critical extension that nobody knows", change: func(a, _ *x509.Certificate) {
			a.ExtraExtensions = append(a.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.maker.root == nil {
				c.maker = maker
			}
			if c.trust.root == nil {
				c.trust = maker
			}
			keyA, keyB := crypto.PublicKey(rsaEK), crypto.PublicKey(p384EK)
			if c.keys != nil {
				keyA, keyB = c.keys(rsaEK, p384EK)
			}
			a, b := ekCert(keyA), ekCert(keyB)
			if c.change != nil {
				c.change(a, b)
			}
			put(t, d, tpm.NVCertEK, issueCert(t, a, c.maker.issuer, keyA, c.maker.issuerKey).Raw)
			put(t, d, tpm.NVCertEK384, issueCert(t, b, c.maker.issuer, keyB, c.maker.issuerKey).Raw)
			c.trust.trust(t, ca)
			r, err := factory.Provision(t.Context(), d, ca, "WX-0001")
			if c.good && err != nil {
				t.Error(err)
			}
			if c.good && (r.EK384 == nil || len(r.EK384.Certificate) == 0 || len(r.EK.Certificate) == 0) {
				t.Errorf("receipt is %+v", r)
			}
			if !c.good && !errors.Is(err, factory.ErrEK) {
				t.Errorf("%v, want: %v", err, factory.ErrEK)
			}
		})
	}
}

func TestMissingOrBrokenEKCertificateIsRefused(t *testing.T) {
	maker := newTPMMaker(t, p384(t), func(*x509.Certificate) {})
	for name, fill := range map[string]func(d *tpm.Device, a *rsa.PublicKey, b *ecdsa.PublicKey){
		"neither": func(*tpm.Device, *rsa.PublicKey, *ecdsa.PublicKey) {},
		"no P-384": func(d *tpm.Device, a *rsa.PublicKey, _ *ecdsa.PublicKey) {
			put(t, d, tpm.NVCertEK, issueCert(t, ekCert(a), maker.issuer, a, maker.issuerKey).Raw)
		},
		"no RSA": func(d *tpm.Device, _ *rsa.PublicKey, b *ecdsa.PublicKey) {
			put(t, d, tpm.NVCertEK384, issueCert(t, ekCert(b), maker.issuer, b, maker.issuerKey).Raw)
		},
		"garbage": func(d *tpm.Device, a *rsa.PublicKey, _ *ecdsa.PublicKey) {
			put(t, d, tpm.NVCertEK, issueCert(t, ekCert(a), maker.issuer, a, maker.issuerKey).Raw)
			put(t, d, tpm.NVCertEK384, []byte{0x30, 0x82, 0xff, 0xff, 1, 2, 3})
		},
	} {
		d := tpmtest.Swtpm(t)
		a, b := eks(t, d)
		fill(d, a, b)
		ca := newCA(t)
		maker.trust(t, ca)
		if _, err := factory.Provision(t.Context(), d, ca, "WX-0001"); !errors.Is(err, factory.ErrEK) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What swtpm_setup makes, with its critical subject alternative name, is
// accepted as it is: both keys, both certificates.
func TestBothEKsOfTheLabAreCertified(t *testing.T) {
	ca := newCA(t)
	bench(t, ca, t.TempDir(), func(ctx context.Context, d *tpm.Device) {
		r, err := factory.Provision(ctx, d, ca, "WX-0001")
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range []*factory.KeyRecord{&r.EK, r.EK384} {
			if k == nil || k.PEM() == "" {
				t.Fatalf("receipt is %+v", r)
			}
			cert, err := x509.ParseCertificate(k.Certificate)
			if err != nil {
				t.Fatal(err)
			}
			if len(cert.UnhandledCriticalExtensions) != 1 {
				t.Errorf("the certificate has no critical subject alternative name: this test shows nothing")
			}
		}
	})
}

func TestTrustInMakersIsReadStrictly(t *testing.T) {
	ca := newCA(t)
	maker := newTPMMaker(t, p384(t), func(*x509.Certificate) {})
	issuer := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: maker.issuer.Raw}))
	for name, text := range map[string]string{
		"empty": "", "no PEM": "hello", "no root": issuer, "text after": issuer + "hello",
		"a key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}})),
	} {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := ca.TrustEKs(path); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
