package enroll

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"waxseal/measure/wire"
)

// hmacKey is a secret of one enrollment, in the form in which a TPM can take
// it in: a restricted HMAC key signs nothing but what that TPM has made.
type hmacKey struct {
	secret, seed []byte
}

func newHMACKey() (hmacKey, error) {
	k := hmacKey{make([]byte, sha256.Size), make([]byte, sha256.Size)}
	for _, b := range [][]byte{k.secret, k.seed} {
		if _, err := rand.Read(b); err != nil {
			return hmacKey{}, fmt.Errorf("HMAC key: %w", err)
		}
	}
	return k, nil
}

// public is the key's public area. The key is not fixed to a TPM, or no TPM
// could take it in; with an empty policy no TPM gives it away again (TPM 2.0
// Part 1, section 23.3). Its unique is H(seed ‖ secret) (section 27.5.3.2).
func (k hmacKey) public() tpm2.TPMTPublic {
	unique := sha256.Sum256(append(bytes.Clone(k.seed), k.secret...))
	return tpm2.TPMTPublic{
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
	}
}

// wrapFor returns the key so that only the TPM of ek can unwrap it (Part 1,
// section 23.3: outer wrapper).
func (k hmacKey) wrapFor(ek *rsa.PublicKey) (wire.HMACChallenge, error) {
	parent := ekPublic(ek)
	kem, err := tpm2.ImportEncapsulationKey(&parent)
	if err != nil {
		return wire.HMACChallenge{}, fmt.Errorf("wrap HMAC key: %w", err)
	}
	public := k.public()
	name, err := tpm2.ObjectName(&public)
	if err != nil {
		return wire.HMACChallenge{}, fmt.Errorf("wrap HMAC key: %w", err)
	}
	sensitive := tpm2.Marshal(tpm2.TPMTSensitive{
		SensitiveType: tpm2.TPMAlgKeyedHash,
		SeedValue:     tpm2.TPM2BDigest{Buffer: k.seed},
		Sensitive:     tpm2.NewTPMUSensitiveComposite(tpm2.TPMAlgKeyedHash, &tpm2.TPM2BSensitiveData{Buffer: k.secret}),
	})
	duplicate, seed, err := tpm2.CreateDuplicate(rand.Reader, kem, name.Buffer, sensitive)
	if err != nil {
		return wire.HMACChallenge{}, fmt.Errorf("wrap HMAC key: %w", err)
	}
	return wire.HMACChallenge{
		Parent:    wire.ParentEK,
		Public:    tpm2.Marshal(tpm2.New2B(public)),
		Duplicate: tpm2.Marshal(tpm2.TPM2BPrivate{Buffer: duplicate}),
		Seed:      tpm2.Marshal(tpm2.TPM2BEncryptedSecret{Buffer: seed}),
	}, nil
}

// ekPublic is the public area of an EK of template L-1 (TCG EK Credential
// Profile, section B.3.3). The exponent 65537 is written as zero.
func ekPublic(ek *rsa.PublicKey) tpm2.TPMTPublic {
	p := tpm2.RSAEKTemplate
	p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: ek.N.FillBytes(make([]byte, 256))})
	return p
}
