// Package devid judges what a TPM says about the keys of a device: that IAK
// and IDevID are made from the templates of TCG's "TPM 2.0 Keys for Device
// Identity and Attestation", and that they are in one TPM, because one key has
// certified another.
//
// It is pure. It believes no name that a TPM or a device sends: every name is
// computed from the public area (D-19). It holds no trust of its own: whose
// TPM that is, the caller knows by its EK or by the maker's certificates.
package devid

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/hex"
	"errors"
	"fmt"

	"waxseal/measure"
	"waxseal/measure/evidence"
)

// Why a key or a word about it is refused.
var (
	ErrTemplate  = errors.New("key is not made from its TCG template")
	ErrCertify   = errors.New("not a well-formed TPMS_ATTEST of a certified key")
	ErrOtherKey  = errors.New("another key is certified than was shown")
	ErrSignature = errors.New("certification is not by the expected key")
	ErrNonce     = errors.New("certification is not over the nonce that was sent")
)

// Kind is one of the two keys that a device has for its whole life.
type Kind string

// The keys.
const (
	IAK    Kind = "IAK"    // signs nothing but what its TPM has made
	IDevID Kind = "IDevID" // signs TLS handshakes and certificate requests
)

// Attributes of both templates (section 7.3.4; TPMA_OBJECT, TPM 2.0 Part 2,
// section 8.3): fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth,
// adminWithPolicy, sign.
const (
	attributes = 1<<1 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<18
	restricted = 1 << 16
	noDA       = 1 << 10 // some makers set it, some do not: the keys have no password to guess
)

// policies are the authPolicies of section 7.3.6 for SHA-384: the PolicyOR of
// four branches, of which the last names an NV index of the key's own.
var policies = map[Kind][]byte{
	IAK:    unhex("129d94ebf84556652c6eef43bbb757512ac87e52be7b349ca6ce4d826f749fcf672f51716c5cbb605f313bf345aab312"),
	IDevID: unhex("4db1aa836d0b5615df6ee53a40ef70c61c217f4303d44695925972bc927006cfa5cbdf6dc18c4dbe329b2f1542c3dd33"),
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// Policy returns the authPolicy that a key of this kind must have.
func Policy(k Kind) []byte { return bytes.Clone(policies[k]) }

// Key is a key that is made from its template.
type Key struct {
	Kind   Kind
	Public *ecdsa.PublicKey
	Name   []byte // computed, never received
}

// Parse reads a TPMT_PUBLIC and checks that it is made from the template
// "ECC NIST P384" of kind: curve, scheme, name algorithm, every attribute and
// the policy.
func Parse(kind Kind, public []byte) (Key, error) {
	p, err := evidence.ParsePublicKey(public)
	if err != nil {
		return Key{}, fmt.Errorf("%s: %w: %w", kind, ErrTemplate, err)
	}
	want := uint32(attributes)
	if kind == IAK {
		want |= restricted
	}
	switch {
	case policies[kind] == nil:
		return Key{}, fmt.Errorf("%w: no template is defined for %q", ErrTemplate, string(kind))
	case p.Key.Curve != elliptic.P384() || p.NameAlg != measure.SHA384:
		return Key{}, fmt.Errorf("%s: %w: curve %s, name algorithm %v: need P-384 and SHA-384", kind, ErrTemplate, p.Key.Curve.Params().Name, p.NameAlg)
	case p.Attributes&^noDA != want:
		return Key{}, fmt.Errorf("%s: %w: attributes 0x%08x: need 0x%08x", kind, ErrTemplate, p.Attributes, want)
	case !bytes.Equal(p.Policy, policies[kind]):
		return Key{}, fmt.Errorf("%s: %w: its authPolicy is another", kind, ErrTemplate)
	}
	return Key{kind, p.Key, p.Name}, nil
}
