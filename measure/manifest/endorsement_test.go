package manifest_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"math/big"
	"testing"

	"waxseal/measure"
	"waxseal/measure/manifest"
	"waxseal/measure/manifest/manifesttest"
)

func TestBothKindsOfEKAreRead(t *testing.T) {
	s := shipment(t)
	a, err := manifest.ParseEK(s.EK.Public)
	if err != nil || a.AESBits != 128 || a.NameAlg != measure.SHA256 || !bytes.Equal(a.Name, s.EK.Name) {
		t.Errorf("RSA: %+v, %v", a, err)
	}
	b, err := manifest.ParseEK(s.EKP384.Public)
	if err != nil || b.AESBits != 256 || b.NameAlg != measure.SHA384 || !bytes.Equal(b.Name, s.EKP384.Name) {
		t.Errorf("P-384: %+v, %v", b, err)
	}
	if _, ok := a.Key.(*rsa.PublicKey); !ok {
		t.Errorf("RSA key is a %T", a.Key)
	}
	if _, ok := b.Key.(*ecdsa.PublicKey); !ok {
		t.Errorf("P-384 key is a %T", b.Key)
	}
}

func TestWhatIsNoEKIsRefused(t *testing.T) {
	s := shipment(t)
	set := func(public []byte, at int, value ...byte) []byte {
		b := bytes.Clone(public)
		copy(b[at:], value)
		return b
	}
	const symmetricRSA, symmetricECC = 8 + 2 + 32, 8 + 2 + 48
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"nothing":            nil,
		"cut":                s.EK.Public[:len(s.EK.Public)-1],
		"a byte more":        append(bytes.Clone(s.EK.Public), 0),
		"P-384 cut":          s.EKP384.Public[:len(s.EKP384.Public)-1],
		"P-384 and a byte":   append(bytes.Clone(s.EKP384.Public), 0),
		"an IAK":             s.IAK.Public,
		"an IDevID":          s.IDevID.Public,
		"a keyed hash":       set(s.EK.Public, 0, 0x00, 0x08),
		"name by SHA-1":      set(s.EK.Public, 2, 0x00, 0x04),
		"not restricted":     set(s.EK.Public, 4, 0x00, 0x02),
		"no cipher":          set(s.EK.Public, symmetricRSA, 0x00, 0x10),
		"AES of 64 bits":     set(s.EK.Public, symmetricRSA+2, 0x00, 0x40),
		"another mode":       set(s.EK.Public, symmetricRSA+4, 0x00, 0x44),
		"a scheme":           set(s.EK.Public, symmetricRSA+6, 0x00, 0x15),
		"lying size":         set(s.EK.Public, symmetricRSA+8, 0x0c, 0x00),
		"exponent 3":         set(s.EK.Public, symmetricRSA+10, 0, 0, 0, 3),
		"RSA-1024":           set(manifesttest.RSA(&weak.PublicKey, manifesttest.AttributesRSA), symmetricRSA+8, 0x04, 0x00),
		"even modulus":       set(s.EK.Public, len(s.EK.Public)-1, 0),
		"curve of SM2":       set(s.EKP384.Public, symmetricECC+8, 0x00, 0x20),
		"P-256, large point": set(s.EKP384.Public, symmetricECC+8, 0x00, 0x03),
		"a KDF":              set(s.EKP384.Public, symmetricECC+10, 0x00, 0x20),
		"not on the curve":   set(s.EKP384.Public, len(s.EKP384.Public)-1, s.EKP384.Public[len(s.EKP384.Public)-1]^1),
	} {
		if k, err := manifest.ParseEK(bad); !errors.Is(err, manifest.ErrEK) {
			t.Errorf("%s: %+v, %v", name, k, err)
		}
	}
}

// A TPM may leave out zero bytes before a coordinate (TPM 2.0 Part 1, C.8).
func TestShortCoordinateIsPadded(t *testing.T) {
	for {
		key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		point, err := key.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if point[1] != 0 {
			continue
		}
		public := manifesttest.P384(&key.PublicKey, manifesttest.AttributesP384)
		at := bytes.Index(public, point[1:49])
		short := append(bytes.Clone(public[:at-2]), 0, 47)
		short = append(short, public[at+1:]...)
		got, err := manifest.ParseEK(short)
		if err != nil || !key.PublicKey.Equal(got.Key) {
			t.Errorf("x = %x: %v", new(big.Int).SetBytes(point[1:49]), err)
		}
		return
	}
}

func FuzzParseEK(f *testing.F) {
	s := shipment(f)
	f.Add([]byte(s.EK.Public))
	f.Add([]byte(s.EKP384.Public))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := manifest.ParseEK(b)
		if err != nil {
			return
		}
		if k.Key == nil || len(k.Name) != 2+k.NameAlg.Size() {
			t.Errorf("accepted: %+v", k)
		}
		if _, err := manifest.ParseEK(append(bytes.Clone(b), 0)); err == nil {
			t.Error("accepted with a byte more")
		}
	})
}
