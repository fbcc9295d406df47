package tpm

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"waxseal/measure"
)

// Sizes of a challenge's nonce in bytes.
const (
	MinNonce = 16
	MaxNonce = 64
)

type quote struct{ attest, signature []byte }

// Quote returns a bare TPMS_ATTEST over pcrs of one bank and the TPMT_SIGNATURE
// over it (Part 3, TPM2_Quote), signed with ECDSA and SHA-384. nonce has 16 to
// 64 bytes. The answer is checked before it is returned: signature, nonce, and
// exactly the selection that was asked for; anything else is ErrQuote.
func (d *Device) Quote(ctx context.Context, k Key, nonce []byte, bank measure.Alg, pcrs []measure.PCR) (attest, signature []byte, err error) {
	if err := d.checkSelection(bank, pcrs); err != nil {
		return nil, nil, fmt.Errorf("quote: %w", err)
	}
	if len(nonce) < MinNonce || len(nonce) > MaxNonce {
		return nil, nil, fmt.Errorf("quote: nonce of %d bytes: need %d to %d", len(nonce), MinNonce, MaxNonce)
	}
	if k != IAK {
		return nil, nil, fmt.Errorf("quote: key %s is not a restricted key: need IAK", k)
	}
	q, err := ask(ctx, d, quoting, Timeout, func(t transport.TPM) (quote, error) {
		return d.quote(t, k, nonce, selection(bank, pcrs))
	})
	if err != nil {
		return nil, nil, fmt.Errorf("quote: %w", err)
	}
	return q.attest, q.signature, nil
}

func (d *Device) quote(t transport.TPM, k Key, nonce []byte, sel tpm2.TPMLPCRSelection) (quote, error) {
	key, err := d.signer(t, k)
	if err != nil {
		return quote{}, err
	}
	rsp, err := tpm2.Quote{
		SignHandle:     tpm2.AuthHandle{Handle: k.handle(), Name: key.name, Auth: tpm2.PasswordAuth(nil)},
		QualifyingData: tpm2.TPM2BData{Buffer: nonce},
		InScheme:       ecdsaSHA384(),
		PCRSelect:      sel,
	}.Execute(t)
	if err != nil {
		return quote{}, d.forget(k, err)
	}
	q := quote{rsp.Quoted.Bytes(), tpm2.Marshal(&rsp.Signature)}
	if err := checkQuoted(q.attest, nonce, sel); err != nil {
		return quote{}, err
	}
	return q, checkSignature(key.public, measure.Hash(measure.SHA384, q.attest).Sum, &rsp.Signature)
}

// checkQuoted checks that a TPMS_ATTEST answers the question.
func checkQuoted(b, nonce []byte, sel tpm2.TPMLPCRSelection) error {
	attest, err := tpm2.Unmarshal[tpm2.TPMSAttest](b)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrQuote, err)
	}
	if attest.Magic != tpm2.TPMGeneratedValue || attest.Type != tpm2.TPMSTAttestQuote {
		return fmt.Errorf("%w: magic 0x%x, type 0x%x", ErrQuote, uint32(attest.Magic), uint16(attest.Type))
	}
	if !bytes.Equal(attest.ExtraData.Buffer, nonce) {
		return fmt.Errorf("%w: it is over another nonce", ErrQuote)
	}
	info, err := attest.Attested.Quote()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrQuote, err)
	}
	same := slices.EqualFunc(info.PCRSelect.PCRSelections, sel.PCRSelections, func(a, b tpm2.TPMSPCRSelection) bool {
		return a.Hash == b.Hash && slices.Equal(selected(a.PCRSelect), selected(b.PCRSelect))
	})
	if !same {
		return fmt.Errorf("%w: it covers other PCRs", ErrQuote)
	}
	return nil
}

// checkSignature checks an ECDSA signature with SHA-384 over digest.
func checkSignature(pub *ecdsa.PublicKey, digest []byte, sig *tpm2.TPMTSignature) error {
	r, s, err := ecdsaValues(sig)
	if err != nil {
		return err
	}
	if !ecdsa.Verify(pub, digest, r, s) {
		return fmt.Errorf("%w: its signature does not verify", ErrQuote)
	}
	return nil
}

func ecdsaValues(sig *tpm2.TPMTSignature) (r, s *big.Int, err error) {
	if sig.SigAlg != tpm2.TPMAlgECDSA {
		return nil, nil, fmt.Errorf("%w: signature algorithm 0x%04x", ErrMalformed, uint16(sig.SigAlg))
	}
	ec, err := sig.Signature.ECDSA()
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if ec.Hash != tpm2.TPMAlgSHA384 {
		return nil, nil, fmt.Errorf("%w: signature hash 0x%04x", ErrMalformed, uint16(ec.Hash))
	}
	r, s = new(big.Int).SetBytes(ec.SignatureR.Buffer), new(big.Int).SetBytes(ec.SignatureS.Buffer)
	if r.Sign() == 0 || s.Sign() == 0 {
		return nil, nil, errors.Join(ErrMalformed, errors.New("signature of zero"))
	}
	return r, s, nil
}

func ecdsaSHA384() tpm2.TPMTSigScheme {
	return tpm2.TPMTSigScheme{
		Scheme:  tpm2.TPMAlgECDSA,
		Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA384}),
	}
}
