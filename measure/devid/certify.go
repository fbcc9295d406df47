package devid

import (
	"bytes"
	"fmt"

	"waxseal/measure/evidence"
	"waxseal/measure/structure"
)

// Constants of TPMS_ATTEST (TPM 2.0 Part 2, sections 6.2 and 6.9).
const (
	generatedValue = 0xff544347
	attestCertify  = 0x8017
	maxAttest      = 1024 // bytes; one of a P-384 key has about 190
	maxName        = 2 + 64
)

// certification is the part of a TPMS_ATTEST of a certified key that is looked
// at. Signer, clock and firmware version stand in it too: of a key that never
// leaves its TPM they say nothing that counts.
type certification struct {
	extraData     []byte
	name          []byte // of the certified key
	qualifiedName []byte // of the certified key, with its hierarchy
}

// parse reads a bare TPMS_ATTEST of type certify (TPM 2.0 Part 2, sections
// 10.12.12 and 10.12.3).
func parse(b []byte) (certification, error) {
	var a certification
	if len(b) > maxAttest {
		return a, fmt.Errorf("%w: %d bytes: at most %d", ErrCertify, len(b), maxAttest)
	}
	r := structure.Reader{Rest: b}
	if magic := r.U32(); magic != generatedValue {
		return a, fmt.Errorf("%w: magic 0x%08x: the TPM did not make this structure", ErrCertify, magic)
	}
	if typ := r.U16(); typ != attestCertify {
		return a, fmt.Errorf("%w: type 0x%04x does not certify a key", ErrCertify, typ)
	}
	signer := r.Sized()
	a.extraData = r.Sized()
	r.Take(8 + 4 + 4) // clock, resetCount, restartCount
	safe := r.U8()
	r.Take(8) // firmwareVersion
	a.name, a.qualifiedName = r.Sized(), r.Sized()
	if !r.Done() {
		return a, fmt.Errorf("%w: it is cut short or has %d bytes too many", ErrCertify, len(r.Rest))
	}
	if len(signer) > maxName || len(a.name) > maxName || len(a.qualifiedName) > maxName || safe > 1 {
		return a, fmt.Errorf("%w: names of %d, %d and %d bytes, safe = %d", ErrCertify, len(signer), len(a.name), len(a.qualifiedName), safe)
	}
	return a, nil
}

// certifies tells whether attest is about key, by the name that was computed
// of its public area, and carries no data that nobody asked for.
func certifies(key Key, attest []byte) error {
	a, err := parse(attest)
	if err != nil {
		return fmt.Errorf("certification of %s: %w", key.Kind, err)
	}
	if !bytes.Equal(a.name, key.Name) {
		return fmt.Errorf("certification of %s: %w", key.Kind, ErrOtherKey)
	}
	if !bytes.Equal(a.qualifiedName, primary(key.Name)) {
		return fmt.Errorf("certification of %s: %w: the key is no primary of the endorsement hierarchy", key.Kind, ErrTemplate)
	}
	if len(a.extraData) != 0 {
		return fmt.Errorf("certification of %s: %w: %d bytes of extra data that nobody asked for", key.Kind, ErrCertify, len(a.extraData))
	}
	return nil
}

// primary returns the qualified name of a primary key of the endorsement
// hierarchy (TPM 2.0 Part 1, section 26.5).
func primary(name []byte) []byte { return evidence.AttestationKey{Name: name}.QualifiedName() }

// CertifiedBy tells whether attest, a bare TPMS_ATTEST, and signature, a
// TPMT_SIGNATURE, are the word of the attestation key iak that key is in the
// same TPM.
func (key Key) CertifiedBy(iak Key, attest, signature []byte) error {
	if iak.Kind != IAK || key.Kind == IAK {
		return fmt.Errorf("%w: %s by %s: need %s by %s", ErrCertify, key.Kind, iak.Kind, IDevID, IAK)
	}
	if err := certifies(key, attest); err != nil {
		return err
	}
	if err := evidence.VerifySignature(iak.Public, attest, signature); err != nil {
		return fmt.Errorf("certification of %s: %w: %w", key.Kind, ErrSignature, err)
	}
	return nil
}

// Signed tells whether signature, a TPMT_SIGNATURE, is the key's over content.
func (key Key) Signed(content, signature []byte) error {
	if err := evidence.VerifySignature(key.Public, content, signature); err != nil {
		return fmt.Errorf("signature of %s: %w: %w", key.Kind, ErrSignature, err)
	}
	return nil
}
