// Package eattest makes tokens of a router in software, for tests.
package eattest

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha512"
	"encoding/pem"
	"errors"

	"waxseal/measure/eat"
	"waxseal/measure/evidence"
)

// Of returns the token of a raw answer.
func Of(ev evidence.Evidence) (eat.Token, error) {
	t := eat.Token{
		Nonce: ev.Nonce, Issued: ev.Received.Unix(), Card: ev.Card, Bank: ev.Bank, PCRs: ev.PCRs,
		Quoted: ev.Quoted, Signature: ev.Signature, Log: ev.Log,
	}
	for _, text := range ev.Certificates.OIAK {
		block, _ := pem.Decode([]byte(text))
		if block == nil {
			return t, errors.New("certificate is no PEM")
		}
		t.Chain = append(t.Chain, block.Bytes)
	}
	return t, nil
}

// Sign signs as the TPM of the key would.
func Sign(key *ecdsa.PrivateKey) eat.Sign {
	return func(data []byte) ([]byte, error) {
		sum := sha512.Sum384(data)
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			return nil, err
		}
		half := eat.SignatureSize / 2
		out := make([]byte, eat.SignatureSize)
		r.FillBytes(out[:half])
		s.FillBytes(out[half:])
		return out, nil
	}
}
