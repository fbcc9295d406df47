// Package export writes evidence in the forms of others, so that verifiers
// that nobody here wrote can judge it.
//
// It converts and judges nothing: what is exported is as genuine as it was.
// Beside measure/wire it is the only room of the fleet that knows generated
// code, that of google/go-tpm-tools.
package export

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/google/go-tpm-tools/proto/attest"
	"github.com/google/go-tpm-tools/proto/tpm"
	"google.golang.org/protobuf/proto"

	"waxseal/measure"
	"waxseal/measure/devid"
	"waxseal/measure/eventlog"
	"waxseal/measure/evidence"
	"waxseal/measure/structure"
)

// ErrBatch means that the evidence answers many at once, which no other form
// can say.
var ErrBatch = errors.New("evidence is of a batch: its quote is over no nonce of its own; ask again without --batched")

// hashes are the banks by their numbers in go-tpm-tools, which are TPM_ALG_IDs.
var hashes = map[measure.Alg]tpm.HashAlgo{
	measure.SHA256: tpm.HashAlgo_SHA256, measure.SHA384: tpm.HashAlgo_SHA384, measure.SHA512: tpm.HashAlgo_SHA512,
}

// GoTPMTools returns evidence as an attest.Attestation of google/go-tpm-tools
// in protobuf. It holds one quote, in the one bank that was asked for. note
// says what is not in it; it is empty where nothing is missing.
func GoTPMTools(ev evidence.Evidence) (out []byte, note string, err error) {
	if ev.Batch != nil {
		return nil, "", ErrBatch
	}
	a := &attest.Attestation{}
	leaf, err := certificates(a, ev.Certificates)
	if err != nil {
		return nil, "", err
	}
	quote, err := quoteOf(ev)
	if err != nil {
		return nil, "", err
	}
	a.Quotes = []*tpm.Quote{quote}
	if a.EventLog, err = tcgLog(ev.Log, ev.Bank); err != nil {
		return nil, "", err
	}
	if a.AkPub, err = publicArea(leaf, ev.Quoted); err != nil {
		note = "without ak_pub, so verify it by the certificate: " + err.Error()
	}
	out, err = proto.MarshalOptions{Deterministic: true}.Marshal(a)
	if err != nil {
		return nil, "", fmt.Errorf("go-tpm-tools: %w", err)
	}
	return out, note, nil
}

// certificates puts in the owner's chain of the attestation key, or the
// maker's where there is no owner's.
func certificates(a *attest.Attestation, c evidence.Certificates) (*x509.Certificate, error) {
	chain := c.OIAK
	if len(chain) == 0 {
		chain = c.IAK
	}
	if len(chain) == 0 {
		return nil, errors.New("evidence holds no certificate of an attestation key")
	}
	var leaf *x509.Certificate
	for i, text := range chain {
		cert, err := evidence.ParsePEM(text)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			leaf, a.AkCert = cert, cert.Raw
			continue
		}
		a.IntermediateCerts = append(a.IntermediateCerts, cert.Raw)
	}
	return leaf, nil
}

func quoteOf(ev evidence.Evidence) (*tpm.Quote, error) {
	hash, ok := hashes[ev.Bank]
	if !ok {
		return nil, fmt.Errorf("bank %v: need sha256, sha384 or sha512", ev.Bank)
	}
	pcrs := &tpm.PCRs{Hash: hash, Pcrs: map[uint32][]byte{}}
	for pcr, value := range ev.PCRs {
		pcrs.Pcrs[uint32(pcr)] = value
	}
	return &tpm.Quote{Quote: ev.Quoted, RawSig: ev.Signature, Pcrs: pcrs}, nil
}

// tcgLog returns the log in TCG's crypto-agile form, ours as EV_EVENT_TAG.
func tcgLog(cel []byte, bank measure.Alg) ([]byte, error) {
	log := eventlog.Log{Banks: []measure.Alg{bank}}
	if len(cel) > 0 {
		var err error
		if log, err = eventlog.DecodeCEL(cel); err != nil {
			return nil, fmt.Errorf("log: %w", err)
		}
	}
	return eventlog.EncodeTCG(log)
}

// publicArea returns the TPMT_PUBLIC of the attestation key. Evidence does not
// carry it, but an IAK of TCG's template is told by its key alone, and the
// quote names its signer: only an area with that name is returned.
func publicArea(leaf *x509.Certificate, quoted []byte) ([]byte, error) {
	key, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return nil, errors.New("the attestation key is no ECDSA key")
	}
	areas, err := devid.Areas(devid.IAK, key)
	if err != nil {
		return nil, err
	}
	r := structure.Reader{Rest: quoted}
	r.U32() // magic
	r.U16() // type
	signer := r.Sized()
	for _, area := range areas {
		ak, err := evidence.ParseAttestationKey(area)
		if err != nil {
			return nil, err
		}
		if bytes.Equal(ak.QualifiedName(), signer) {
			return area, nil
		}
	}
	return nil, errors.New("the quote names a signer that is not the IAK of TCG's template with this key")
}
