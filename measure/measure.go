// Package measure is the language that the router and the fleet share:
// what was measured, into which PCR, with which digest.
//
// It is pure. It opens no file, device or socket and reads no clock, so
// every value in it can be written down in a test.
package measure

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
)

// Alg is a hash algorithm by its TPM_ALG_ID (TCG Algorithm Registry, table 3).
type Alg uint16

// The hash algorithms a PCR bank may have. SHA1 and SM3 are carried through
// logs unread and are never computed.
const (
	SHA1   Alg = 0x0004
	SM3    Alg = 0x0012
	SHA256 Alg = 0x000b
	SHA384 Alg = 0x000c
	SHA512 Alg = 0x000d
)

var algs = map[Alg]string{SHA1: "sha1", SM3: "sm3_256", SHA256: "sha256", SHA384: "sha384", SHA512: "sha512"}

// ParseAlg returns the algorithm with the given name, such as "sha384".
func ParseAlg(name string) (Alg, error) {
	for a, known := range algs {
		if known == name {
			return a, nil
		}
	}
	return 0, fmt.Errorf("hash algorithm %q is not one of sha1, sha256, sha384, sha512, sm3_256", name)
}

// String returns the algorithm's name in lower case, or its number in hex.
func (a Alg) String() string {
	if name, ok := algs[a]; ok {
		return name
	}
	return fmt.Sprintf("alg-0x%04x", uint16(a))
}

// Size returns the digest size in bytes, or 0 for an unknown algorithm.
func (a Alg) Size() int {
	switch a {
	case SHA1:
		return 20
	case SM3, SHA256:
		return sha256.Size
	case SHA384:
		return sha512.Size384
	case SHA512:
		return sha512.Size
	}
	return 0
}

// Computable tells whether this program computes digests of the algorithm:
// true for SHA-256, SHA-384 and SHA-512, false for all others.
func (a Alg) Computable() bool { return a == SHA256 || a == SHA384 || a == SHA512 }

// New returns a hash of the algorithm. It panics unless a.Computable().
func (a Alg) New() hash.Hash {
	switch a {
	case SHA256:
		return sha256.New()
	case SHA384:
		return sha512.New384()
	case SHA512:
		return sha512.New()
	}
	panic(fmt.Sprintf("digests of %v are not computed", a))
}

// Digest is a digest in one PCR bank.
type Digest struct {
	Alg Alg
	Sum []byte // Alg.Size() bytes
}

// Hash returns the digest of data. It panics unless alg.Computable().
func Hash(alg Alg, data []byte) Digest {
	return Digest{alg, AppendHash(make([]byte, 0, alg.Size()), alg, data)}
}

// AppendHash appends the digest of data to b and allocates nothing else. It
// panics unless alg.Computable().
func AppendHash(b []byte, alg Alg, data []byte) []byte {
	switch alg {
	case SHA256:
		sum := sha256.Sum256(data)
		return append(b, sum[:]...)
	case SHA384:
		sum := sha512.Sum384(data)
		return append(b, sum[:]...)
	case SHA512:
		sum := sha512.Sum512(data)
		return append(b, sum[:]...)
	}
	panic(fmt.Sprintf("digests of %v are not computed", alg))
}

// Equal tells whether d and e have the same algorithm and the same bytes.
func (d Digest) Equal(e Digest) bool { return d.Alg == e.Alg && bytes.Equal(d.Sum, e.Sum) }

// String returns "sha384:9f86…" in full.
func (d Digest) String() string { return d.Alg.String() + ":" + hex.EncodeToString(d.Sum) }

// Extend returns H(old ‖ digest), the value of a PCR after TPM2_PCR_Extend
// (TPM 2.0 Part 1, section 17.2). Both must be of one computable algorithm.
func Extend(old, digest Digest) (Digest, error) {
	if old.Alg != digest.Alg || !old.Alg.Computable() {
		return Digest{}, fmt.Errorf("extend %v with %v: need one computable algorithm", old.Alg, digest.Alg)
	}
	h := old.Alg.New()
	h.Write(old.Sum)
	h.Write(digest.Sum)
	return Digest{old.Alg, h.Sum(nil)}, nil
}
