package eat

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"fmt"

	"waxseal/measure/evidence"
)

// Profile is the value of eat_profile (RFC 9711, section 4.3.2): a token of
// this project, as docs/formats-eat.md has it. A UUID belongs to whoever drew it.
const Profile = "urn:uuid:7b5f842b-c995-4ad4-ab63-350500046284"

// Software is the value of swname (RFC 9711, section 4.2.6): who speaks. What
// it was made of stands in the log, by its digest.
const Software = "waxseal"

// Media types of the two forms (RFC 9782), in their headers.
const (
	typeJWT = "eat+jwt"
	typeCWT = "application/eat+cwt"
)

// tpmModule is the name of the submodule that holds the TPM's own words.
const tpmModule = "tpm"

// Claim keys of the CBOR form: those of IANA's CWT registry, and below -65536
// those that the registry leaves to private use (RFC 8392, section 9.1).
const (
	keyIssued  = 6
	keyNonce   = 10
	keyUEID    = 256
	keyModel   = 259
	keyProfile = 265
	keySubmods = 266
	keySwname  = 270

	keyCard      = -70001
	keyAttest    = -70010
	keySignature = -70011
	keyBank      = -70012
	keyPCRs      = -70013
	keyLog       = -70014
)

// ueidRAND begins a UEID that is made of random bits (RFC 9711, section
// 4.2.1.1, type RAND).
const ueidRAND = 0x01

// ueidTag begins what is hashed into a UEID.
const ueidTag = "waxseal-ueid-1\x00"

// UEID returns the identifier of the router whose attestation key this is. The
// key is drawn from the TPM's endorsement seed: it stays the same, owners and
// firmware come and go. So whoever holds the certificate can compute the
// identifier, and nobody has to believe it.
func UEID(key *ecdsa.PublicKey) ([]byte, error) {
	point, err := key.Bytes()
	if err != nil {
		return nil, fmt.Errorf("UEID: %w", err)
	}
	sum := sha256.Sum256(append([]byte(ueidTag), point...))
	return append([]byte{ueidRAND}, sum[:]...), nil
}

// Bounds of an hwmodel in bytes (RFC 9711, section 4.2.4: four to 44
// characters in base64url, one to 32 bytes).
const (
	minModel = 3
	maxModel = 32
)

// model returns the hwmodel of a card: its part number, or nothing if that is
// no hwmodel. The card holds it in any case.
func model(c evidence.Card) []byte {
	if n := len(c.PartNumber); n < minModel || n > maxModel {
		return nil
	}
	return []byte(c.PartNumber)
}

// cardField is one text of a card.
type cardField struct {
	name string // in the JSON form, as in an evidence file
	key  int64  // in the CBOR form
	text *string
}

// cardFields returns all texts of a card. The keys of the CBOR form are the
// field numbers of attestz ControlCardVendorId.
func cardFields(c *evidence.Card) []cardField {
	return []cardField{
		{"role", 1, &c.Role},
		{"serial", 2, &c.Serial},
		{"slot", 3, &c.Slot},
		{"manufacturer", 4, &c.Manufacturer},
		{"part_number", 5, &c.PartNumber},
		{"chassis_serial", 6, &c.ChassisSerial},
	}
}
