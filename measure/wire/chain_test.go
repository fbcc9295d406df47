package wire

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"
)

func newCertificate(t testing.TB) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestChainIsReadAsItWasWritten(t *testing.T) {
	a, b := newCertificate(t), newCertificate(t)
	chain, err := ParseChain("\n" + ChainOf(a, b).String() + "\n\n")
	if err != nil {
		t.Fatal(err)
	}
	certs, err := chain.Certificates()
	if err != nil || len(certs) != 2 || !certs[0].Equal(a) || !certs[1].Equal(b) {
		t.Errorf("%d certificates, %v", len(certs), err)
	}
	if chain, err := ParseChain(""); chain != nil || err != nil {
		t.Errorf("empty text: %v, %v", chain, err)
	}
}

func TestChainWithAnythingElseIsRefused(t *testing.T) {
	good := ChainOf(newCertificate(t)).String()
	key := strings.ReplaceAll(good, "CERTIFICATE", "PRIVATE KEY")
	for name, text := range map[string]string{
		"text before":      "subject=x\n" + good,
		"text after":       good + "x",
		"text between":     good + "x\n" + good,
		"another block":    good + key,
		"a header":         strings.Replace(good, "-----\n", "-----\nA: b\n\n", 1),
		"cut":              good[:len(good)/2],
		"one too many":     strings.Repeat(good, MaxChain+1),
		"large":            strings.Repeat(" ", MaxChain*MaxCert*2) + good,
		"only a beginning": "-----BEGIN CERTIFICATE-----",
	} {
		if chain, err := ParseChain(text); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %d certificates, %v: want ErrInvalid", name, len(chain), err)
		}
	}
}

func FuzzParseChain(f *testing.F) {
	f.Add("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	f.Add("-----BEGIN CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		chain, err := ParseChain(text)
		if err != nil {
			return
		}
		if len(chain) > MaxChain {
			t.Fatalf("%d certificates", len(chain))
		}
		again, err := ParseChain(chain.String())
		if err != nil || again.String() != chain.String() {
			t.Fatalf("%q was written and read as %q, %v", chain, again, err)
		}
		_, _ = chain.Certificates() // must not panic
	})
}
