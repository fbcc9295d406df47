package tpm

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// ErrCredential means that a credential was made for another key or another
// TPM, or was changed on the way.
var ErrCredential = errors.New("the credential is not for this key of this TPM")

// Largest parts of a credential that an RSA-2048 EK takes, in bytes: an
// integrity value and a secret with their sizes (TPM 2.0 Part 2, section
// 12.4.2), and a seed encrypted to the EK (section 11.4.33).
const (
	MaxCredential      = 2 + 64 + 2 + 64
	MaxEncryptedSecret = 256
)

// ActivateCredential returns what is inside a credential that was made for k
// and the EK (Part 3, TPM2_ActivateCredential). Only a TPM that holds both can
// open it. blob is a TPMS_ID_OBJECT and secret the encrypted seed, both without
// a size before them. k is IAK or IDevID.
func (d *Device) ActivateCredential(ctx context.Context, k Key, blob, secret []byte) ([]byte, error) {
	if k != IAK && k != IDevID {
		return nil, fmt.Errorf("activate credential: key %q is neither IAK nor IDevID", string(k))
	}
	if len(blob) == 0 || len(blob) > MaxCredential || len(secret) == 0 || len(secret) > MaxEncryptedSecret {
		return nil, fmt.Errorf("activate credential: %w: blob of %d and secret of %d bytes: need 1 to %d and 1 to %d",
			ErrCredential, len(blob), len(secret), MaxCredential, MaxEncryptedSecret)
	}
	value, err := ask(ctx, d, quoting, Timeout, func(t transport.TPM) ([]byte, error) {
		return d.activate(t, k, blob, secret)
	})
	if err != nil {
		return nil, fmt.Errorf("activate credential of %s: %w", k, err)
	}
	return value, nil
}

// activate opens the two policy sessions that the command needs, one for each
// key, and flushes both.
func (d *Device) activate(t transport.TPM, k Key, blob, secret []byte) (value []byte, err error) {
	key, err := d.signer(t, k)
	if err != nil {
		return nil, err
	}
	ek, name, err := readPublic(t, handleEK)
	if err != nil {
		return nil, fmt.Errorf("EK: %w", err)
	}
	if err := sameTemplate(EK, ek, &tpm2.RSAEKTemplate); err != nil {
		return nil, err
	}
	var refused error // apart from what sessions fail with
	err = d.withPolicy(t, k, tpm2.TPMCCActivateCredential, func(admin tpm2.Session) error {
		return d.withPolicy(t, EK, tpm2.TPMCCActivateCredential, func(user tpm2.Session) error {
			rsp, err := tpm2.ActivateCredential{
				ActivateHandle: tpm2.AuthHandle{Handle: k.handle(), Name: key.name, Auth: admin},
				KeyHandle:      tpm2.AuthHandle{Handle: handleEK, Name: name, Auth: user},
				CredentialBlob: tpm2.TPM2BIDObject{Buffer: blob},
				Secret:         tpm2.TPM2BEncryptedSecret{Buffer: secret},
			}.Execute(t)
			if err == nil {
				value = rsp.CertInfo.Buffer
			}
			refused = err
			return nil
		})
	})
	if err == nil && refused != nil {
		return nil, foreign(d.forget(k, refused))
	}
	return value, errors.Join(refused, err)
}

// foreign says what the codes mean with which a TPM refuses a credential that
// is not for it: the seed does not decrypt (TPM_RC_VALUE, TPM_RC_SIZE), or the
// integrity value is over another name (TPM_RC_INTEGRITY). libtpms calls a seed
// that does not decrypt TPM_RC_FAILURE and goes on working, as the flushing of
// the sessions has shown; a TPM that has really failed does not flush (Part 1,
// section 12.3).
func foreign(err error) error {
	switch {
	case is(err, tpm2.TPMRCIntegrity, tpm2.TPMRCValue, tpm2.TPMRCSize):
		return fmt.Errorf("%w: %w", ErrCredential, err)
	case is(err, tpm2.TPMRCFailure):
		return fmt.Errorf("%w: its seed does not decrypt", ErrCredential) // without the code, which stands for a failed TPM
	}
	return err
}
