package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"

	"waxseal/agent"
	"waxseal/agent/delivery"
	"waxseal/hw/tpm"
	"waxseal/measure/wire"
)

// prover proves that keys are in the TPM.
type prover struct{ *tpm.Device }

var _ delivery.Chip = prover{}

// Activate implements delivery.Chip.
func (p prover) Activate(ctx context.Context, k delivery.Key, c wire.Credential) ([]byte, error) {
	secret, err := p.ActivateCredential(ctx, tpm.Key(k), c.Blob, c.Secret)
	if errors.Is(err, tpm.ErrCredential) {
		return nil, fmt.Errorf("%w: %w", wire.ErrInvalid, err)
	}
	return secret, onWire(err)
}

// Certify implements delivery.Chip.
func (p prover) Certify(ctx context.Context, k delivery.Key, nonce []byte) (wire.Signed, error) {
	attest, signature, err := p.Device.Certify(ctx, tpm.Key(k), nonce)
	return wire.Signed{Attest: attest, Signature: signature}, onWire(err)
}

// attachProver gives the agent what the doorstep check shows and asks. A key
// that is not there is not shown; the buyer's side says what it misses.
func attachProver(ctx context.Context, c *agent.Config, dev *tpm.Device, log *slog.Logger) {
	c.Prover = prover{dev}
	for _, a := range []struct {
		key  tpm.Key
		area *[]byte
	}{{tpm.EK, &c.Areas.EK}, {tpm.IAK, &c.Areas.IAK}, {tpm.IDevID, &c.Areas.IDevID}, {tpm.SRK, &c.Areas.SRK}} {
		var err error
		if *a.area, err = dev.Area(ctx, a.key); err != nil {
			log.Warn("public area", "key", string(a.key), "cause", err)
		}
	}
	var certs []*x509.Certificate
	for _, index := range []uint32{tpm.NVCertEK, tpm.NVCertEK384} {
		cert, err := dev.Certificate(ctx, index)
		if err != nil && !errors.Is(err, tpm.ErrNoNV) {
			log.Warn("EK certificate", "index", fmt.Sprintf("0x%08x", index), "cause", err)
		}
		if err == nil {
			certs = append(certs, cert)
		}
	}
	c.EKCerts = wire.ChainOf(certs...)
}
