package evidence

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/binary"
	"fmt"

	"waxseal/measure"
	"waxseal/measure/structure"
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

// PublicKey is the public area of a signing key.
type PublicKey struct {
	Key        *ecdsa.PublicKey
	NameAlg    measure.Alg
	Attributes uint32 // TPMA_OBJECT
	Policy     []byte // authPolicy, empty if it has none
	Name       []byte // nameAlg ‖ H_nameAlg(public area), computed here (TPM 2.0 Part 1, section 16)
}

// ParsePublicKey reads the TPMT_PUBLIC of an ECDSA key (TPM 2.0 Part 2,
// section 12.2.4). It judges no attribute and no policy.
func ParsePublicKey(public []byte) (PublicKey, error) {
	c := structure.Reader{Rest: public}
	typ, nameAlg, attributes := c.U16(), measure.Alg(c.U16()), c.U32()
	policy := c.Sized()
	if typ != algECC || !nameAlg.Computable() {
		return PublicKey{}, fmt.Errorf("%w: type 0x%04x, name algorithm %v: need ECC and SHA-256 or stronger", ErrKey, typ, nameAlg)
	}
	key, err := readECC(&c)
	if err != nil {
		return PublicKey{}, err
	}
	if !c.Done() {
		return PublicKey{}, fmt.Errorf("%w: public area is cut short or has %d bytes too many", ErrKey, len(c.Rest))
	}
	return PublicKey{key, nameAlg, attributes, policy, name(nameAlg, public)}, nil
}

// AttestationKey is the public area of a key that signs nothing but what its
// own TPM has made.
type AttestationKey struct {
	Key  *ecdsa.PublicKey
	Name []byte // nameAlg ‖ H_nameAlg(public area) (TPM 2.0 Part 1, section 16)
}

// ParseAttestationKey reads a TPMT_PUBLIC and refuses a key that is no
// attestation key: it must be a restricted signing key that was born in this
// TPM, cannot leave it and does not decrypt.
func ParseAttestationKey(public []byte) (AttestationKey, error) {
	p, err := ParsePublicKey(public)
	if err != nil {
		return AttestationKey{}, err
	}
	const must, mustNot = fixedTPM | fixedParent | sensitiveDataOrigin | restricted | signEncrypt, decrypt
	if p.Attributes&must != must || p.Attributes&mustNot != 0 {
		return AttestationKey{}, fmt.Errorf("%w: attributes 0x%08x: need fixedTPM, fixedParent, sensitiveDataOrigin, restricted and sign, and not decrypt", ErrKey, p.Attributes)
	}
	return AttestationKey{p.Key, p.Name}, nil
}

// readECC reads TPMS_ECC_PARMS and TPMS_ECC_POINT.
func readECC(c *structure.Reader) (*ecdsa.PublicKey, error) {
	symmetric, alg, hash := c.U16(), c.U16(), measure.Alg(c.U16())
	curve, kdf := curves[c.U16()], c.U16()
	x, y := c.Sized(), c.Sized()
	if c.Short() || symmetric != algNull || alg != algECDSA || kdf != algNull || curve == nil {
		return nil, fmt.Errorf("%w: need an ECDSA key on P-256, P-384 or P-521", ErrKey)
	}
	key, err := structure.Point(curve, x, y)
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
