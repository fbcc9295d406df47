package tpm

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"waxseal/measure"
	"waxseal/measure/structure"
)

// ErrWrapped means that a key which somebody has wrapped for this TPM cannot
// be taken in: it is malformed, not an HMAC key, or wrapped for another TPM.
var ErrWrapped = errors.New("wrapped key is not acceptable")

// Wrapped is an HMAC key that somebody has wrapped for the EK of one TPM, in
// the form of TPM2_Import (Part 3, section 13.3).
type Wrapped struct {
	Public    []byte // TPM2B_PUBLIC
	Duplicate []byte // TPM2B_PRIVATE
	Seed      []byte // TPM2B_ENCRYPTED_SECRET
}

// Bounds of a wrapped key in bytes.
const (
	maxHMACPublic = 256
	maxDuplicate  = 512
	sizeSeed      = 256 // an RSA-2048 cryptogram
)

// What an HMAC key's public area may hold (Part 2, sections 8.3 and 11.1.22).
const (
	algKeyedHash = 0x0008
	algHMAC      = 0x0005

	hmacRequired = 1<<6 | 1<<16 | 1<<18 // userWithAuth, restricted, sign
	hmacAllowed  = hmacRequired | 1<<10 // noDA
)

// wrapped is a Wrapped whose form is good.
type wrapped struct {
	public    tpm2.TPM2BPublic
	duplicate tpm2.TPM2BPrivate
	seed      tpm2.TPM2BEncryptedSecret
}

// parse checks the form before the TPM is asked: three well-formed structures,
// and a restricted HMAC key, which signs nothing but what the TPM has made.
func (w Wrapped) parse() (wrapped, error) {
	public, err := content("public area", w.Public, maxHMACPublic)
	if err != nil {
		return wrapped{}, err
	}
	if err := checkHMACKey(public); err != nil {
		return wrapped{}, err
	}
	duplicate, err := content("duplicate", w.Duplicate, maxDuplicate)
	if err != nil {
		return wrapped{}, err
	}
	seed, err := content("seed", w.Seed, sizeSeed)
	if err != nil {
		return wrapped{}, err
	}
	return wrapped{
		tpm2.BytesAs2B[tpm2.TPMTPublic](public),
		tpm2.TPM2BPrivate{Buffer: duplicate},
		tpm2.TPM2BEncryptedSecret{Buffer: seed},
	}, nil
}

// content returns what a TPM2B holds.
func content(name string, b []byte, limit int) ([]byte, error) {
	r := structure.Reader{Rest: b}
	inner := r.Sized()
	if !r.Done() || len(inner) == 0 || len(inner) > limit {
		return nil, fmt.Errorf("%w: %s of %d bytes is no TPM2B of 1 to %d bytes", ErrWrapped, name, len(b), limit)
	}
	return inner, nil
}

// checkHMACKey reads the TPMT_PUBLIC of an HMAC key (Part 2, section 12.2.4).
func checkHMACKey(public []byte) error {
	r := structure.Reader{Rest: public}
	typ, nameAlg, attributes := r.U16(), measure.Alg(r.U16()), r.U32()
	policy := r.Sized()
	scheme, hash := r.U16(), measure.Alg(r.U16())
	unique := r.Sized()
	if !r.Done() {
		return fmt.Errorf("%w: public area is cut short or has %d bytes too many", ErrWrapped, len(r.Rest))
	}
	if typ != algKeyedHash || scheme != algHMAC || !nameAlg.Computable() || !hash.Computable() {
		return fmt.Errorf("%w: public area of type 0x%04x, scheme 0x%04x, hashes %v and %v: need an HMAC key of SHA-256 or stronger", ErrWrapped, typ, scheme, nameAlg, hash)
	}
	if attributes&^hmacAllowed != 0 || attributes&hmacRequired != hmacRequired {
		return fmt.Errorf("%w: attributes 0x%08x: need restricted, sign and userWithAuth, and nothing else but noDA", ErrWrapped, attributes)
	}
	if len(policy) != 0 || len(unique) != nameAlg.Size() {
		return fmt.Errorf("%w: policy of %d and unique of %d bytes: need none and %d", ErrWrapped, len(policy), len(unique), nameAlg.Size())
	}
	return nil
}

// unacceptable adds ErrWrapped to an error that is about what was wrapped, and
// not about the TPM: response codes of format one say that a parameter is not
// acceptable (Part 2, section 6.6.2). TPM_RC_FAILURE is what libtpms calls a
// seed that does not decrypt; it goes on working, see foreign.
func unacceptable(err error) error {
	var rc tpm2.TPMRC
	if !errors.As(err, &rc) {
		return err
	}
	const formatOne = 0x080
	switch {
	case rc == tpm2.TPMRCFailure:
		return fmt.Errorf("%w: its seed does not decrypt", ErrWrapped) // without the code, which stands for a failed TPM
	case rc&formatOne != 0:
		return fmt.Errorf("%w: %w", ErrWrapped, err)
	}
	return err
}
