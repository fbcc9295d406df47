package tpm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"waxseal/measure"
)

// Bounds of what SignData takes, in bytes. A TPM gives no ticket for data that
// is too short to tell that it does not begin like a structure of its own.
const (
	minSignData = 4
	MaxSignData = 128 << 10
)

// hashChunk is what one command of a hash sequence takes: every TPM has a
// MAX_DIGEST_BUFFER of at least as much (PC Client Platform TPM Profile,
// section 4.3).
const hashChunk = 1024

// signDataTimeout is Timeout for SignData, whose data goes over a slow bus.
const signDataTimeout = 20 * time.Second

// ErrGenerated means that data begins like a structure that only a TPM makes.
var ErrGenerated = errors.New("data begins with TPM_GENERATED_VALUE: a restricted key signs that only for the TPM itself")

// SignData signs data with the IAK, ECDSA with SHA-384, and returns r and s of
// 48 bytes each. The key is restricted: it signs only what the TPM has hashed
// itself, and has seen not to begin like a TPMS_ATTEST (Part 1, section 23.2).
// So nothing that it signs here can pass for a quote.
//
// The data goes through the TPM, which does nothing else meanwhile.
func (d *Device) SignData(ctx context.Context, data []byte) ([]byte, error) {
	if len(data) < minSignData || len(data) > MaxSignData {
		return nil, fmt.Errorf("sign data: %d bytes: need %d to %d", len(data), minSignData, MaxSignData)
	}
	if bytes.HasPrefix(data, generated()) {
		return nil, fmt.Errorf("sign data: %w", ErrGenerated)
	}
	data = bytes.Clone(data) // it outlives a caller that gives up
	sig, err := ask(ctx, d, quoting, signDataTimeout, func(t transport.TPM) ([]byte, error) {
		return d.signData(t, data)
	})
	if err != nil {
		return nil, fmt.Errorf("sign data: %w", err)
	}
	return sig, nil
}

func generated() []byte { return binary.BigEndian.AppendUint32(nil, uint32(tpm2.TPMGeneratedValue)) }

func (d *Device) signData(t transport.TPM, data []byte) ([]byte, error) {
	key, err := d.signer(t, IAK)
	if err != nil {
		return nil, err
	}
	digest, ticket, err := hashed(t, data)
	if err != nil {
		return nil, err
	}
	rsp, err := tpm2.Sign{
		KeyHandle:  tpm2.AuthHandle{Handle: handleIAK, Name: key.name, Auth: tpm2.PasswordAuth(nil)},
		Digest:     tpm2.TPM2BDigest{Buffer: digest},
		InScheme:   ecdsaSHA384(),
		Validation: ticket,
	}.Execute(t)
	if is(err, tpm2.TPMRCTicket) {
		return nil, fmt.Errorf("%w: %w", ErrGenerated, err)
	}
	if err != nil {
		return nil, d.forget(IAK, err)
	}
	if err := checkSignature(key.public, measure.Hash(measure.SHA384, data).Sum, &rsp.Signature); err != nil {
		return nil, err
	}
	r, s, err := ecdsaValues(&rsp.Signature)
	if err != nil {
		return nil, err
	}
	half := measure.SHA384.Size()
	out := make([]byte, 2*half)
	r.FillBytes(out[:half])
	s.FillBytes(out[half:])
	return out, nil
}

// hashed lets the TPM hash data and returns the ticket that it did (Part 3,
// sections 17.3, 17.4 and 17.5). The sequence is flushed if it is not completed.
func hashed(t transport.TPM, data []byte) (digest []byte, ticket tpm2.TPMTTKHashCheck, err error) {
	start, err := tpm2.HashSequenceStart{HashAlg: tpm2.TPMAlgSHA384}.Execute(t)
	if err != nil {
		return nil, ticket, err
	}
	sequence := tpm2.AuthHandle{Handle: start.SequenceHandle, Auth: tpm2.PasswordAuth(nil)}
	defer func() {
		if err != nil {
			_, ferr := tpm2.FlushContext{FlushHandle: start.SequenceHandle}.Execute(t)
			err = errors.Join(err, ferr)
		}
	}()
	for len(data) > hashChunk {
		_, err = tpm2.SequenceUpdate{SequenceHandle: sequence, Buffer: tpm2.TPM2BMaxBuffer{Buffer: data[:hashChunk]}}.Execute(t)
		if err != nil {
			return nil, ticket, err
		}
		data = data[hashChunk:]
	}
	done, err := tpm2.SequenceComplete{
		SequenceHandle: sequence, Buffer: tpm2.TPM2BMaxBuffer{Buffer: data}, Hierarchy: tpm2.TPMRHEndorsement,
	}.Execute(t)
	if err != nil {
		return nil, ticket, err
	}
	return done.Result.Buffer, done.Validation, nil
}
