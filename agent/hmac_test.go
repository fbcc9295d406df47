package agent_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"testing"

	"waxseal/agent"
	"waxseal/agent/enrollz"
	"waxseal/hw/tpm"
	"waxseal/hw/tpm/tpmtest"
	"waxseal/measure/csr"
	"waxseal/measure/devid"
	"waxseal/measure/wire"
)

// enroller lets a real chip prove its keys, as cmd/waxseald does.
type enroller struct{ *tpm.Device }

func (e enroller) CertifyByHMAC(ctx context.Context, c wire.HMACChallenge) (wire.HMACAnswer, error) {
	got, err := e.Device.CertifyByHMAC(ctx, tpm.Wrapped{Public: c.Public, Duplicate: c.Duplicate, Seed: c.Seed})
	if errors.Is(err, tpm.ErrWrapped) {
		err = fmt.Errorf("%w: %w", wire.ErrInvalid, err)
	}
	return wire.HMACAnswer{IAK: got.Public, Attest: got.Attest, Signature: got.Signature}, err
}

func (e enroller) Keys(ctx context.Context) (proof enrollz.Proof, err error) {
	for key, area := range map[tpm.Key]*[]byte{tpm.EK: &proof.EK, tpm.IAK: &proof.IAK, tpm.IDevID: &proof.IDevID} {
		if *area, err = e.Area(ctx, key); err != nil {
			return proof, err
		}
	}
	proof.Attest, proof.Signature, err = e.Certify(ctx, tpm.IDevID, nil)
	return proof, err
}

func (e enroller) Sign(ctx context.Context, content []byte) ([]byte, error) {
	return e.SignContent(ctx, content)
}

// bare is a router that left the factory with keys and without certificates.
type bare struct {
	*lab
	device *tpm.Device
	loaded func() int // objects and sessions in the TPM
}

