package tpm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"waxseal/measure"
)

// certifyTimeout is Timeout for calls of several commands, of which one
// decrypts with RSA.
const certifyTimeout = 20 * time.Second

// Certified is a key and the TPM's word that it is in there.
type Certified struct {
	Public    []byte // TPM2B_PUBLIC
	Attest    []byte // TPM2B_ATTEST: TPMS_ATTEST of type certify
	Signature []byte // TPMT_SIGNATURE
}

// CertifyByHMAC takes in an HMAC key that was wrapped for this TPM's EK and
// lets it certify the IAK: who has wrapped the key sees that the IAK is in the
// TPM of that EK. A key that cannot be taken in is ErrWrapped. Nothing of it
// is left in the TPM, whatever happens.
func (d *Device) CertifyByHMAC(ctx context.Context, w Wrapped) (Certified, error) {
	parsed, err := w.parse()
	if err != nil {
		return Certified{}, fmt.Errorf("certify %s: %w", IAK, err)
	}
	c, err := ask(ctx, d, quoting, certifyTimeout, func(t transport.TPM) (Certified, error) {
		return d.certifyByHMAC(t, parsed)
	})
	if err != nil {
		return Certified{}, fmt.Errorf("certify %s: %w", IAK, err)
	}
	return c, nil
}

func (d *Device) certifyByHMAC(t transport.TPM, w wrapped) (c Certified, err error) {
	template, err := IAK.template()
	if err != nil {
		return Certified{}, err
	}
	iak, name, err := readPublic(t, handleIAK)
	if err != nil {
		return Certified{}, err
	}
	if err := sameTemplate(IAK, iak, &template); err != nil {
		return Certified{}, err
	}
	hmac, err := d.takeIn(t, w)
	if err != nil {
		return Certified{}, err
	}
	defer func() { err = errors.Join(err, flush(t, hmac.ObjectHandle)) }()
	by := tpm2.AuthHandle{Handle: hmac.ObjectHandle, Name: hmac.Name, Auth: tpm2.PasswordAuth(nil)}
	var rsp *tpm2.CertifyResponse
	err = d.administering(t, IAK, tpm2.TPMCCCertify, func(auth tpm2.Session) (err error) {
		rsp, err = tpm2.Certify{
			ObjectHandle: tpm2.AuthHandle{Handle: handleIAK, Name: name, Auth: auth},
			SignHandle:   by,
			InScheme:     tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull}, // the key's own
		}.Execute(t)
		return err
	})
	if err != nil {
		return Certified{}, err
	}
	if err := checkCertified(rsp.CertifyInfo.Bytes(), nil, name.Buffer); err != nil {
		return Certified{}, err
	}
	return Certified{
		tpm2.Marshal(tpm2.New2B(*iak)),
		tpm2.Marshal(rsp.CertifyInfo),
		tpm2.Marshal(&rsp.Signature),
	}, nil
}

// takeIn is TPM2_Import and TPM2_Load under the EK (Part 3, sections 13.3 and
// 12.2). Each needs a policy session of its own.
func (d *Device) takeIn(t transport.TPM, w wrapped) (*tpm2.LoadResponse, error) {
	ek, name, err := readPublic(t, handleEK)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", EK, err)
	}
	if err := sameTemplate(EK, ek, &tpm2.RSAEKTemplate); err != nil {
		return nil, err
	}
	var imported *tpm2.ImportResponse
	err = d.underEK(t, name, func(parent tpm2.AuthHandle) (err error) {
		imported, err = tpm2.Import{
			ParentHandle: parent, ObjectPublic: w.public, Duplicate: w.duplicate, InSymSeed: w.seed,
			Symmetric: tpm2.TPMTSymDef{Algorithm: tpm2.TPMAlgNull},
		}.Execute(t)
		return err
	})
	if err != nil {
		return nil, err
	}
	var loaded *tpm2.LoadResponse
	err = d.underEK(t, name, func(parent tpm2.AuthHandle) (err error) {
		loaded, err = tpm2.Load{ParentHandle: parent, InPrivate: imported.OutPrivate, InPublic: w.public}.Execute(t)
		return err
	})
	if err != nil && loaded != nil { // the session could not be flushed
		err = errors.Join(err, flush(t, loaded.ObjectHandle))
	}
	return loaded, err
}

// underEK runs f with the EK as parent. What f fails with is about the wrapped
// key if the session could be flushed after it.
func (d *Device) underEK(t transport.TPM, name tpm2.TPM2BName, f func(tpm2.AuthHandle) error) error {
	var cause error // apart from what sessions fail with
	err := d.withPolicy(t, EK, 0, func(s tpm2.Session) error {
		cause = f(tpm2.AuthHandle{Handle: handleEK, Name: name, Auth: s})
		return nil
	})
	if err == nil {
		return unacceptable(cause)
	}
	return errors.Join(cause, err)
}

func flush(t transport.TPM, handle tpm2.TPMHandle) error {
	_, err := tpm2.FlushContext{FlushHandle: handle}.Execute(t)
	return err
}

// SignContent returns the TPMT_SIGNATURE of the IDevID over content, ECDSA
// with SHA-384, for requests that want the TPM's own form.
func (d *Device) SignContent(ctx context.Context, content []byte) ([]byte, error) {
	sig, err := ask(ctx, d, quoting, Timeout, func(t transport.TPM) ([]byte, error) {
		sig, err := d.signDigest(t, IDevID, measure.Hash(measure.SHA384, content).Sum)
		if err != nil {
			return nil, err
		}
		return tpm2.Marshal(sig), nil
	})
	if err != nil {
		return nil, fmt.Errorf("sign with %s: %w", IDevID, err)
	}
	return sig, nil
}
