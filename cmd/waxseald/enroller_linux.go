package main

import (
	"context"
	"errors"
	"fmt"

	"waxseal/agent/enrollz"
	"waxseal/hw/tpm"
	"waxseal/measure/wire"
)

// enroller lets the TPM tell an owner which keys are in it.
type enroller struct{ *tpm.Device }

var _ enrollz.Chip = enroller{}

// CertifyByHMAC implements enrollz.Chip.
func (e enroller) CertifyByHMAC(ctx context.Context, c wire.HMACChallenge) (wire.HMACAnswer, error) {
	certified, err := e.Device.CertifyByHMAC(ctx, tpm.Wrapped{Public: c.Public, Duplicate: c.Duplicate, Seed: c.Seed})
	if err != nil {
		return wire.HMACAnswer{}, onWire(err)
	}
	return wire.HMACAnswer{IAK: certified.Public, Attest: certified.Attest, Signature: certified.Signature}, nil
}

// Keys implements enrollz.Chip.
func (e enroller) Keys(ctx context.Context) (enrollz.Proof, error) {
	var proof enrollz.Proof
	var err error
	if proof.EK, err = e.ek(ctx); err != nil {
		return proof, onWire(err)
	}
	if proof.IAK, err = e.Area(ctx, tpm.IAK); err != nil {
		return proof, onWire(err)
	}
	if proof.IDevID, err = e.Area(ctx, tpm.IDevID); err != nil {
		return proof, onWire(err)
	}
	proof.Attest, proof.Signature, err = e.Certify(ctx, tpm.IDevID, nil)
	return proof, onWire(err)
}

// ek returns the certificate of the EK, or the EK where its maker left none.
func (e enroller) ek(ctx context.Context) ([]byte, error) {
	cert, err := e.EKCertificate(ctx)
	if err == nil {
		return cert.Raw, nil
	}
	if !errors.Is(err, tpm.ErrNoNV) {
		return nil, fmt.Errorf("certificate of the EK: %w", err)
	}
	return e.Area(ctx, tpm.EK)
}

// Sign implements enrollz.Chip.
func (e enroller) Sign(ctx context.Context, content []byte) ([]byte, error) {
	sig, err := e.SignContent(ctx, content)
	return sig, onWire(err)
}
