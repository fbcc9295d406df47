package sealed

import (
	"bytes"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"flag"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func newKeys(t testing.TB) Keys {
	t.Helper()
	k, err := NewKeys(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func seal(t testing.TB, kind, payload string, signers ...Signer) []byte {
	t.Helper()
	b, err := Seal(kind, []byte(payload), signers...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWhatBothSignersSignedIsOpened(t *testing.T) {
	keys := newKeys(t)
	signers := keys.Signers()
	file := seal(t, "test-1", "payload", signers...)
	got, err := Open("test-1", file, keys.Trust())
	if err != nil || string(got) != "payload" {
		t.Errorf("%q, %v", got, err)
	}
	if again := seal(t, "test-1", "payload", signers[1], signers[0]); !bytes.Equal(again, file) {
		t.Error("the same payload sealed again is another file")
	}
}

// Each signature alone is taken away, replaced by one of another signer, or
// by one over something else.
func TestEachSignatureIsNeeded(t *testing.T) {
	keys, stranger := newKeys(t), newKeys(t)
	good := seal(t, "test-1", "payload", keys.Signers()...)
	foreign := seal(t, "test-1", "payload", stranger.Signers()...)
	other := seal(t, "test-1", "Payload", keys.Signers()...)
	for _, c := range []struct {
		name   string
		change func(f *file)
		want   error
	}{
		{"ECDSA by a stranger", func(f *file) { f.Signatures[0] = read(t, foreign).Signatures[0] }, ErrDisagree},
		{"ML-DSA by a stranger", func(f *file) { f.Signatures[1] = read(t, foreign).Signatures[1] }, ErrDisagree},
		{"both by a stranger", func(f *file) { f.Signatures = read(t, foreign).Signatures }, ErrSignature},
		{"ECDSA over another payload", func(f *file) { f.Signatures[0] = read(t, other).Signatures[0] }, ErrDisagree},
		{"ML-DSA over another payload", func(f *file) { f.Signatures[1] = read(t, other).Signatures[1] }, ErrDisagree},
		{"another payload", func(f *file) { f.Payload = []byte("Payload") }, ErrSignature},
		{"ECDSA of zeroes", func(f *file) { f.Signatures[0].Value = make([]byte, 96) }, ErrDisagree},
		{"ML-DSA of zeroes", func(f *file) { f.Signatures[1].Value = make([]byte, 4627) }, ErrDisagree},
		{"ECDSA empty", func(f *file) { f.Signatures[0].Value = nil }, ErrDisagree},
		{"ML-DSA empty", func(f *file) { f.Signatures[1].Value = nil }, ErrDisagree},
		{"ECDSA with a byte more", func(f *file) { f.Signatures[0].Value = append(f.Signatures[0].Value, 0) }, ErrDisagree},
		{"ECDSA with the other s", func(f *file) { otherS(f.Signatures[0].Value) }, ErrDisagree},
		{"ECDSA missing", func(f *file) { f.Signatures = f.Signatures[1:] }, ErrAlgorithm},
		{"ML-DSA missing", func(f *file) { f.Signatures = f.Signatures[:1] }, ErrAlgorithm},
		{"no signature", func(f *file) { f.Signatures = nil }, ErrAlgorithm},
		{"ECDSA twice", func(f *file) { f.Signatures[1] = f.Signatures[0] }, ErrAlgorithm},
		{"ML-DSA twice", func(f *file) { f.Signatures[0] = f.Signatures[1] }, ErrAlgorithm},
		{"a third signature", func(f *file) { f.Signatures = append(f.Signatures, f.Signatures[0]) }, ErrAlgorithm},
		{"signatures swapped", func(f *file) { slices.Reverse(f.Signatures) }, ErrAlgorithm},
		{"names swapped", func(f *file) {
			f.Signatures[0].Algorithm, f.Signatures[1].Algorithm = f.Signatures[1].Algorithm, f.Signatures[0].Algorithm
		}, ErrAlgorithm},
		{"an unlisted algorithm beside", func(f *file) {
			f.Signatures = append(f.Signatures, signature{"rsa-2048", []byte{1}})
		}, ErrAlgorithm},
		{"an unlisted algorithm instead", func(f *file) { f.Signatures[1].Algorithm = "ml-dsa-44" }, ErrAlgorithm},
		{"an algorithm in capitals", func(f *file) { f.Signatures[1].Algorithm = "ML-DSA-87" }, ErrAlgorithm},
		{"none", func(f *file) { f.Signatures[1].Algorithm = "none" }, ErrAlgorithm},
		{"another kind", func(f *file) { f.Kind = "test-2" }, ErrKind},
		{"another format", func(f *file) { f.Format = "waxseal-sealed-2" }, ErrFormat},
		{"no payload", func(f *file) { f.Payload = nil }, ErrFormat},
	} {
		f := read(t, good)
		c.change(&f)
		b, err := f.encode()
		if err != nil {
			t.Fatal(err)
		}
		payload, err := Open("test-1", b, keys.Trust())
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %q, %v, want: %v", c.name, payload, err, c.want)
		}
	}
}

func read(t testing.TB, data []byte) file {
	t.Helper()
	f, err := parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// otherS replaces (r, s) by (r, -s), which ECDSA takes as well.
func otherS(value []byte) {
	s := new(big.Int).SetBytes(value[scalar:])
	s.Sub(elliptic.P384().Params().N, s).FillBytes(value[scalar:])
}

// What is signed for one kind is worth nothing as another, even if somebody
// asks for it by that kind.
func TestASignatureIsForOneKind(t *testing.T) {
	keys := newKeys(t)
	f := read(t, seal(t, "test-1", "payload", keys.Signers()...))
	f.Kind = "test-2"
	b, err := f.encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open("test-2", b, keys.Trust()); !errors.Is(err, ErrSignature) || errors.Is(err, ErrDisagree) {
		t.Errorf("%v, want both signatures to be bad", err)
	}
}

// The list of algorithms and the kind are signed by each algorithm: a
// signature of an envelope that names fewer is no signature of this one.
func TestEachAlgorithmSignsTheListOfAlgorithms(t *testing.T) {
	message := file{Kind: "test-1", Payload: []byte("p")}.message()
	for _, part := range []string{Format, "test-1", string(ECDSAP384), string(MLDSA87)} {
		if !bytes.Contains(message, []byte(part)) {
			t.Errorf("%s is not signed", part)
		}
	}
	keys := newKeys(t)
	f := read(t, seal(t, "test-1", "payload", keys.Signers()...))
	alone := bytes.Replace(f.message(), []byte(MLDSA87), []byte("ml-dsa-44"), 1)
	value, err := keys.Signers()[0].Sign(alone, nil)
	if err != nil {
		t.Fatal(err)
	}
	if keys.Trust().verifyECDSA(f.message(), value) {
		t.Error("a signature under another list of algorithms is taken")
	}
	value, err = keys.Signers()[1].Sign(f.message(), []byte(Format+" test-2"))
	if err != nil {
		t.Fatal(err)
	}
	if keys.Trust().verifyMLDSA(f.message(), f.context(), value) {
		t.Error("a signature under another context is taken")
	}
}

// Each bit is flipped; of the 6 KiB of the ML-DSA signature one in each byte.
func TestEveryFlippedBitIsSeen(t *testing.T) {
	keys := newKeys(t)
	good := seal(t, "test-1", "payload", keys.Signers()...)
	trust := keys.Trust()
	lattice := bytes.Index(good, []byte(MLDSA87))
	for at := range good {
		for bit := range 8 {
			if at > lattice && at < len(good)-32 && bit != at%6 {
				continue
			}
			bad := bytes.Clone(good)
			bad[at] ^= 1 << bit
			if got, err := Open("test-1", bad, trust); err == nil {
				t.Fatalf("bit %d of byte %d flipped: opened as %q", bit, at, got)
			}
		}
	}
}

func TestOtherSpellingsAreRefused(t *testing.T) {
	keys := newKeys(t)
	good := string(seal(t, "test-1", "payload", keys.Signers()...))
	payload := base64.StdEncoding.EncodeToString([]byte("payload"))
	for name, bad := range map[string]string{
		"empty":                "",
		"null":                 "null",
		"cut":                  good[:len(good)-2],
		"no last newline":      good[:len(good)-1],
		"something after":      good + "\n",
		"two objects":          good + good,
		"a space more":         strings.Replace(good, `"kind": `, `"kind":  `, 1),
		"unknown key":          strings.Replace(good, `{`, `{"note": 1,`, 1),
		"doubled key":          strings.Replace(good, `"kind"`, `"kind": "test-1", "kind"`, 1),
		"key in capitals":      strings.Replace(good, `"kind"`, `"Kind"`, 1),
		"escaped kind":         strings.Replace(good, `test-1`, `\u0074est-1`, 1),
		"base64 unpadded":      strings.Replace(good, payload, strings.TrimRight(payload, "="), 1),
		"base64 loose bits":    strings.Replace(good, payload, "cGF5bG9hZB==", 1),
		"base64 line break":    strings.Replace(good, payload, payload[:4]+`\n`+payload[4:], 1),
		"algorithm of its own": strings.Replace(good, `"algorithm": "ml-dsa-87"`, `"algorithm": "ml-dsa-87", "key": "x"`, 1),
	} {
		if bad == good {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := Open("test-1", []byte(bad), keys.Trust()); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

func TestSizesAreBoundedBeforeAnythingIsRead(t *testing.T) {
	keys := newKeys(t)
	if _, err := Open("test-1", make([]byte, MaxFile+1), keys.Trust()); !errors.Is(err, ErrFormat) {
		t.Errorf("large file: %v", err)
	}
	for name, c := range map[string]struct {
		kind    string
		payload []byte
	}{
		"large payload": {"test-1", make([]byte, MaxPayload+1)},
		"no payload":    {"test-1", nil},
		"no kind":       {"", []byte("p")},
		"long kind":     {strings.Repeat("k", maxKind+1), []byte("p")},
	} {
		if _, err := Seal(c.kind, c.payload, keys.Signers()...); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	largest, err := Seal("test-1", make([]byte, MaxPayload), keys.Signers()...)
	if err != nil || len(largest) > MaxFile {
		t.Errorf("largest payload gives %d bytes, %v", len(largest), err)
	}
}

func TestSealNeedsOneSignerForEach(t *testing.T) {
	a, b := newKeys(t).Signers(), newKeys(t).Signers()
	for name, signers := range map[string][]Signer{
		"none": nil, "ECDSA only": a[:1], "ML-DSA only": a[1:], "three": {a[0], a[1], b[0]}, "ECDSA twice": {a[0], b[0]},
	} {
		if _, err := Seal("test-1", []byte("p"), signers...); !errors.Is(err, ErrAlgorithm) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNobodyIsTrustedByDefault(t *testing.T) {
	keys := newKeys(t)
	file := seal(t, "test-1", "payload", keys.Signers()...)
	for name, trust := range map[string]Trust{"nobody": {}, "one": {ecdsa: keys.Trust().ecdsa}, "the other": {mldsa: keys.Trust().mldsa}} {
		if _, err := Open("test-1", file, trust); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

// A file of an earlier build is opened by every later one.
func TestGoldenFileIsOpened(t *testing.T) {
	if *update {
		keys := newKeys(t)
		public, err := keys.Trust().PEM()
		if err != nil {
			t.Fatal(err)
		}
		write(t, "testdata/vendor-sign.pem", public)
		write(t, "testdata/golden.json", seal(t, "test-1", "payload", keys.Signers()...))
	}
	trust, err := ParseTrust(load(t, "testdata/vendor-sign.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Open("test-1", load(t, "testdata/golden.json"), trust); err != nil || string(got) != "payload" {
		t.Errorf("%q, %v", got, err)
	}
}

func load(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// FuzzOpen demands that nothing is opened but what was signed.
func FuzzOpen(f *testing.F) {
	trust, err := ParseTrust(load(f, "testdata/vendor-sign.pem"))
	if err != nil {
		f.Fatal(err)
	}
	golden := load(f, "testdata/golden.json")
	f.Add(golden)
	f.Add([]byte(`{"format":"waxseal-sealed-1","kind":"test-1","payload":"cA==","signatures":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := Open("test-1", data, trust); err == nil && !bytes.Equal(data, golden) {
			t.Error("opened, and never signed")
		}
		one, err := parse(data)
		if err != nil {
			return
		}
		if again, err := one.encode(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("read in more than one spelling, %v", err)
		}
	})
}
