package sealed

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"github.com/cloudflare/circl/sign/mldsa/mldsa87"
)

// Algorithm names a signature algorithm in a sealed file.
type Algorithm string

// The algorithms that count. A file names both, in this order.
const (
	ECDSAP384 Algorithm = "ecdsa-p384-sha384" // FIPS 186-5; r and s in 48 bytes each, s in the lower half
	MLDSA87   Algorithm = "ml-dsa-87"         // FIPS 204, with a context string
)

var algorithms = []Algorithm{ECDSAP384, MLDSA87}

// Signer holds one private key, in memory or elsewhere.
type Signer interface {
	Algorithm() Algorithm
	// Sign signs the message. The context is ML-DSA's; ECDSA has none, and
	// needs none, as the message says the same.
	Sign(message, context []byte) ([]byte, error)
}

// scalar is the size of r and of s in bytes.
const scalar = 48

// halfOrder is half the order of P-384: (r, s) and (r, -s) verify both, and
// only one of them is taken.
var halfOrder = new(big.Int).Rsh(elliptic.P384().Params().N, 1)

// ECDSASigner signs with an ECDSA key on P-384, such as one in a hardware
// module. The key must sign nothing else.
func ECDSASigner(key crypto.Signer) (Signer, error) {
	pub, ok := key.Public().(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P384() {
		return nil, fmt.Errorf("signer for %s: key is not on P-384", ECDSAP384)
	}
	return ecdsaSigner{key}, nil
}

type ecdsaSigner struct{ key crypto.Signer }

// Algorithm implements Signer.
func (ecdsaSigner) Algorithm() Algorithm { return ECDSAP384 }

// Sign implements Signer. A key in memory signs without randomness (RFC 6979).
func (e ecdsaSigner) Sign(message, _ []byte) ([]byte, error) {
	digest := sha512.Sum384(message)
	der, err := e.key.Sign(nil, digest[:], crypto.SHA384)
	if err != nil {
		return nil, err
	}
	var v struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &v); err != nil || len(rest) != 0 {
		return nil, errors.New("the signer answers with something that is no ECDSA signature")
	}
	if v.S.Cmp(halfOrder) > 0 {
		v.S.Sub(elliptic.P384().Params().N, v.S)
	}
	if v.R.Sign() <= 0 || v.S.Sign() <= 0 || v.R.BitLen() > 8*scalar {
		return nil, errors.New("the signer answers with numbers out of range")
	}
	out := make([]byte, 2*scalar)
	v.R.FillBytes(out[:scalar])
	v.S.FillBytes(out[scalar:])
	return out, nil
}

func (t Trust) verifyECDSA(message, value []byte) bool {
	if len(value) != 2*scalar {
		return false
	}
	r, s := new(big.Int).SetBytes(value[:scalar]), new(big.Int).SetBytes(value[scalar:])
	if s.Cmp(halfOrder) > 0 {
		return false
	}
	digest := sha512.Sum384(message)
	return ecdsa.Verify(t.ecdsa, digest[:], r, s)
}

type mldsaSigner struct{ key *mldsa87.PrivateKey }

// Algorithm implements Signer.
func (mldsaSigner) Algorithm() Algorithm { return MLDSA87 }

// Sign implements Signer, in the deterministic variant of FIPS 204.
func (m mldsaSigner) Sign(message, context []byte) ([]byte, error) {
	out := make([]byte, mldsa87.SignatureSize)
	if err := mldsa87.SignTo(m.key, message, context, false, out); err != nil {
		return nil, err
	}
	return out, nil
}

func (t Trust) verifyMLDSA(message, context, value []byte) bool {
	return len(value) == mldsa87.SignatureSize && mldsa87.Verify(t.mldsa, message, context, value)
}
