// Package eat puts the evidence of a router into an Entity Attestation Token
// (RFC 9711) and takes it out again: as a JSON Web Token (RFC 7519 in the
// compact form of RFC 7515) or a CBOR Web Token (RFC 8392 in COSE_Sign1 of
// RFC 9052).
//
// A token holds what the raw answer of attestz holds: the quote, the values
// that it covers, the log, the card and the certificates of the attestation
// key. It is signed by the key that has signed the quote. What that signature
// adds is little, and is said in docs/formats-eat.md: it binds the parts to
// each other. Whether they are genuine is decided by evidence.Verify, for a
// token as for the raw answer, and by nothing else.
//
// There is one algorithm, ES384, and one spelling of each token: what Parse
// accepts, Encode would write again, byte by byte. The package is pure. It
// holds no key, reads no clock, and never trusts a certificate because it
// stands in a token.
package eat

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"

	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/evidence"
)

// Form is one of the two forms of a token.
type Form int

// The forms of a token.
const (
	JWT Form = 1 + iota // JSON Web Token
	CWT                 // CBOR Web Token
)

// String returns the name of the form.
func (f Form) String() string {
	switch f {
	case JWT:
		return "JWT"
	case CWT:
		return "CWT"
	}
	return fmt.Sprintf("form %d", int(f))
}

// Bounds of a token.
const (
	// MaxSigned is how many bytes a token's signature may cover. They pass
	// through the TPM, 1 KiB at a time, while it does nothing else.
	MaxSigned = 128 << 10
	// MaxToken is how many bytes a token may have.
	MaxToken = MaxSigned + 1<<10

	maxStructure   = 1024     // bytes of a TPMS_ATTEST or a TPMT_SIGNATURE
	maxCertificate = 16 << 10 // bytes of a certificate in DER
	maxChain       = 8        // certificates
	maxText        = 128      // bytes of a text of the card
	maxTime        = 1 << 40  // seconds: no clock of a router shows the year 36000
)

// Errors of this package.
var (
	ErrForm      = errors.New("token is malformed")
	ErrAlgorithm = errors.New("token is not signed with ES384 in the one form that is accepted")
	ErrLong      = errors.New("evidence is too long for a token: ask for the raw form")
	ErrSignature = errors.New("token is not signed by the key that it names")
	ErrNonce     = errors.New("token is for another nonce")
)

// Token is what a router says in a token. It is a claim.
type Token struct {
	Nonce     []byte // what was asked: 16 to 64 bytes
	Issued    int64  // seconds since 1970, by the router's clock
	Card      evidence.Card
	Bank      measure.Alg
	PCRs      map[measure.PCR][]byte
	Quoted    []byte   // bare TPMS_ATTEST
	Signature []byte   // TPMT_SIGNATURE
	Log       []byte   // CEL-TLV
	Chain     [][]byte // certificates of the attestation key in DER, leaf first
}

// Sign signs data with the attestation key, ECDSA on P-384 with SHA-384, and
// returns r and s of 48 bytes each.
type Sign func(data []byte) ([]byte, error)

// SignatureSize is the size of r and s together.
const SignatureSize = 96

// Encode returns the signed token. What Parse would refuse is not signed.
func Encode(form Form, t Token, sign Sign) ([]byte, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	u, err := t.unsigned(form)
	if err != nil {
		return nil, err
	}
	signature, err := sign(u.signed)
	if err != nil {
		return nil, fmt.Errorf("sign token: %w", err)
	}
	if len(signature) != SignatureSize {
		return nil, fmt.Errorf("sign token: signature of %d bytes: need %d", len(signature), SignatureSize)
	}
	return u.seal(signature), nil
}

// unsigned is a token before its signature.
type unsigned struct {
	signed []byte                        // what the signature covers
	seal   func(signature []byte) []byte // the whole token
}

