package devid

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"

	"waxseal/measure"
	"waxseal/measure/structure"
)

// The scheme of TPMT_SIGNATURE that holds a TPMT_HA.
const algHMAC = 0x0005 // TPM_ALG_HMAC (TPM 2.0 Part 2, section 6.3)

// CertifiedByHMAC tells whether attest and signature are the word of a TPM
// that was given secret, the HMAC key of SHA-256 that only one TPM could
// unwrap, that key is in it. The TPM signs the digest of what it attests (TPM
// 2.0 Part 1, section 25.2).
func (key Key) CertifiedByHMAC(secret, attest, signature []byte) error {
	if len(secret) < measure.SHA256.Size() {
		return fmt.Errorf("certification of %s: %w: HMAC key of %d bytes", key.Kind, ErrSignature, len(secret))
	}
	if err := certifies(key, attest); err != nil {
		return err
	}
	r := structure.Reader{Rest: signature}
	alg, hash := r.U16(), measure.Alg(r.U16())
	got := r.Take(measure.SHA256.Size())
	if alg != algHMAC || hash != measure.SHA256 || !r.Done() {
		return fmt.Errorf("certification of %s: %w: not a TPMT_SIGNATURE of HMAC with SHA-256", key.Kind, ErrSignature)
	}
	if !equalMAC(secret, measure.Hash(measure.SHA256, attest).Sum, got) {
		return fmt.Errorf("certification of %s: %w: the TPM does not hold the key that was sent", key.Kind, ErrSignature)
	}
	return nil
}

// equalMAC compares in constant time.
func equalMAC(secret, digest, got []byte) bool {
	mac := hmac.New(sha256.New, secret)
	mac.Write(digest)
	return hmac.Equal(mac.Sum(nil), got)
}
