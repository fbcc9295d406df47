package evidence

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"fmt"

	"waxseal/measure"
	"waxseal/measure/structure"
)

const algECDSA = 0x0018 // TPM_ALG_ECDSA (TPM 2.0 Part 2, section 6.3)

// scheme returns the one hash that an attestation key signs with: the one
// that is as long as its curve.
func scheme(key *ecdsa.PublicKey) (measure.Alg, error) {
	switch key.Curve {
	case elliptic.P256():
		return measure.SHA256, nil
	case elliptic.P384():
		return measure.SHA384, nil
	case elliptic.P521():
		return measure.SHA512, nil
	}
	return 0, fmt.Errorf("%w: attestation key on curve %s: need P-256, P-384 or P-521", ErrWeakKey, key.Curve.Params().Name)
}

// parseSignature reads a TPMT_SIGNATURE of scheme ECDSA with the given hash
// (TPM 2.0 Part 2, sections 11.3.2 and 11.3.4). size is the length of the
// curve's order in bytes.
func parseSignature(b []byte, hash measure.Alg, size int) (r, s []byte, err error) {
	c := structure.Reader{Rest: b}
	if alg := c.U16(); alg != algECDSA {
		return nil, nil, fmt.Errorf("%w: signature algorithm 0x%04x is not ECDSA", ErrScheme, alg)
	}
	if alg := measure.Alg(c.U16()); alg != hash {
		return nil, nil, fmt.Errorf("%w: signed over %v, the key signs over %v", ErrScheme, alg, hash)
	}
	r, s = c.Sized(), c.Sized()
	if !c.Done() {
		return nil, nil, fmt.Errorf("%w: not a TPMT_SIGNATURE of two numbers", ErrSignature)
	}
	if len(r) == 0 || len(s) == 0 || len(r) > size || len(s) > size {
		return nil, nil, fmt.Errorf("%w: numbers of %d and %d bytes on a curve of %d", ErrSignature, len(r), len(s), size)
	}
	return r, s, nil
}

// VerifySignature tells whether signature, a TPMT_SIGNATURE, is key's over
// signed, with the one hash that a key of its curve signs with.
func VerifySignature(key *ecdsa.PublicKey, signed, signature []byte) error {
	hash, err := scheme(key)
	if err != nil {
		return err
	}
	r, s, err := parseSignature(signature, hash, (key.Curve.Params().BitSize+7)/8)
	if err != nil {
		return err
	}
	if !ecdsa.VerifyASN1(key, measure.Hash(hash, signed).Sum, asn1Pair(r, s)) {
		return fmt.Errorf("%w: it is not by the expected key", ErrSignature)
	}
	return nil
}

// asn1Pair encodes SEQUENCE { INTEGER r, INTEGER s } in DER, the form that
// crypto/ecdsa takes. r and s are unsigned, with at most 66 bytes each.
func asn1Pair(r, s []byte) []byte {
	body := appendInteger(appendInteger(make([]byte, 0, 160), r), s)
	out := append(make([]byte, 0, 160), 0x30)
	if len(body) > 127 {
		out = append(out, 0x81)
	}
	return append(append(out, byte(len(body))), body...)
}

func appendInteger(b, n []byte) []byte {
	for len(n) > 1 && n[0] == 0 {
		n = n[1:]
	}
	if n[0]&0x80 != 0 {
		b = append(b, 0x02, byte(len(n)+1), 0)
		return append(b, n...)
	}
	return append(append(b, 0x02, byte(len(n))), n...)
}
