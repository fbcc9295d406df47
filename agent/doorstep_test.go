package agent_test

import (
	"bytes"
	"crypto/ecdsa"
	"errors"
	"testing"

	"waxseal/agent"
	"waxseal/measure"
	"waxseal/measure/wire"
)

func proofRequest() wire.ProofRequest {
	return wire.ProofRequest{
		Nonce: bytes.Repeat([]byte{1}, 32), Bank: measure.SHA384, PCRs: []measure.PCR{12},
		IAK: wire.Credential{Blob: []byte("b"), Secret: []byte("s")}, IDevID: wire.Credential{Blob: []byte("b"), Secret: []byte("s")},
	}
}

// Whoever holds the cable cannot keep a slow TPM busy with proofs.
func TestProofsOfOnePeerAreRateLimited(t *testing.T) {
	c := newSoftChip(t)
	l := newLab(t, c, func(c *agent.Config) { c.OwnerCA, c.Limits.ProofRate = nil, 0.5 })
	conn := l.dial(t, nil)
	for i := range 2 { // the burst is four seconds' worth
		if _, err := conn.Delivery().Prove(t.Context(), proofRequest()); !errors.Is(err, wire.ErrNotReady) {
			t.Fatalf("proof %d of a device whose TPM proves nothing: %v", i, err)
		}
	}
	if _, err := conn.Delivery().Prove(t.Context(), proofRequest()); !errors.Is(err, wire.ErrBusy) {
		t.Errorf("third proof: %v: want ErrBusy", err)
	}
	if _, err := conn.Delivery().Identify(t.Context()); err != nil {
		t.Errorf("who it is can still be asked: %v", err)
	}
	if n := c.quotes.Load(); n != 0 {
		t.Errorf("%d quotes were taken", n)
	}
}

func TestDeviceShowsItsKeysToItsBuyer(t *testing.T) {
	areas := agent.Areas{EK: []byte("ek"), IAK: []byte("iak"), IDevID: []byte("idevid"), SRK: []byte("srk")}
	l := newLab(t, newSoftChip(t), func(c *agent.Config) { c.OwnerCA, c.Areas, c.EKCerts = nil, areas, c.IAKCert })
	id, err := l.dial(t, nil).Delivery().Identify(t.Context())
	if err != nil || id.Card != card || string(id.SRK) != "srk" || len(id.EKCerts) != 1 || len(id.IDevIDCert) != 1 {
		t.Errorf("identity %+v, %v", id, err)
	}
	_, idevid := l.chip.keys(t)
	if len(id.Peer) == 0 || !idevid.Public().(*ecdsa.PublicKey).Equal(id.Peer[0].PublicKey) {
		t.Error("the session is not with the IDevID")
	}
}
