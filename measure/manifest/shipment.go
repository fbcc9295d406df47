// Package manifest is what a maker says about one device when it leaves the
// factory, so that the buyer can tell on the doorstep that it is the one that
// was shipped: whose TPM it has, what it boots, and how often its TPM had been
// reset by then.
//
// A Shipment proves nothing by itself: Open takes one only from a file that
// the maker's two keys have signed (package sealed). It holds no secret, only
// the hash of one. The package opens nothing and reads no clock.
package manifest

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"waxseal/measure/manifest/sealed"
)

// Format is the value of Shipment.Format, and the kind of its sealed file.
const Format = "waxseal-shipment-1"

// MaxSize is the largest manifest that Parse accepts, in bytes, without its
// signatures: most of it are the reference values.
const MaxSize = sealed.MaxPayload

// ErrManifest means that a manifest cannot be used.
var ErrManifest = errors.New("shipment manifest is not acceptable")

// Shipment is one device as it left the factory.
type Shipment struct {
	Format  string    `json:"format"`
	Serial  string    `json:"serial"`  // the device's serial number, as in its certificates
	Maker   string    `json:"maker"`   // free text
	Product string    `json:"product"` // board or part, as in the reference values
	Order   string    `json:"order"`   // the maker's number of the buyer's order
	Packed  time.Time `json:"packed"`  // in UTC, whole seconds
	SealID  string    `json:"seal_id"` // number of the tamper-evident tape around the box

	EK     EndorsementKey  `json:"ek"`                // RSA-2048
	EKP384 *EndorsementKey `json:"ek_p384,omitempty"` // nil if the TPM has none
	IAK    Key             `json:"iak"`
	IDevID Key             `json:"idevid"`
	SRK    *Key            `json:"srk,omitempty"` // P-256; a TPM that is cleared gets another one. nil: resets after a clear are not seen

	Counters  Counters `json:"counters"`
	MaxResets uint32   `json:"max_resets"` // TPM resets that the maker promises not to be exceeded between packing and the check

	ReferenceSHA256 Hex  `json:"reference_sha256"`    // of the file of reference values
	Reference       Blob `json:"reference,omitempty"` // that file; nil: the buyer has it from elsewhere

	SecretHash Hex `json:"secret_hash"` // HashSecret of the secret that goes to the buyer by another way than the device
}

// Key is the public side of a key in the TPM.
type Key struct {
	Name   Hex  `json:"name"`   // TPM Name: nameAlg and digest of Public (TPM 2.0 Part 1, section 16)
	Public Blob `json:"public"` // TPMT_PUBLIC
}

// EndorsementKey is a Key by which the TPM's maker vouches for the TPM.
type EndorsementKey struct {
	Name              Hex  `json:"name"`
	Public            Blob `json:"public"`
	CertificateSHA256 Hex  `json:"certificate_sha256,omitempty"` // of its certificate in DER; nil: it has none
}

// Counters are the TPM's at packing (TPMS_CLOCK_INFO). Each time that the
// device is switched on, or reset as a whole, is one more of Resets.
type Counters struct {
	Resets   uint32 `json:"resets"`   // resetCount
	Restarts uint32 `json:"restarts"` // restartCount: resumes since the last reset
	Clock    uint64 `json:"clock"`    // milliseconds of powered time
}

// Hex is a digest or a name, written in lower-case hexadecimal.
type Hex []byte

// MarshalText implements encoding.TextMarshaler.
func (h Hex) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hex) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// Blob is bytes in standard base64 with padding.
type Blob []byte

// MarshalText implements encoding.TextMarshaler.
func (b Blob) MarshalText() ([]byte, error) { return base64.StdEncoding.AppendEncode(nil, b), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Blob) UnmarshalText(text []byte) (err error) {
	*b, err = base64.StdEncoding.Strict().AppendDecode(nil, text)
	return err
}

// Open returns the shipment of a file that the trusted maker signed with both
// algorithms.
func Open(file []byte, trust sealed.Trust) (Shipment, error) {
	payload, err := sealed.Open(Format, file, trust)
	if err != nil {
		return Shipment{}, fmt.Errorf("shipment manifest: %w", err)
	}
	return Parse(payload)
}

// Seal returns the file that Open reads.
func (s Shipment) Seal(signers ...sealed.Signer) ([]byte, error) {
	payload, err := s.Encode()
	if err != nil {
		return nil, err
	}
	return sealed.Seal(Format, payload, signers...)
}

// Parse reads a manifest that stands by itself, without signatures: what it
// returns is a claim. Any bytes but those of Encode are refused.
func Parse(data []byte) (Shipment, error) {
	var s Shipment
	if len(data) > MaxSize {
		return s, fmt.Errorf("%w: %d bytes: at most %d", ErrManifest, len(data), MaxSize)
	}
	if err := json.Unmarshal(data, &s, json.RejectUnknownMembers(true)); err != nil {
		return Shipment{}, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	plain, err := s.Encode()
	if err != nil {
		return Shipment{}, err
	}
	if !bytes.Equal(plain, data) {
		return Shipment{}, fmt.Errorf("%w: it is not written in its one plain form", ErrManifest)
	}
	return s, nil
}

// Encode returns the manifest that Parse reads.
func (s Shipment) Encode() ([]byte, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	b, err := json.Marshal(s, jsontext.WithIndent("  "))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	if len(b) >= MaxSize {
		return nil, fmt.Errorf("%w: %d bytes: at most %d", ErrManifest, len(b)+1, MaxSize)
	}
	return append(b, '\n'), nil
}

// Digest returns the SHA-384 digest of the manifest: the same for the same
// statement, whoever signed it and when.
func (s Shipment) Digest() ([sha512.Size384]byte, error) {
	b, err := s.Encode()
	if err != nil {
		return [sha512.Size384]byte{}, err
	}
	return sha512.Sum384(b), nil
}

// referenceDigest is the SHA-256 digest of a file of reference values.
func referenceDigest(file []byte) Hex {
	sum := sha256.Sum256(file)
	return sum[:]
}
