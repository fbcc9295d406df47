package factory

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"waxseal/hw/tpm"
	"waxseal/measure/manifest"
)

// Packing is what the factory knows of a shipment beside the device itself.
type Packing struct {
	Maker     string          // who ships it, free text
	Product   string          // board or part, as in the reference values
	Order     string          // number of the buyer's order
	SealID    string          // number of the tape around the box
	MaxResets uint32          // how often the TPM may be reset until the delivery check
	Reference []byte          // file of reference values
	Embed     bool            // put that file into the manifest, not only its digest
	Secret    manifest.Secret // of this shipment: it is hashed, and kept nowhere
	Time      time.Time       // when the box is closed
}

// Pack writes the signed manifest of a router that Provision has just seen. It
// is the last thing that is done before the box is closed: it reads the TPM's
// counters, and each reset that comes after it counts.
func Pack(ctx context.Context, dev *tpm.Device, ca *CA, r Receipt, p Packing) ([]byte, error) {
	trust, err := ca.Trust()
	if err != nil {
		return nil, fmt.Errorf("pack %s: %w", r.Serial, err)
	}
	counters, err := dev.Counters(ctx)
	if err != nil {
		return nil, fmt.Errorf("pack %s: %w", r.Serial, err)
	}
	s, err := p.shipment(r, counters)
	if err != nil {
		return nil, fmt.Errorf("pack %s: %w", r.Serial, err)
	}
	if err := s.IsReference(p.Reference); err != nil {
		return nil, fmt.Errorf("pack %s: %w", r.Serial, err)
	}
	file, err := s.Seal(ca.signing.Signers()...)
	if err != nil {
		return nil, fmt.Errorf("pack %s: %w", r.Serial, err)
	}
	// What the buyer will do is done here first, while the box is open.
	got, err := manifest.Open(file, trust)
	if err != nil {
		return nil, fmt.Errorf("pack %s: %w", r.Serial, err)
	}
	if !got.Knows(p.Secret) {
		return nil, fmt.Errorf("pack %s: no secret was drawn", r.Serial)
	}
	return file, nil
}

func (p Packing) shipment(r Receipt, c tpm.Counters) (manifest.Shipment, error) {
	digest := sha256.Sum256(p.Reference)
	s := manifest.Shipment{
		Format: manifest.Format, Serial: r.Serial, Maker: p.Maker, Product: p.Product, Order: p.Order, SealID: p.SealID,
		Packed:    p.Time.UTC().Truncate(time.Second),
		Counters:  manifest.Counters{Resets: c.ResetCount, Restarts: c.RestartCount, Clock: c.Clock},
		MaxResets: p.MaxResets, ReferenceSHA256: digest[:], SecretHash: manifest.HashSecret(p.Secret, r.Serial),
	}
	if p.Embed {
		s.Reference = p.Reference
	}
	return s, r.into(&s)
}

// into puts the receipt's keys into a shipment.
func (r Receipt) into(s *manifest.Shipment) (err error) {
	if s.EK, err = r.EK.endorsement(); err != nil {
		return err
	}
	if r.EK384 != nil {
		other, err := r.EK384.endorsement()
		if err != nil {
			return err
		}
		s.EKP384 = &other
	}
	if s.IAK, err = r.IAK.key(); err != nil {
		return err
	}
	if s.IDevID, err = r.IDevID.key(); err != nil {
		return err
	}
	srk, err := r.SRK.key()
	s.SRK = &srk
	return err
}

func (k KeyRecord) key() (manifest.Key, error) {
	name, err := hex.DecodeString(k.Name)
	return manifest.Key{Name: name, Public: k.Public}, err
}

func (k KeyRecord) endorsement() (manifest.EndorsementKey, error) {
	key, err := k.key()
	e := manifest.EndorsementKey{Name: key.Name, Public: key.Public}
	if len(k.Certificate) > 0 {
		sum := sha256.Sum256(k.Certificate)
		e.CertificateSHA256 = sum[:]
	}
	return e, err
}

// Fits tells whether a manifest is of the router of the receipt.
func (r Receipt) Fits(s manifest.Shipment) error {
	var own manifest.Shipment
	if err := r.into(&own); err != nil {
		return err
	}
	own.EKP384, s.EKP384 = orEmpty(own.EKP384), orEmpty(s.EKP384)
	own.SRK, s.SRK = orEmpty(own.SRK), orEmpty(s.SRK)
	for _, k := range []struct {
		what      string
		own, here []byte
	}{
		{"serial number", []byte(r.Serial), []byte(s.Serial)},
		{"EK", own.EK.Name, s.EK.Name},
		{"EK certificate", own.EK.CertificateSHA256, s.EK.CertificateSHA256},
		{"EK P-384", own.EKP384.Name, s.EKP384.Name},
		{"EK P-384 certificate", own.EKP384.CertificateSHA256, s.EKP384.CertificateSHA256},
		{"IAK", own.IAK.Name, s.IAK.Name},
		{"IDevID", own.IDevID.Name, s.IDevID.Name},
		{"SRK", own.SRK.Name, s.SRK.Name},
	} {
		if !bytes.Equal(k.own, k.here) {
			return fmt.Errorf("%w: the manifest of %s has another %s", ErrOtherRouter, s.Serial, k.what)
		}
	}
	return nil
}

func orEmpty[T any](p *T) *T {
	if p == nil {
		return new(T)
	}
	return p
}
