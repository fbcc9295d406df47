package sealed

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
)

func TestKeyFilesAreReadAsTheyWereWritten(t *testing.T) {
	keys := newKeys(t)
	private, err := keys.PEM()
	if err != nil {
		t.Fatal(err)
	}
	public, err := keys.Trust().PEM()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseKeys(private)
	if err != nil {
		t.Fatal(err)
	}
	trust, err := ParseTrust(public)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open("test-1", seal(t, "test-1", "payload", again.Signers()...), trust); err != nil {
		t.Error(err)
	}
	if print, err := trust.Fingerprint(); err != nil || len(print) != 64 {
		t.Errorf("fingerprint %q, %v", print, err)
	}
}

func TestPublicFileHoldsNothingPrivate(t *testing.T) {
	keys := newKeys(t)
	public, err := keys.Trust().PEM()
	if err != nil {
		t.Fatal(err)
	}
	for rest := public; len(rest) > 0; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block.Type != publicBlock || bytes.Contains(block.Bytes, keys.mldsa.Seed()) {
			t.Errorf("block %s", block.Type)
		}
	}
}

func TestOtherKeyFilesAreRefused(t *testing.T) {
	keys := newKeys(t)
	public, err := keys.Trust().PEM()
	if err != nil {
		t.Fatal(err)
	}
	private, err := keys.PEM()
	if err != nil {
		t.Fatal(err)
	}
	weak, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&weak.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	const end = "-----END PUBLIC KEY-----\n"
	first, second, _ := strings.Cut(string(public), end)
	first += end
	for name, bad := range map[string]string{
		"empty":           "",
		"the private one": string(private),
		"first only":      first,
		"second only":     second,
		"swapped":         second + first,
		"first twice":     first + first,
		"second twice":    second + second,
		"three":           first + second + first,
		"text before":     "key\n" + string(public),
		"text after":      string(public) + "key\n",
		"line ends":       strings.ReplaceAll(string(public), "\n", "\r\n"),
		"P-256":           string(blocks(publicBlock, der)) + second,
		"too large":       string(public) + strings.Repeat("\n", MaxKeyFile),
	} {
		if _, err := ParseTrust([]byte(bad)); !errors.Is(err, ErrKeyFile) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, bad := range map[string]string{
		"empty": "", "the public one": string(public), "twice": string(private) + string(private),
		"cut": string(private[:len(private)-60]),
	} {
		if _, err := ParseKeys([]byte(bad)); !errors.Is(err, ErrKeyFile) {
			t.Errorf("private, %s: %v", name, err)
		}
	}
}

func TestECDSASignerNeedsP384(t *testing.T) {
	weak, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ECDSASigner(weak); err == nil {
		t.Error("a P-256 key is taken")
	}
	keys := newKeys(t)
	remote, err := ECDSASigner(keys.ecdsa)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open("test-1", seal(t, "test-1", "p", remote, mldsaSigner{keys.mldsa}), keys.Trust()); err != nil {
		t.Error(err)
	}
}

// FuzzParseTrust demands that whatever is accepted has but one spelling.
func FuzzParseTrust(f *testing.F) {
	f.Add(load(f, "testdata/vendor-sign.pem"))
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		trust, err := ParseTrust(data)
		if err != nil {
			return
		}
		if again, err := trust.PEM(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("read in more than one spelling, %v", err)
		}
	})
}
