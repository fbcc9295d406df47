package manifest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"time"

	"waxseal/measure/devid"
	"waxseal/measure/evidence"
	"waxseal/measure/reference"
)

// maxText is the largest free text, and maxSerial the longest serial number
// (X.520, ub-serial-number), both in bytes.
const (
	maxText   = 128
	maxSerial = 64
)

// Check tells whether the shipment is complete and contradicts itself nowhere:
// each name is the one of its public area, the keys are what they are called,
// no two are one key, and the reference values are those of the digest.
func (s Shipment) Check() error {
	if s.Format != Format {
		return fmt.Errorf("%w: format is %q: need %q", ErrManifest, s.Format, Format)
	}
	for _, check := range []func() error{s.checkTexts, s.checkTime, s.checkKeys, s.checkDigests, s.checkReference} {
		if err := check(); err != nil {
			return fmt.Errorf("%w: %w", ErrManifest, err)
		}
	}
	return nil
}

func (s Shipment) checkTexts() error {
	if err := CheckSerial(s.Serial); err != nil {
		return err
	}
	for _, t := range []struct{ key, text string }{
		{"maker", s.Maker}, {"product", s.Product}, {"order", s.Order}, {"seal_id", s.SealID},
	} {
		if t.text == "" || len(t.text) > maxText || evidence.Escape(t.text) != t.text {
			return fmt.Errorf("%s %q: need 1 to %d bytes of printable text", t.key, t.text, maxText)
		}
	}
	return nil
}

// CheckSerial tells whether a serial number can stand in a manifest.
func CheckSerial(serial string) error {
	if len(serial) == 0 || len(serial) > maxSerial {
		return fmt.Errorf("serial number of %d bytes: need 1 to %d", len(serial), maxSerial)
	}
	for i := range len(serial) {
		if serial[i] <= 0x20 || serial[i] > 0x7e || serial[i] == '\\' {
			return fmt.Errorf("serial number %q: need printable ASCII without space and backslash", serial)
		}
	}
	return nil
}

func (s Shipment) checkTime() error {
	if s.Packed.Location() != time.UTC || s.Packed.Nanosecond() != 0 || s.Packed.Year() < 2000 || s.Packed.Year() > 9999 {
		return fmt.Errorf("packed %s: need a time in UTC, in whole seconds", s.Packed)
	}
	return nil
}

func (s Shipment) checkKeys() error {
	keys := map[string][]byte{"iak": s.IAK.Public, "idevid": s.IDevID.Public}
	for _, k := range []struct {
		kind devid.Kind
		key  Key
	}{{devid.IAK, s.IAK}, {devid.IDevID, s.IDevID}} {
		parsed, err := devid.Parse(k.kind, k.key.Public)
		if err != nil {
			return err
		}
		if !bytes.Equal(parsed.Name, k.key.Name) {
			return fmt.Errorf("%s: its name is not the one of its public area", k.kind)
		}
	}
	if bytes.Equal(keys["iak"], keys["idevid"]) {
		return fmt.Errorf("iak and idevid are one key")
	}
	if err := s.EK.check("ek", isRSA2048); err != nil {
		return err
	}
	if s.EKP384 != nil {
		if err := s.EKP384.check("ek_p384", isP384); err != nil {
			return err
		}
	}
	if s.SRK == nil {
		return nil
	}
	return EndorsementKey{Name: s.SRK.Name, Public: s.SRK.Public}.check("srk", isP256)
}

func (e EndorsementKey) check(what string, fits func(StorageKey) bool) error {
	parsed, err := ParseEK(e.Public)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if !fits(parsed) {
		return fmt.Errorf("%s: it is a %T of another size or curve", what, parsed.Key)
	}
	if !bytes.Equal(parsed.Name, e.Name) {
		return fmt.Errorf("%s: its name is not the one of its public area", what)
	}
	if e.CertificateSHA256 != nil && len(e.CertificateSHA256) != sha256.Size {
		return fmt.Errorf("%s: certificate digest of %d bytes: need %d", what, len(e.CertificateSHA256), sha256.Size)
	}
	return nil
}

func isRSA2048(k StorageKey) bool {
	key, ok := k.Key.(*rsa.PublicKey)
	return ok && key.N.BitLen() == 2048
}

func isP384(k StorageKey) bool { return isOn(k, 384) }

func isP256(k StorageKey) bool { return isOn(k, 256) }

func isOn(k StorageKey, bits int) bool {
	key, ok := k.Key.(*ecdsa.PublicKey)
	return ok && key.Params().BitSize == bits
}

func (s Shipment) checkDigests() error {
	if len(s.ReferenceSHA256) != sha256.Size {
		return fmt.Errorf("reference digest of %d bytes: need %d", len(s.ReferenceSHA256), sha256.Size)
	}
	if len(s.SecretHash) != sha512.Size384 {
		return fmt.Errorf("secret hash of %d bytes: need %d", len(s.SecretHash), sha512.Size384)
	}
	return nil
}

func (s Shipment) checkReference() error {
	if s.Reference == nil {
		return nil
	}
	return s.IsReference(s.Reference)
}

// IsReference tells whether a file of reference values is the one of the
// shipment, and can be judged by.
func (s Shipment) IsReference(file []byte) error {
	if len(file) > reference.MaxSize {
		return fmt.Errorf("reference values of %d bytes: at most %d", len(file), reference.MaxSize)
	}
	if got := referenceDigest(file); !bytes.Equal(got, s.ReferenceSHA256) {
		return fmt.Errorf("reference values have SHA-256 %x: the manifest says %x", []byte(got), []byte(s.ReferenceSHA256))
	}
	v, err := reference.Parse(file)
	if err != nil {
		return err
	}
	if v.Product != s.Product {
		return fmt.Errorf("reference values are of %q: the manifest is of %q", evidence.Escape(v.Product), s.Product)
	}
	return nil
}
