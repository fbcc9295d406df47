package devid

import (
	"bytes"
	"fmt"

	"waxseal/measure/evidence"
)

// Vouches tells whether attest and signature are the key's word, given on
// nonce, that the object with that name is in its TPM. name is one that the
// caller has computed or that a maker has signed. The key is an IAK.
func (key Key) Vouches(name, nonce, attest, signature []byte) error {
	if key.Kind != IAK || len(name) == 0 || len(nonce) == 0 {
		return fmt.Errorf("%w: %s on a nonce of %d bytes about a name of %d", ErrCertify, key.Kind, len(nonce), len(name))
	}
	a, err := parse(attest)
	if err != nil {
		return err
	}
	if err := evidence.VerifySignature(key.Public, attest, signature); err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	if !bytes.Equal(a.extraData, nonce) {
		return fmt.Errorf("%w: it holds %d other bytes", ErrNonce, len(a.extraData))
	}
	if !bytes.Equal(a.name, name) {
		return ErrOtherKey
	}
	return nil
}
