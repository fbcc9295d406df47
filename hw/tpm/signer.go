package tpm

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"fmt"
	"io"
	"math/big"

	"encoding/asn1"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Signer returns the IDevID as a crypto.Signer for TLS 1.3 and certificate
// requests. It shares the TPM's queue, behind extends and quotes.
func (d *Device) Signer(ctx context.Context, k Key) (crypto.Signer, error) {
	if k != IDevID {
		return nil, fmt.Errorf("signer: key %s signs nothing that comes from outside the TPM: need IDevID", k)
	}
	pub, _, err := d.Public(ctx, k)
	if err != nil {
		return nil, fmt.Errorf("signer: %w", err)
	}
	return &signer{d, k, pub}, nil
}

type signer struct {
	device *Device
	key    Key
	public *ecdsa.PublicKey
}

// Public implements crypto.Signer; it returns an *ecdsa.PublicKey.
func (s *signer) Public() crypto.PublicKey { return s.public }

// Sign implements crypto.Signer. digest is a SHA-384 digest, the only one
// that the key signs; the signature is ASN.1 DER. crypto.Signer has no
// context: Timeout applies.
func (s *signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != crypto.SHA384 || len(digest) != crypto.SHA384.Size() {
		return nil, fmt.Errorf("sign with %s: %v digest of %d bytes: the key signs SHA-384 only", s.key, opts.HashFunc(), len(digest))
	}
	sig, err := ask(context.Background(), s.device, signing, Timeout, func(t transport.TPM) ([]byte, error) {
		return s.device.sign(t, s.key, digest)
	})
	if err != nil {
		return nil, fmt.Errorf("sign with %s: %w", s.key, err)
	}
	return sig, nil
}

// sign returns a signature over digest in ASN.1 DER.
func (d *Device) sign(t transport.TPM, k Key, digest []byte) ([]byte, error) {
	sig, err := d.signDigest(t, k, digest)
	if err != nil {
		return nil, err
	}
	r, s, err := ecdsaValues(sig)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(struct{ R, S *big.Int }{r, s})
}

// signDigest is TPM2_Sign (Part 3, section 20.2). The key is not restricted, so
// the ticket may be null.
func (d *Device) signDigest(t transport.TPM, k Key, digest []byte) (*tpm2.TPMTSignature, error) {
	key, err := d.signer(t, k)
	if err != nil {
		return nil, err
	}
	rsp, err := tpm2.Sign{
		KeyHandle:  tpm2.AuthHandle{Handle: k.handle(), Name: key.name, Auth: tpm2.PasswordAuth(nil)},
		Digest:     tpm2.TPM2BDigest{Buffer: digest},
		InScheme:   ecdsaSHA384(),
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
	}.Execute(t)
	if err != nil {
		return nil, d.forget(k, err)
	}
	return &rsp.Signature, checkSignature(key.public, digest, &rsp.Signature)
}
