package evidence

import (
	"bytes"
	"crypto/elliptic"
	"encoding/hex"
	"errors"
	"testing"

	"waxseal/measure"
)

// A quote over PCR 0 to 15 of the SHA-256 bank as a TPM spells it, a signature
// and the public area of an attestation key, each well-formed.
const (
	sampleQuote     = "ff5443478018002200" + "0b" + "0000000000000000000000000000000000000000000000000000000000000000" + "0010" + "000102030405060708090a0b0c0d0e0f" + "000000000000ea60" + "00000007" + "00000000" + "01" + "2020031200120000" + "00000001" + "000b" + "03" + "ffff00" + "0020" + "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	sampleSignature = "0018000b" + "0020" + "1111111111111111111111111111111111111111111111111111111111111111" + "0020" + "2222222222222222222222222222222222222222222222222222222222222222"
	samplePublic    = "0023000b00050072" + "0000" + "0010" + "0018" + "000b" + "0003" + "0010" + "0020" + "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296" + "0020" + "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func TestSamplesAreWellFormed(t *testing.T) {
	if a, err := parseAttest(unhex(sampleQuote)); err != nil || a.mask != 0xffff {
		t.Errorf("quote: mask %x, %v", a.mask, err)
	}
	if _, _, err := parseSignature(unhex(sampleSignature), measure.SHA256, 32); err != nil {
		t.Errorf("signature: %v", err)
	}
	if _, err := ParseAttestationKey(unhex(samplePublic)); err != nil {
		t.Errorf("public area: %v", err)
	}
}

func TestQuoteAboveItsBoundIsRefused(t *testing.T) {
	b := unhex(sampleQuote)
	b = append(b[:len(b)-34], 0x10, 0x00) // a PCR digest of 4 KiB
	if _, err := parseAttest(append(b, make([]byte, 0x1000)...)); !errors.Is(err, ErrAttest) {
		t.Errorf("%v, want: %v", err, ErrAttest)
	}
}

// FuzzParseAttest demands that each accepted quote has but one spelling of
// what is looked at: cut or lengthened it is refused.
func FuzzParseAttest(f *testing.F) {
	f.Add(unhex(sampleQuote))
	f.Add([]byte{0xff, 'T', 'C', 'G', 0x80, 0x18, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parseAttest(b)
		if err != nil {
			return
		}
		if a.mask>>measure.NumPCRs != 0 || len(a.signer) > maxName || len(b) > maxAttest {
			t.Errorf("accepted out of bounds: %+v", a)
		}
		if _, err := parseAttest(append(bytes.Clone(b), 0)); err == nil {
			t.Error("accepted with a byte more")
		}
		if _, err := parseAttest(b[:len(b)-1]); err == nil {
			t.Error("accepted with a byte less")
		}
	})
}

func FuzzParseSignature(f *testing.F) {
	f.Add(unhex(sampleSignature))
	f.Add([]byte{0, 0x18, 0, 0x0b, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, s, err := parseSignature(b, measure.SHA256, 32)
		if err != nil {
			return
		}
		if len(r)+len(s)+8 != len(b) || len(r) > 32 || len(s) > 32 {
			t.Errorf("numbers of %d and %d bytes from %d", len(r), len(s), len(b))
		}
		if der := asn1Pair(r, s); int(der[1]) != len(der)-2 {
			t.Errorf("DER of %d bytes says %d", len(der), der[1])
		}
	})
}

func FuzzParseAttestationKey(f *testing.F) {
	f.Add(unhex(samplePublic))
	f.Add([]byte{0, 0x23, 0, 0x0b})
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := ParseAttestationKey(b)
		if err != nil {
			return
		}
		if k.Key.Curve == elliptic.P224() || len(k.QualifiedName()) != len(k.Name) {
			t.Errorf("accepted: %+v", k)
		}
		if _, err := ParseAttestationKey(append(bytes.Clone(b), 0)); err == nil {
			t.Error("accepted with a byte more")
		}
	})
}

// FuzzParse demands that whatever is accepted is written and read again.
func FuzzParse(f *testing.F) {
	ev := Evidence{Nonce: make([]byte, 16), Bank: measure.SHA256, PCRs: map[measure.PCR][]byte{12: {1}}, Quoted: unhex(sampleQuote)}
	data, err := ev.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"format":"waxseal-evidence-1","bank":"sha256","pcrs":{"12":""}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		ev, err := Parse(data)
		if err != nil {
			return
		}
		encoded, err := ev.Encode()
		if err != nil {
			t.Fatalf("accepted, and cannot be written: %v", err)
		}
		again, err := Parse(encoded)
		if err != nil {
			t.Fatalf("written, and cannot be read: %v", err)
		}
		if twice, _ := again.Encode(); !bytes.Equal(twice, encoded) {
			t.Error("changed by writing and reading")
		}
	})
}

func FuzzCertificates(f *testing.F) {
	f.Add("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		chain, err := SplitPEM(text)
		if err != nil {
			return
		}
		for _, one := range chain {
			if cert, err := ParsePEM(one); err == nil {
				_, _ = SerialNumber(cert) // must not panic
			}
		}
	})
}

func FuzzEscape(f *testing.F) {
	f.Add("a\x1b[2J\u202e\\")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range Escape(s) {
			if r < 0x20 || r == 0x7f || r >= 0x80 && r <= 0x9f || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
				t.Errorf("%q lets %U through", s, r)
			}
		}
	})
}

// FuzzReadLog: a log is refused or replayed, whatever comes. It has no
// more records than events.
func FuzzReadLog(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0, 0, 8})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := rules{measure.SHA256, 0xfbff, measure.Waxseal1}.read(b)
		if err == nil && len(s.records) > len(s.events) {
			t.Errorf("%d records of %d events", len(s.records), len(s.events))
		}
	})
}
