package tpmtest

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"waxseal/hw/tpm"
)

// HMACKey is an HMAC key as an owner makes one for a challenge. A test may
// change it before it is wrapped.
type HMACKey struct {
	Public tpm2.TPMTPublic
	Secret []byte

	sensitive tpm2.TPMTSensitive
}

// NewHMACKey returns a restricted HMAC key of SHA-256, always the same.
func NewHMACKey() HMACKey {
	secret, seed := bytes.Repeat([]byte{0x5e}, 32), bytes.Repeat([]byte{0xed}, 32)
	unique := sha256.Sum256(append(bytes.Clone(seed), secret...))
	return HMACKey{
		Public: tpm2.TPMTPublic{
			Type:             tpm2.TPMAlgKeyedHash,
			NameAlg:          tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{UserWithAuth: true, NoDA: true, Restricted: true, SignEncrypt: true},
			Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{
				Scheme: tpm2.TPMTKeyedHashScheme{
					Scheme:  tpm2.TPMAlgHMAC,
					Details: tpm2.NewTPMUSchemeKeyedHash(tpm2.TPMAlgHMAC, &tpm2.TPMSSchemeHMAC{HashAlg: tpm2.TPMAlgSHA256}),
				},
			}),
			Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgKeyedHash, &tpm2.TPM2BDigest{Buffer: unique[:]}),
		},
		Secret: secret,
		sensitive: tpm2.TPMTSensitive{
			SensitiveType: tpm2.TPMAlgKeyedHash,
			SeedValue:     tpm2.TPM2BDigest{Buffer: seed},
			Sensitive:     tpm2.NewTPMUSensitiveComposite(tpm2.TPMAlgKeyedHash, &tpm2.TPM2BSensitiveData{Buffer: secret}),
		},
	}
}

// WrapFor wraps the key for the TPM of an EK, given as TPMT_PUBLIC.
func (k HMACKey) WrapFor(t testing.TB, ekArea []byte) tpm.Wrapped {
	t.Helper()
	ek, err := tpm2.Unmarshal[tpm2.TPMTPublic](ekArea)
	if err != nil {
		t.Fatal(err)
	}
	kem, err := tpm2.ImportEncapsulationKey(ek)
	if err != nil {
		t.Fatal(err)
	}
	name, err := tpm2.ObjectName(&k.Public)
	if err != nil {
		t.Fatal(err)
	}
	duplicate, seed, err := tpm2.CreateDuplicate(rand.Reader, kem, name.Buffer, tpm2.Marshal(k.sensitive))
	if err != nil {
		t.Fatal(err)
	}
	return tpm.Wrapped{
		Public:    tpm2.Marshal(tpm2.New2B(k.Public)),
		Duplicate: tpm2.Marshal(tpm2.TPM2BPrivate{Buffer: duplicate}),
		Seed:      tpm2.Marshal(tpm2.TPM2BEncryptedSecret{Buffer: seed}),
	}
}
