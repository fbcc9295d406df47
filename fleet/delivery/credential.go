package delivery

import (
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"waxseal/measure/manifest"
	"waxseal/measure/wire"
)

// secretSize is the size of what a credential holds, in bytes: the digest size
// of an EK whose nameAlg is SHA-256 (TPM 2.0 Part 3, TPM2_MakeCredential).
const secretSize = 32

// credentials returns a credential for each of the manifest's keys under the
// manifest's EK, and what is inside. Nothing that the device shows is used:
// only the TPM that was shipped can read them (D-19, D-21).
func credentials(s manifest.Shipment) (iak, idevid wire.Credential, inside Inside, err error) {
	if iak, inside.IAK, err = credential(s.EK.Public, s.IAK.Name); err != nil {
		return iak, idevid, inside, err
	}
	idevid, inside.IDevID, err = credential(s.EK.Public, s.IDevID.Name)
	return iak, idevid, inside, err
}

// credential is TPM2_MakeCredential without a TPM.
func credential(ek, name []byte) (c wire.Credential, secret []byte, err error) {
	defer func() {
		if p := recover(); p != nil { // the reader of public areas is not ours
			err = fmt.Errorf("credential: EK: %v", p)
		}
	}()
	if _, err := manifest.ParseEK(ek); err != nil {
		return c, nil, fmt.Errorf("credential: %w", err)
	}
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](ek)
	if err != nil {
		return c, nil, fmt.Errorf("credential: EK: %w", err)
	}
	key, err := tpm2.ImportEncapsulationKey(public)
	if err != nil {
		return c, nil, fmt.Errorf("credential: EK: %w", err)
	}
	if len(name) == 0 {
		return c, nil, errors.New("credential: for a key without a name")
	}
	secret = make([]byte, secretSize)
	if _, err := rand.Read(secret); err != nil {
		return c, nil, err
	}
	if c.Blob, c.Secret, err = tpm2.CreateCredential(rand.Reader, key, name, secret); err != nil {
		return c, nil, fmt.Errorf("credential: %w", err)
	}
	return c, secret, nil
}
