package tpm

import (
	"bytes"
	"context"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"waxseal/measure"
)

// Certify returns a bare TPMS_ATTEST that k is in the TPM of the IAK, and the
// IAK's TPMT_SIGNATURE over it (Part 3, TPM2_Certify). k is IAK, IDevID or
// SRK: the EK's policy does not allow it. nonce becomes the extraData and has
// at most 64 bytes. The answer is checked before it is returned.
func (d *Device) Certify(ctx context.Context, k Key, nonce []byte) (attest, signature []byte, err error) {
	if len(nonce) > MaxNonce {
		return nil, nil, fmt.Errorf("certify %s: nonce of %d bytes: at most %d", k, len(nonce), MaxNonce)
	}
	if k == EK {
		return nil, nil, fmt.Errorf("certify %s: its policy allows no TPM2_Certify: activate a credential", k)
	}
	q, err := ask(ctx, d, quoting, Timeout, func(t transport.TPM) (quote, error) { return d.certify(t, k, nonce) })
	if err != nil {
		return nil, nil, fmt.Errorf("certify %s: %w", k, err)
	}
	return q.attest, q.signature, nil
}

func (d *Device) certify(t transport.TPM, k Key, nonce []byte) (quote, error) {
	template, err := k.template()
	if err != nil {
		return quote{}, err
	}
	iak, err := d.signer(t, IAK)
	if err != nil {
		return quote{}, err
	}
	pub, name, err := readPublic(t, k.handle())
	if err != nil {
		return quote{}, err
	}
	if err := sameTemplate(k, pub, &template); err != nil {
		return quote{}, err
	}
	var rsp *tpm2.CertifyResponse
	err = d.administering(t, k, tpm2.TPMCCCertify, func(auth tpm2.Session) (err error) {
		rsp, err = tpm2.Certify{
			ObjectHandle:   tpm2.AuthHandle{Handle: k.handle(), Name: name, Auth: auth},
			SignHandle:     tpm2.AuthHandle{Handle: handleIAK, Name: iak.name, Auth: tpm2.PasswordAuth(nil)},
			QualifyingData: tpm2.TPM2BData{Buffer: nonce},
			InScheme:       ecdsaSHA384(),
		}.Execute(t)
		return err
	})
	if err != nil {
		return quote{}, d.forget(IAK, err)
	}
	q := quote{rsp.CertifyInfo.Bytes(), tpm2.Marshal(&rsp.Signature)}
	if err := checkCertified(q.attest, nonce, name.Buffer); err != nil {
		return quote{}, err
	}
	return q, checkSignature(iak.public, measure.Hash(measure.SHA384, q.attest).Sum, &rsp.Signature)
}

// administering runs f with what the ADMIN role of k asks for: the password
// of a storage key, the policy of all others (Part 1, section 19.2).
func (d *Device) administering(t transport.TPM, k Key, command tpm2.TPMCC, f func(tpm2.Session) error) error {
	if k == SRK {
		return f(tpm2.PasswordAuth(nil))
	}
	return d.withPolicy(t, k, command, f)
}

// checkCertified checks that a TPMS_ATTEST is over the object of that name.
func checkCertified(b, nonce, name []byte) error {
	attest, err := tpm2.Unmarshal[tpm2.TPMSAttest](b)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrQuote, err)
	}
	info, err := attest.Attested.Certify()
	if err != nil || attest.Magic != tpm2.TPMGeneratedValue || attest.Type != tpm2.TPMSTAttestCertify {
		return fmt.Errorf("%w: magic 0x%x, type 0x%x", ErrQuote, uint32(attest.Magic), uint16(attest.Type))
	}
	if !bytes.Equal(attest.ExtraData.Buffer, nonce) || !bytes.Equal(info.Name.Buffer, name) {
		return fmt.Errorf("%w: it is over another nonce or object", ErrQuote)
	}
	return nil
}
