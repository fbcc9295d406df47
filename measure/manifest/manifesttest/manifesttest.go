// Package manifesttest makes shipments of devices that do not exist, for
// tests. A test may change any field.
package manifesttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"waxseal/measure"
	"waxseal/measure/devid"
	"waxseal/measure/devid/devidtest"
	"waxseal/measure/manifest"
	"waxseal/measure/reference"
	"waxseal/measure/structure"
)

// Attributes of the two EK templates (TPMA_OBJECT).
const (
	AttributesRSA  uint32 = 0x000300b2 // L-1
	AttributesP384 uint32 = 0x000300f2 // H-3
	AttributesSRK  uint32 = 0x00030472 // TCG's template of a storage root key
)

// Shipment returns the shipment of a device with new keys, both kinds of EK
// and embedded reference values, and its secret.
func Shipment() (manifest.Shipment, manifest.Secret, error) {
	device, err := devidtest.New()
	if err != nil {
		return manifest.Shipment{}, manifest.Secret{}, err
	}
	secret, err := manifest.NewSecret(rand.Reader)
	if err != nil {
		return manifest.Shipment{}, manifest.Secret{}, err
	}
	s := manifest.Shipment{
		Format: manifest.Format, Serial: "WX-0001", Maker: "waxseal lab", Product: "qemu-amd64",
		Order: "PO-7", Packed: time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC), SealID: "TAPE-001",
		IAK:       Key(device.Public(devid.IAK), measure.SHA384),
		IDevID:    Key(device.Public(devid.IDevID), measure.SHA384),
		Counters:  manifest.Counters{Resets: 4, Clock: 61000},
		MaxResets: 3,
	}
	if err := addEKs(&s); err != nil {
		return s, secret, err
	}
	srk, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return s, secret, err
	}
	root := Key(SRK(&srk.PublicKey, AttributesSRK), measure.SHA256)
	s.SRK = &root
	s.SecretHash = manifest.HashSecret(secret, s.Serial)
	if s.Reference, err = Reference(s.Product); err != nil {
		return s, secret, err
	}
	sum := sha256.Sum256(s.Reference)
	s.ReferenceSHA256 = sum[:]
	return s, secret, s.Check()
}

func addEKs(s *manifest.Shipment) error {
	ek, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	point, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return err
	}
	a, b := RSA(&ek.PublicKey, AttributesRSA), P384(&point.PublicKey, AttributesP384)
	certA, certB := sha256.Sum256(a), sha256.Sum256(b)
	ka, kb := Key(a, measure.SHA256), Key(b, measure.SHA384)
	s.EK = manifest.EndorsementKey{Name: ka.Name, Public: ka.Public, CertificateSHA256: certA[:]}
	s.EKP384 = &manifest.EndorsementKey{Name: kb.Name, Public: kb.Public, CertificateSHA256: certB[:]}
	return nil
}

// Key returns the entry of a public area: with the name that it has.
func Key(public []byte, nameAlg measure.Alg) manifest.Key {
	name := binary.BigEndian.AppendUint16(nil, uint16(nameAlg))
	return manifest.Key{Name: append(name, measure.Hash(nameAlg, public).Sum...), Public: public}
}

// RSA writes the TPMT_PUBLIC of an EK RSA-2048 (template L-1).
func RSA(key *rsa.PublicKey, attributes uint32) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0x00, 0x01, 0x00, 0x0b}, attributes)
	b = structure.AppendSized(b, make([]byte, 32)) // authPolicy
	b = append(b, 0x00, 0x06, 0x00, 0x80, 0x00, 0x43, 0x00, 0x10, 0x08, 0x00, 0, 0, 0, 0)
	return structure.AppendSized(b, key.N.Bytes())
}

// P384 writes the TPMT_PUBLIC of an EK P-384 (template H-3).
func P384(key *ecdsa.PublicKey, attributes uint32) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0x00, 0x23, 0x00, 0x0c}, attributes)
	b = structure.AppendSized(b, make([]byte, 48)) // authPolicy
	b = append(b, 0x00, 0x06, 0x01, 0x00, 0x00, 0x43, 0x00, 0x10, 0x00, 0x04, 0x00, 0x10)
	point, err := key.Bytes()
	if err != nil {
		panic(err) // cannot happen: the curve is ours
	}
	half := len(point) / 2
	b = structure.AppendSized(b, point[1:1+half])
	return structure.AppendSized(b, point[1+half:])
}

// SRK writes the TPMT_PUBLIC of a storage root key P-256.
func SRK(key *ecdsa.PublicKey, attributes uint32) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0x00, 0x23, 0x00, 0x0b}, attributes)
	b = append(b, 0, 0, 0x00, 0x06, 0x00, 0x80, 0x00, 0x43, 0x00, 0x10, 0x00, 0x03, 0x00, 0x10)
	point, err := key.Bytes()
	if err != nil {
		panic(err) // cannot happen: the curve is ours
	}
	half := len(point) / 2
	b = structure.AppendSized(b, point[1:1+half])
	return structure.AppendSized(b, point[1+half:])
}

// Reference returns a small file of reference values of the product.
func Reference(product string) ([]byte, error) {
	r, err := measure.Waxseal1.Of("rootfs/squashfs/root", []byte("r1"))
	if err != nil {
		return nil, err
	}
	return reference.Values{
		Format: reference.Format, Product: product, Version: "1.0.0", Profile: measure.Waxseal1.Name,
		Assurance: "self", Handoff: "phase/handoff/switch_root",
		Items: []reference.Item{{PCR: r.PCR, Name: r.Name, SHA256: []reference.Hex{r.Content[:]}}},
	}.Encode()
}
