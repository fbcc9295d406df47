package evidence

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/binary"
	"fmt"
	"math/big"

	"waxseal/measure"
)

// Object attributes (TPMA_OBJECT, TPM 2.0 Part 2, section 8.3).
const (
	fixedTPM            = 1 << 1
	fixedParent         = 1 << 4
	sensitiveDataOrigin = 1 << 5
	restricted          = 1 << 16
	decrypt             = 1 << 17
	signEncrypt         = 1 << 18

	algECC      = 0x0023
	algNull     = 0x0010
	endorsement = 0x4000000b // TPM_RH_ENDORSEMENT
)

var curves = map[uint16]elliptic.Curve{3: elliptic.P256(), 4: elliptic.P384(), 5: elliptic.P521()}

// AttestationKey is the public area of a key that signs nothing but what its
// own TPM has made.
type AttestationKey struct {
	Key  *ecdsa.PublicKey
	Name []byte // nameAlg ‖ H_nameAlg(public area) (TPM 2.0 Part 1, section 16)
}

// ParseAttestationKey reads a TPMT_PUBLIC (TPM 2.0 Part 2, section 12.2.4)
// and refuses a key that is no attestation key: it must be a restricted
// signing key that was born in this TPM, cannot leave it and does not decrypt.
func ParseAttestationKey(public []byte) (AttestationKey, error) {
	c := cursor{rest: public}
	typ, nameAlg, attributes := c.u16(), measure.Alg(c.u16()), c.u32()
	c.sized() // authPolicy
	if typ != algECC || !nameAlg.Computable() {
		return AttestationKey{}, fmt.Errorf("%w: type 0x%04x, name algorithm %v: need ECC and SHA-256 or stronger", ErrKey, typ, nameAlg)
	}
	const must, mustNot = fixedTPM | fixedParent | sensitiveDataOrigin | restricted | signEncrypt, decrypt
	if attributes&must != must || attributes&mustNot != 0 {
		return AttestationKey{}, fmt.Errorf("%w: attributes 0x%08x: need fixedTPM, fixedParent, sensitiveDataOrigin, restricted and sign, and not decrypt", ErrKey, attributes)
	}
	key, err := readECC(&c)
	if err != nil {
		return AttestationKey{}, err
	}
	if !c.done() {
		return AttestationKey{}, fmt.Errorf("%w: public area is cut short or has %d bytes too many", ErrKey, len(c.rest))
	}
	return AttestationKey{key, name(nameAlg, public)}, nil
}

// readECC reads TPMS_ECC_PARMS and TPMS_ECC_POINT.
func readECC(c *cursor) (*ecdsa.PublicKey, error) {
	symmetric, alg, hash := c.u16(), c.u16(), measure.Alg(c.u16())
	curve, kdf := curves[c.u16()], c.u16()
	x, y := c.sized(), c.sized()
	if c.short || symmetric != algNull || alg != algECDSA || kdf != algNull || curve == nil {
		return nil, fmt.Errorf("%w: need an ECDSA key on P-256, P-384 or P-521", ErrKey)
	}
	size := (curve.Params().BitSize + 7) / 8
	if len(x) > size || len(y) > size {
		return nil, fmt.Errorf("%w: point of %d and %d bytes on a curve of %d", ErrKey, len(x), len(y), size)
	}
	point := make([]byte, 1+2*size)
	point[0] = 4
	new(big.Int).SetBytes(x).FillBytes(point[1 : 1+size])
	new(big.Int).SetBytes(y).FillBytes(point[1+size:])
	key, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	if want, err := scheme(key); err != nil || hash != want {
		return nil, fmt.Errorf("%w: key signs over %v: need %v", ErrScheme, hash, want)
	}
	return key, nil
}

// QualifiedName returns the name that a quote by the key has, if the key is a
// primary key of the endorsement hierarchy (TPM 2.0 Part 1, section 26.5).
func (k AttestationKey) QualifiedName() []byte {
	alg := measure.Alg(binary.BigEndian.Uint16(k.Name))
	parent := binary.BigEndian.AppendUint32(nil, endorsement)
	return name(alg, append(parent, k.Name...))
}

func name(alg measure.Alg, data []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(alg)), measure.Hash(alg, data).Sum...)
}

// checkPublic holds a quote against the public area that was enrolled, if one
// was: the key is the certified one, and the quote carries its name.
func checkPublic(public []byte, key *ecdsa.PublicKey, signer []byte) error {
	if public == nil {
		return nil
	}
	ak, err := ParseAttestationKey(public)
	if err != nil {
		return err
	}
	if !ak.Key.Equal(key) {
		return fmt.Errorf("%w: certified is another key than was enrolled", ErrKey)
	}
	if !bytes.Equal(signer, ak.QualifiedName()) {
		return fmt.Errorf("%w: the quote names another signer", ErrKey)
	}
	return nil
}
