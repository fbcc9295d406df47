package measure

import (
	"encoding/hex"
	"testing"
)

func TestSHA1IsNeverComputed(t *testing.T) {
	for _, alg := range []Alg{SHA1, SM3, 0, 0xffff} {
		if alg.Computable() {
			t.Errorf("%v is computed", alg)
		}
		if _, err := Extend(Digest{alg, make([]byte, 20)}, Digest{alg, make([]byte, 20)}); err == nil {
			t.Errorf("%v: a PCR was extended", alg)
		}
	}
}

func TestExtendIsTheHashOfBoth(t *testing.T) {
	zero := Digest{SHA256, make([]byte, 32)}
	got, err := Extend(zero, zero)
	// SHA-256 of 64 zero bytes.
	const want = "f5a5fd42d16a20302798ef6ed309979b43003d2320d9f0e8ea9831a92759fb4b"
	if err != nil || hex.EncodeToString(got.Sum) != want {
		t.Errorf("%v, %v: want %s", got, err, want)
	}
	if _, err := Extend(zero, Digest{SHA384, make([]byte, 48)}); err == nil {
		t.Error("digests of two banks were mixed")
	}
}

func TestAlgorithmNamesGoBothWays(t *testing.T) {
	for alg := range algs {
		got, err := ParseAlg(alg.String())
		if err != nil || got != alg {
			t.Errorf("%v: %v, %v", alg, got, err)
		}
	}
	for _, name := range []string{"", "SHA256", "sha-256", "md5"} {
		if alg, err := ParseAlg(name); err == nil {
			t.Errorf("%q: read as %v", name, alg)
		}
	}
	if Alg(0x27).Size() != 0 || Alg(0x27).String() != "alg-0x0027" {
		t.Errorf("unknown algorithm is %v of %d bytes", Alg(0x27), Alg(0x27).Size())
	}
}