func (t Token) unsigned(form Form) (u unsigned, err error) {
	switch form {
	case JWT:
		u, err = t.jwt()
	case CWT:
		u, err = t.cwt()
	default:
		err = fmt.Errorf("%w: %v is neither JWT nor CWT", ErrForm, form)
	}
	if err == nil && len(u.signed) > MaxSigned {
		err = fmt.Errorf("%w: %d bytes to sign, at most %d", ErrLong, len(u.signed), MaxSigned)
	}
	return u, err
}

// Signed is a token that was read. Nothing in it was verified.
type Signed struct {
	Token
	signed    []byte
	signature []byte // r and s
}

// Verify tells whether key has signed the token.
func (s Signed) Verify(key *ecdsa.PublicKey) error {
	if key.Curve != elliptic.P384() {
		return fmt.Errorf("%w: the key is on %s: ES384 needs P-384", ErrAlgorithm, key.Curve.Params().Name)
	}
	sum := sha512.Sum384(s.signed)
	half := SignatureSize / 2
	r, n := new(big.Int).SetBytes(s.signature[:half]), new(big.Int).SetBytes(s.signature[half:])
	if !ecdsa.Verify(key, sum[:], r, n) {
		return ErrSignature
	}
	return nil
}

// key returns the key of the leaf certificate. That it is certified by anyone
// is not said.
func (t Token) key() (*ecdsa.PublicKey, error) {
	leaf, err := x509.ParseCertificate(t.Chain[0])
	if err != nil {
		return nil, fmt.Errorf("%w: certificate of the key: %w", ErrForm, err)
	}
	key, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P384() {
		return nil, fmt.Errorf("%w: the certificate is not of a key on P-384", ErrAlgorithm)
	}
	return key, nil
}

// check holds the token to its bounds.
func (t Token) check() error {
	if n := len(t.Nonce); n < evidence.MinNonce || n > evidence.MaxNonce {
		return fmt.Errorf("%w: nonce of %d bytes", ErrForm, n)
	}
	if !t.Bank.Computable() || len(t.PCRs) == 0 {
		return fmt.Errorf("%w: %d PCRs of bank %v", ErrForm, len(t.PCRs), t.Bank)
	}
	for pcr, v := range t.PCRs {
		if pcr >= measure.NumPCRs || len(v) != t.Bank.Size() {
			return fmt.Errorf("%w: PCR %d of %d bytes", ErrForm, pcr, len(v))
		}
	}
	if len(t.Quoted) == 0 || len(t.Quoted) > maxStructure || len(t.Signature) == 0 || len(t.Signature) > maxStructure {
		return fmt.Errorf("%w: quote of %d bytes, its signature of %d", ErrForm, len(t.Quoted), len(t.Signature))
	}
	if len(t.Log) > eventlog.MaxSize || t.Issued <= 0 || t.Issued > maxTime {
		return fmt.Errorf("%w: log of %d bytes, issued at %d", ErrForm, len(t.Log), t.Issued)
	}
	return errors.Join(t.checkChain(), t.checkCard())
}

func (t Token) checkChain() error {
	if len(t.Chain) == 0 || len(t.Chain) > maxChain {
		return fmt.Errorf("%w: chain of %d certificates: need 1 to %d", ErrForm, len(t.Chain), maxChain)
	}
	for _, der := range t.Chain {
		if len(der) == 0 || len(der) > maxCertificate {
			return fmt.Errorf("%w: certificate of %d bytes", ErrForm, len(der))
		}
	}
	return nil
}

// checkCard accepts what the raw form accepts: printable ASCII.
func (t Token) checkCard() error {
	for _, f := range cardFields(&t.Card) {
		if len(*f.text) > maxText {
			return fmt.Errorf("%w: %s of the card has %d bytes", ErrForm, f.name, len(*f.text))
		}
		for _, c := range []byte(*f.text) {
			if c < 0x20 || c > 0x7e {
				return fmt.Errorf("%w: %s of the card is not printable ASCII", ErrForm, f.name)
			}
		}
	}
	return nil
}
