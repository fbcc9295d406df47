package manifest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"

	"waxseal/measure"
	"waxseal/measure/structure"
)

// ErrEK means that a public area is not the one of an endorsement key.
var ErrEK = errors.New("public area is not that of an endorsement key")

// Numbers of a public area (TPM 2.0 Part 2, sections 6.3 and 8.3).
const (
	algRSA  = 0x0001
	algAES  = 0x0006
	algNull = 0x0010
	algECC  = 0x0023
	algCFB  = 0x0043
	p256    = 3
	p384    = 4

	fixedTPM            = 1 << 1
	fixedParent         = 1 << 4
	sensitiveDataOrigin = 1 << 5
	restricted          = 1 << 16
	decrypt             = 1 << 17
	signEncrypt         = 1 << 18
)

// StorageKey is the public area of a key that decrypts what is meant for its
// TPM, and nothing else.
type StorageKey struct {
	Key     crypto.PublicKey // *rsa.PublicKey or *ecdsa.PublicKey
	NameAlg measure.Alg
	AESBits int    // of the symmetric cipher of what it unwraps, in CFB mode
	Name    []byte // nameAlg ‖ H_nameAlg(public area), computed here (TPM 2.0 Part 1, section 16)
}

// ParseEK reads the TPMT_PUBLIC of an endorsement key, RSA or ECC (TPM 2.0
// Part 2, section 12.2.4). It must be a restricted decryption key that was
// born in its TPM and cannot leave it, in the form of TCG's EK templates.
func ParseEK(public []byte) (StorageKey, error) {
	c := structure.Reader{Rest: public}
	typ, nameAlg, attributes := c.U16(), measure.Alg(c.U16()), c.U32()
	c.Sized() // authPolicy
	cipher, bits, mode := c.U16(), c.U16(), c.U16()
	scheme := c.U16()
	k := StorageKey{NameAlg: nameAlg, AESBits: int(bits)}
	var err error
	switch typ {
	case algRSA:
		k.Key, err = readRSA(&c)
	case algECC:
		k.Key, err = readPoint(&c)
	default:
		err = fmt.Errorf("%w: type 0x%04x: need RSA or ECC", ErrEK, typ)
	}
	const must, mustNot = fixedTPM | fixedParent | sensitiveDataOrigin | restricted | decrypt, signEncrypt
	switch {
	case err != nil:
		return StorageKey{}, err
	case !c.Done():
		return StorageKey{}, fmt.Errorf("%w: it is cut short or has %d bytes too many", ErrEK, len(c.Rest))
	case !nameAlg.Computable():
		return StorageKey{}, fmt.Errorf("%w: name algorithm %v: need SHA-256 or stronger", ErrEK, nameAlg)
	case attributes&must != must || attributes&mustNot != 0:
		return StorageKey{}, fmt.Errorf("%w: attributes 0x%08x: need fixedTPM, fixedParent, sensitiveDataOrigin, restricted and decrypt, and not sign", ErrEK, attributes)
	case cipher != algAES || mode != algCFB || (bits != 128 && bits != 192 && bits != 256) || scheme != algNull:
		return StorageKey{}, fmt.Errorf("%w: cipher 0x%04x of %d bits, mode 0x%04x, scheme 0x%04x: need AES in CFB and no scheme", ErrEK, cipher, bits, mode, scheme)
	}
	k.Name = append(binary.BigEndian.AppendUint16(nil, uint16(nameAlg)), measure.Hash(nameAlg, public).Sum...)
	return k, nil
}

// readRSA reads the end of TPMS_RSA_PARMS, and TPM2B_PUBLIC_KEY_RSA.
func readRSA(c *structure.Reader) (*rsa.PublicKey, error) {
	bits, exponent, modulus := c.U16(), c.U32(), new(big.Int).SetBytes(c.Sized())
	if exponent == 0 {
		exponent = 65537 // the default (TPM 2.0 Part 2, section 12.2.3.5)
	}
	if bits < 2048 || bits > 4096 || modulus.BitLen() != int(bits) || modulus.Bit(0) == 0 || exponent != 65537 {
		return nil, fmt.Errorf("%w: RSA of %d bits, said to be of %d, exponent %d", ErrEK, modulus.BitLen(), bits, exponent)
	}
	return &rsa.PublicKey{N: modulus, E: int(exponent)}, nil
}

// readPoint reads the end of TPMS_ECC_PARMS, and TPMS_ECC_POINT.
func readPoint(c *structure.Reader) (*ecdsa.PublicKey, error) {
	number, kdf, x, y := c.U16(), c.U16(), c.Sized(), c.Sized()
	curve := map[uint16]elliptic.Curve{p256: elliptic.P256(), p384: elliptic.P384()}[number]
	if curve == nil || kdf != algNull {
		return nil, fmt.Errorf("%w: curve 0x%04x, KDF 0x%04x: need P-256 or P-384 and none", ErrEK, number, kdf)
	}
	key, err := structure.Point(curve, x, y)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEK, err)
	}
	return key, nil
}