func newBare(t *testing.T, changes ...func(*agent.Config)) bare {
	t.Helper()
	p := tpmtest.Run(t, t.TempDir())
	d := tpmtest.Open(t, p)
	for _, k := range []tpm.Key{tpm.IAK, tpm.IDevID} {
		if err := d.CreateKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	without := func(c *agent.Config) { c.IAKCert, c.IDevIDCert, c.Enroller = nil, nil, enroller{d} }
	return bare{newLab(t, realChip{d}, append([]func(*agent.Config){without}, changes...)...), d, func() int { return tpmtest.Loaded(t, p) }}
}

func (b bare) challenge(t *testing.T) wire.HMACChallenge {
	t.Helper()
	ek, err := b.device.Area(t.Context(), tpm.EK)
	if err != nil {
		t.Fatal(err)
	}
	w := tpmtest.NewHMACKey().WrapFor(t, ek)
	return wire.HMACChallenge{Select: active, Parent: wire.ParentEK, Public: w.Public, Duplicate: w.Duplicate, Seed: w.Seed}
}

var p384 = wire.CSRRequest{Select: active, Parent: wire.ParentEK, Template: wire.TemplateP384}

// A device without certificates proves where its keys are, gets the owner's,
// and shows them at once.
func TestDeviceWithoutCertificatesIsEnrolled(t *testing.T) {
	b := newBare(t)
	conn := b.dial(t, b.owner.client(t))
	if _, err := conn.Enrollz().IAKCert(t.Context(), active); !errors.Is(err, wire.ErrNotReady) {
		t.Errorf("the maker's certificates: %v: want ErrNotReady", err)
	}
	word, err := conn.Enrollz().Challenge(t.Context(), b.challenge(t))
	if err != nil {
		t.Fatal(err)
	}
	iak, err := devid.Parse(devid.IAK, word.IAK[2:])
	if err != nil {
		t.Fatal(err)
	}
	if err := iak.CertifiedByHMAC(tpmtest.NewHMACKey().Secret, word.Attest[2:], word.Signature); err != nil {
		t.Fatal(err)
	}
	ans, err := conn.Enrollz().IDevIDCSR(t.Context(), p384)
	if err != nil {
		t.Fatal(err)
	}
	content, err := csr.Parse(ans.Content)
	if err != nil {
		t.Fatal(err)
	}
	idevid, err := devid.Parse(devid.IDevID, content.IDevID)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(idevid.CertifiedBy(iak, content.IDevIDAttest, content.IDevIDProof), idevid.Signed(ans.Content, ans.Signature)); err != nil {
		t.Fatal(err)
	}
	if ek, err := b.device.Area(t.Context(), tpm.EK); err != nil || content.Serial != serial || content.Model != card.Part || ans.Card != card || !bytes.Equal(content.EK, ek) {
		t.Errorf("request of %q, model %q, card %+v, %v", content.Serial, content.Model, ans.Card, err)
	}
	if !idevid.Public.Equal(ans.Peer[0].PublicKey) || ans.Peer[0].Subject.SerialNumber != "" {
		t.Errorf("TLS shows %v: want a certificate of the IDevID that names nobody", ans.Peer[0].Subject)
	}
	rot := b.rotation(t)
	if err := conn.Enrollz().RotateOIAK(t.Context(), rot); err != nil {
		t.Fatal(err)
	}
	fresh := b.dial(t, b.owner.client(t))
	att, err := fresh.Attestz().Attest(t.Context(), newRequest(t))
	if err != nil {
		t.Fatal(err)
	}
	if wire.ChainOf(att.Peer...).String() != rot.Updates[0].OIDevID.String() {
		t.Error("the next connection does not show the oIDevID certificate")
	}
	if n := b.loaded(); n != 0 {
		t.Errorf("%d objects and sessions are left in the TPM", n)
	}
	b.stop()
	b.start(t) // a reboot
	if !b.shownBy(t).Equal(att.Peer[0]) {
		t.Error("the oIDevID certificate is gone after a restart")
	}
}

// shownBy is the certificate at a new handshake; there is no IAK certificate
// to ask for.
func (b bare) shownBy(t *testing.T) *x509.Certificate {
	t.Helper()
	ans, err := b.dial(t, b.owner.client(t)).Enrollz().IDevIDCSR(t.Context(), p384)
	if err != nil {
		t.Fatal(err)
	}
	return ans.Peer[0]
}

// Whoever asks a device that has no owner learns what it is, and nothing is
// installed; it is not asked faster than its limit.
func TestDeviceWithoutOwnerProvesItsKeysToEveryone(t *testing.T) {
	b := newBare(t, func(c *agent.Config) { c.OwnerCA, c.Limits.ProofRate = nil, 1 })
	conn := b.dial(t, nil)
	if _, err := conn.Enrollz().Challenge(t.Context(), b.challenge(t)); err != nil {
		t.Error(err)
	}
	if _, err := conn.Enrollz().IDevIDCSR(t.Context(), p384); err != nil {
		t.Error(err)
	}
	if err := conn.Enrollz().RotateOIAK(t.Context(), b.rotation(t)); !errors.Is(err, wire.ErrDenied) {
		t.Errorf("RotateOIAK by a stranger: %v: want ErrDenied", err)
	}
	refused := false
	for range 8 {
		_, err := conn.Enrollz().IDevIDCSR(t.Context(), wire.CSRRequest{Select: active, Parent: wire.ParentEK, Template: 9})
		refused = refused || errors.Is(err, wire.ErrBusy)
	}
	if !refused {
		t.Error("one address may ask without a limit")
	}
}

func TestDeviceWithoutAKeyProvesNothing(t *testing.T) {
	l := newLab(t, newSoftChip(t))
	conn := l.dial(t, l.owner.client(t))
	if _, err := conn.Enrollz().Challenge(t.Context(), wire.HMACChallenge{Select: active, Parent: wire.ParentEK, Public: []byte{1}, Duplicate: []byte{1}, Seed: []byte{1}}); !errors.Is(err, wire.ErrNotReady) {
		t.Errorf("Challenge: %v: want ErrNotReady", err)
	}
	if _, err := conn.Enrollz().IDevIDCSR(t.Context(), p384); !errors.Is(err, wire.ErrNotReady) {
		t.Errorf("IDevIDCSR: %v: want ErrNotReady", err)
	}
}
