package agent_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"os"
	"testing"

	cpb "github.com/openconfig/attestz/proto/common_definitions"
	apb "github.com/openconfig/attestz/proto/tpm_attestz"
	epb "github.com/openconfig/attestz/proto/tpm_enrollz"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waxseal/hw/tpm"
	"waxseal/hw/tpm/tpmtest"
	"waxseal/measure/wire"
)

// profile is one case of the test plans attestz-1 and enrollz-1 of
// openconfig/featureprofiles that a device has to refuse: who asks, what, and
// with which error.
type profile struct {
	name string
	ask  func(*testing.T, bare, wire.Conn) error
	want error
}

// rotated is a rotation with one thing wrong.
func rotated(change func(t *testing.T, b bare, r *wire.Rotation)) func(*testing.T, bare, wire.Conn) error {
	return func(t *testing.T, b bare, conn wire.Conn) error {
		r := b.rotation(t)
		change(t, b, &r)
		return conn.Enrollz().RotateOIAK(t.Context(), r)
	}
}

// challenged is an HMAC challenge with one thing wrong.
func challenged(change func(t *testing.T, c *wire.HMACChallenge)) func(*testing.T, bare, wire.Conn) error {
	return func(t *testing.T, b bare, conn wire.Conn) error {
		c := b.challenge(t)
		change(t, &c)
		_, err := conn.Enrollz().Challenge(t.Context(), c)
		return err
	}
}

// requested is a request for the CSR with one thing wrong.
func requested(change func(*wire.CSRRequest)) func(*testing.T, bare, wire.Conn) error {
	return func(t *testing.T, _ bare, conn wire.Conn) error {
		r := p384
		change(&r)
		_, err := conn.Enrollz().IDevIDCSR(t.Context(), r)
		return err
	}
}

// raw asks with a message that our own client would not send.
func raw(call func(context.Context, wire.Conn) error) func(*testing.T, bare, wire.Conn) error {
	return func(t *testing.T, _ bare, conn wire.Conn) error {
		err := call(t.Context(), conn)
		if status.Code(err) == codes.InvalidArgument && status.Convert(err).Message() != "" {
			return wire.ErrInvalid
		}
		return err
	}
}

// enrolled is raw for enrollz.
func enrolled(call func(context.Context, epb.TpmEnrollzServiceClient) error) func(*testing.T, bare, wire.Conn) error {
	return raw(func(ctx context.Context, conn wire.Conn) error {
		return call(ctx, epb.NewTpmEnrollzServiceClient(conn.ClientConn))
	})
}

// attested is raw for attestz, with one thing wrong.
func attested(change func(*apb.AttestRequest)) func(*testing.T, bare, wire.Conn) error {
	return raw(func(ctx context.Context, conn wire.Conn) error {
		r := &apb.AttestRequest{
			ControlCardSelection: role(cpb.ControlCardRole_CONTROL_CARD_ROLE_ACTIVE), Nonce: make([]byte, 32),
			HashAlgo: cpb.Tpm20HashAlgo_TPM_2_0_HASH_ALGO_SHA384, PcrIndices: []int32{0, 12},
		}
		change(r)
		_, err := apb.NewTpmAttestzServiceClient(conn.ClientConn).Attest(ctx, r)
		return err
	})
}

func role(r cpb.ControlCardRole) *cpb.ControlCardSelection {
	return &cpb.ControlCardSelection{ControlCardId: &cpb.ControlCardSelection_Role{Role: r}}
}

func bySerial(serial string) *cpb.ControlCardSelection {
	return &cpb.ControlCardSelection{ControlCardId: &cpb.ControlCardSelection_Serial{Serial: serial}}
}

// of changes the one update of a rotation, given the device's two keys.
func of(change func(t *testing.T, b bare, u *wire.Update, iak, idevid *ecdsa.PublicKey)) func(*testing.T, bare, wire.Conn) error {
	return rotated(func(t *testing.T, b bare, r *wire.Rotation) {
		iak, idevid := b.chip.keys(t)
		change(t, b, &r.Updates[0], iak, idevid.Public().(*ecdsa.PublicKey))
	})
}

func chainOf(c ...*x509.Certificate) wire.Chain { return wire.ChainOf(c...) }

// unsigned returns the certificate with one bit of its signature changed.
func unsigned(t *testing.T, c *x509.Certificate) wire.Chain {
	t.Helper()
	raw := bytes.Clone(c.Raw)
	raw[len(raw)-1] ^= 1
	broken, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return chainOf(broken)
}

var (
	elsewhere = wire.Selection{Serial: "WX-0002"}
	standby   = wire.Selection{Role: wire.Standby}
	malformed = wire.Chain{"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}
)

var profiles = []profile{
	{"attestz-1.2: no IAK certificate in the device", func(t *testing.T, _ bare, c wire.Conn) error {
		_, err := c.Enrollz().IAKCert(t.Context(), active)
		return err
	}, wire.ErrNotReady},
	{"attestz-1.3: GetIakCert for another serial", func(t *testing.T, _ bare, c wire.Conn) error {
		_, err := c.Enrollz().IAKCert(t.Context(), elsewhere)
		return err
	}, wire.ErrInvalid},
	{"attestz-1.3: GetIakCert for another slot", func(t *testing.T, _ bare, c wire.Conn) error {
		_, err := c.Enrollz().IAKCert(t.Context(), wire.Selection{Slot: "9"})
		return err
	}, wire.ErrInvalid},
	{"attestz-1.3: GetIakCert for no card", enrolled(func(ctx context.Context, c epb.TpmEnrollzServiceClient) error {
		_, err := c.GetIakCert(ctx, &epb.GetIakCertRequest{})
		return err
	}), wire.ErrInvalid},
	{"attestz-1.3: GetIakCert for role 0", enrolled(func(ctx context.Context, c epb.TpmEnrollzServiceClient) error {
		_, err := c.GetIakCert(ctx, &epb.GetIakCertRequest{ControlCardSelection: role(0)})
		return err
	}), wire.ErrInvalid},
	{"attestz-1.3: RotateOIakCert for no card", enrolled(func(ctx context.Context, c epb.TpmEnrollzServiceClient) error {
		_, err := c.RotateOIakCert(ctx, &epb.RotateOIakCertRequest{Updates: []*epb.ControlCardCertUpdate{{OiakCert: "x"}}})
		return err
	}), wire.ErrInvalid},
	{"attestz-1.3: Attest for no card", attested(func(r *apb.AttestRequest) { r.ControlCardSelection = nil }), wire.ErrInvalid},
	{"attestz-1.3: Attest for another serial", attested(func(r *apb.AttestRequest) { r.ControlCardSelection = bySerial("WX-0002") }), wire.ErrInvalid},
	{"attestz-1.3: Attest for a standby card", attested(func(r *apb.AttestRequest) { r.ControlCardSelection = role(2) }), wire.ErrInvalid},
	{"attestz-1.7: repeated PCRs", attested(func(r *apb.AttestRequest) { r.PcrIndices = []int32{1, 2, 1} }), wire.ErrInvalid},
	{"attestz-1.7: a PCR out of range", attested(func(r *apb.AttestRequest) { r.PcrIndices = []int32{24} }), wire.ErrInvalid},
	{"attestz-1.7: a negative PCR", attested(func(r *apb.AttestRequest) { r.PcrIndices = []int32{-1} }), wire.ErrInvalid},
	{"attestz-1.7: no PCR", attested(func(r *apb.AttestRequest) { r.PcrIndices = nil }), wire.ErrInvalid},

	{"enrollz-1.4: vendor ID of no card", enrolled(func(ctx context.Context, c epb.TpmEnrollzServiceClient) error {
		_, err := c.GetControlCardVendorID(ctx, &epb.GetControlCardVendorIDRequest{})
		return err
	}), wire.ErrInvalid},
	{"enrollz-1.5: vendor ID of a card that is not there", func(t *testing.T, _ bare, c wire.Conn) error {
		_, err := c.Enrollz().CardID(t.Context(), standby)
		return err
	}, wire.ErrInvalid},
	{"enrollz-1.6: challenge of no card", enrolled(func(ctx context.Context, c epb.TpmEnrollzServiceClient) error {
		_, err := c.Challenge(ctx, &epb.ChallengeRequest{Key: epb.Key_KEY_EK})
		return err
	}), wire.ErrInvalid},
	{"enrollz-1.7: challenge of a card that is not there", challenged(func(_ *testing.T, c *wire.HMACChallenge) { c.Select = standby }), wire.ErrInvalid},
	{"enrollz-1.8: challenge for no key", challenged(func(_ *testing.T, c *wire.HMACChallenge) { c.Parent = 0 }), wire.ErrInvalid},
	{"enrollz-1.9: challenge without a public area", challenged(func(_ *testing.T, c *wire.HMACChallenge) { c.Public = nil }), wire.ErrInvalid},
	{"enrollz-1.10: challenge without a duplicate", challenged(func(_ *testing.T, c *wire.HMACChallenge) { c.Duplicate = nil }), wire.ErrInvalid},
	{"enrollz-1.11: challenge without a seed", challenged(func(_ *testing.T, c *wire.HMACChallenge) { c.Seed = nil }), wire.ErrInvalid},
	{"enrollz-1.12: malformed public area", challenged(func(_ *testing.T, c *wire.HMACChallenge) { c.Public[3] ^= 0xff }), wire.ErrInvalid},
	{"enrollz-1.12: unique of another key", challenged(func(_ *testing.T, c *wire.HMACChallenge) { c.Public[len(c.Public)-1] ^= 1 }), wire.ErrInvalid},
	{"enrollz-1.13: malformed duplicate", challenged(func(_ *testing.T, c *wire.HMACChallenge) { c.Duplicate[40] ^= 1 }), wire.ErrInvalid},
	{"enrollz-1.14: malformed seed", challenged(func(_ *testing.T, c *wire.HMACChallenge) { c.Seed[40] ^= 1 }), wire.ErrInvalid},
	{"enrollz-1.15: wrapped for another EK", challenged(func(t *testing.T, c *wire.HMACChallenge) {
		ek, err := tpmtest.Swtpm(t).Area(t.Context(), tpm.EK)
		if err != nil {
			t.Fatal(err)
		}
		w := tpmtest.NewHMACKey().WrapFor(t, ek)
		c.Public, c.Duplicate, c.Seed = w.Public, w.Duplicate, w.Seed
	}), wire.ErrInvalid},
	{"enrollz-1.16: wrapped for a PPK, which is not here", challenged(func(_ *testing.T, c *wire.HMACChallenge) { c.Parent = wire.ParentPPK }), wire.ErrInvalid},
	{"enrollz-1.17: request of no card", enrolled(func(ctx context.Context, c epb.TpmEnrollzServiceClient) error {
		_, err := c.GetIdevidCsr(ctx, &epb.GetIdevidCsrRequest{Key: epb.Key_KEY_EK, KeyTemplate: 1})
		return err
	}), wire.ErrInvalid},
	{"enrollz-1.18: request of a card that is not there", requested(func(r *wire.CSRRequest) { r.Select = elsewhere }), wire.ErrInvalid},
	{"enrollz-1.19: request for no key", requested(func(r *wire.CSRRequest) { r.Parent = 0 }), wire.ErrInvalid},
	{"enrollz-1.20: request with an unknown template", requested(func(r *wire.CSRRequest) { r.Template = 7 }), wire.ErrUnsupported},
	{"enrollz-1.20: request with no template", requested(func(r *wire.CSRRequest) { r.Template = 0 }), wire.ErrUnsupported},
	{"enrollz-1.20: request under a PPK", requested(func(r *wire.CSRRequest) { r.Parent = wire.ParentPPK }), wire.ErrUnsupported},

	{"enrollz-1.21: rotation of a card that is not there", rotated(func(_ *testing.T, _ bare, r *wire.Rotation) { r.Updates[0].Select = elsewhere }), wire.ErrInvalid},
	{"enrollz-1.21: a good and a bad card in one rotation", rotated(func(t *testing.T, b bare, r *wire.Rotation) {
		bad := b.rotation(t).Updates[0]
		bad.Select = standby
		r.Updates = append(r.Updates, bad)
	}), wire.ErrInvalid},
	{"enrollz-1.22: an oIDevID without a profile", func(t *testing.T, b bare, conn wire.Conn) error {
		u := b.rotation(t).Updates[0]
		return enrolled(func(ctx context.Context, c epb.TpmEnrollzServiceClient) error {
			_, err := c.RotateOIakCert(ctx, &epb.RotateOIakCertRequest{Updates: []*epb.ControlCardCertUpdate{{
				ControlCardSelection: role(1), OiakCert: u.OIAK.String(), OidevidCert: u.OIDevID.String(),
			}}})
			return err
		})(t, b, conn)
	}, wire.ErrInvalid},
	{"enrollz-1.23: malformed oIAK", of(func(_ *testing.T, _ bare, u *wire.Update, _, _ *ecdsa.PublicKey) { u.OIAK = malformed }), wire.ErrInvalid},
	{"enrollz-1.24: oIAK of another key", of(func(t *testing.T, b bare, u *wire.Update, _, _ *ecdsa.PublicKey) {
		u.OIAK = chainOf(b.owner.device(t, newKey(t).Public()))
	}), wire.ErrInvalid},
	{"enrollz-1.24: oIAK of the IDevID", of(func(t *testing.T, b bare, u *wire.Update, _, idevid *ecdsa.PublicKey) {
		u.OIAK = chainOf(b.owner.device(t, idevid))
	}), wire.ErrInvalid},
	{"enrollz-1.25: oIAK with a bad signature", of(func(t *testing.T, b bare, u *wire.Update, iak, _ *ecdsa.PublicKey) {
		u.OIAK = unsigned(t, b.owner.device(t, iak))
	}), wire.ErrInvalid},
	{"enrollz-1.25: oIAK of an untrusted owner", of(func(t *testing.T, b bare, u *wire.Update, iak, _ *ecdsa.PublicKey) {
		u.OIAK = chainOf(b.stranger.device(t, iak), b.stranger.cert)
	}), wire.ErrInvalid},
	{"enrollz-1.26: malformed oIDevID", of(func(_ *testing.T, _ bare, u *wire.Update, _, _ *ecdsa.PublicKey) { u.OIDevID = malformed }), wire.ErrInvalid},
	{"enrollz-1.27: oIDevID of another key", of(func(t *testing.T, b bare, u *wire.Update, _, _ *ecdsa.PublicKey) {
		u.OIDevID = chainOf(b.owner.device(t, newKey(t).Public()))
	}), wire.ErrInvalid},
	{"enrollz-1.27: oIDevID of the IAK", of(func(t *testing.T, b bare, u *wire.Update, iak, _ *ecdsa.PublicKey) {
		u.OIDevID = chainOf(b.owner.device(t, iak))
	}), wire.ErrInvalid},
	{"enrollz-1.28: oIDevID with a bad signature", of(func(t *testing.T, b bare, u *wire.Update, _, idevid *ecdsa.PublicKey) {
		u.OIDevID = unsigned(t, b.owner.device(t, idevid))
	}), wire.ErrInvalid},
	{"enrollz-1.28: oIDevID of an untrusted owner", of(func(t *testing.T, b bare, u *wire.Update, _, idevid *ecdsa.PublicKey) {
		u.OIDevID = chainOf(b.stranger.device(t, idevid))
	}), wire.ErrInvalid},
	{"enrollz-1.3, attestz-1.2.3: an untrusted owner", func(t *testing.T, b bare, _ wire.Conn) error {
		return b.dial(t, b.stranger.client(t)).Enrollz().RotateOIAK(t.Context(), b.rotation(t))
	}, wire.ErrRetry},
	{"enrollz-1.3, attestz-1.3.3: nobody's client", func(t *testing.T, b bare, _ wire.Conn) error {
		_, err := b.dial(t, nil).Attestz().Attest(t.Context(), newRequest(t))
		return err
	}, wire.ErrRetry},
}

// Every case is asked of one device that was enrolled. All are refused, each is
// rolled back, and the TPM is left clean.
func TestTestPlansOfFeatureprofilesAreRefused(t *testing.T) {
	b := newBare(t)
	installed := b.rotation(t)
	conn := b.dial(t, b.owner.client(t))
	if err := conn.Enrollz().RotateOIAK(t.Context(), installed); err != nil {
		t.Fatal(err)
	}
	stored, err := os.ReadFile(b.config.State + "/enrollment.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range profiles {
		t.Run(p.name, func(t *testing.T) {
			if err := p.ask(t, b, conn); !errors.Is(err, p.want) {
				t.Errorf("%v, want: %v", err, p.want)
			}
			if n := b.loaded(); n != 0 {
				t.Errorf("%d objects and sessions are left in the TPM", n)
			}
			if now, err := os.ReadFile(b.config.State + "/enrollment.json"); err != nil || !bytes.Equal(now, stored) {
				t.Errorf("the stored certificates were changed: %v", err)
			}
			if shown := wire.ChainOf(b.shownBy(t)).String(); shown != installed.Updates[0].OIDevID.String() {
				t.Error("the certificate of TLS was changed")
			}
		})
	}
	ans, err := b.dial(t, b.owner.client(t)).Attestz().Attest(t.Context(), newRequest(t))
	if err != nil || ans.OIAK.String() != installed.Updates[0].OIAK.String() {
		t.Errorf("after all that: %v", err)
	}
}

// attestz-1.5 and enrollz-1.30: reboot; attestz-1.6: factory reset; enrollz-1.31:
// a reboot between the request and the rotation.
func TestTestPlansOfFeatureprofilesSurviveReboots(t *testing.T) {
	b := newBare(t)
	reboot := func() {
		b.stop()
		b.start(t)
	}
	owner := func() wire.Conn { return b.dial(t, b.owner.client(t)) }
	before, err := owner().Enrollz().IDevIDCSR(t.Context(), p384)
	if err != nil {
		t.Fatal(err)
	}
	reboot()
	after, err := owner().Enrollz().IDevIDCSR(t.Context(), p384)
	if err != nil || !before.Peer[0].PublicKey.(*ecdsa.PublicKey).Equal(after.Peer[0].PublicKey) {
		t.Fatalf("request after a reboot: %v", err)
	}
	rot := b.rotation(t)
	if err := owner().Enrollz().RotateOIAK(t.Context(), rot); err != nil {
		t.Fatal(err)
	}
	reboot()
	ans, err := owner().Attestz().Attest(t.Context(), newRequest(t))
	if err != nil || ans.OIAK.String() != rot.Updates[0].OIAK.String() || wire.ChainOf(ans.Peer...).String() != rot.Updates[0].OIDevID.String() {
		t.Fatalf("after a reboot: %v", err)
	}
	b.stop()
	if err := os.RemoveAll(b.config.State); err != nil { // factory reset
		t.Fatal(err)
	}
	b.start(t)
	if _, err := owner().Attestz().Attest(t.Context(), newRequest(t)); !errors.Is(err, wire.ErrNotReady) {
		t.Errorf("Attest after a factory reset: %v: want ErrNotReady", err)
	}
	reset, err := owner().Enrollz().IDevIDCSR(t.Context(), p384)
	if err != nil || !before.Peer[0].PublicKey.(*ecdsa.PublicKey).Equal(reset.Peer[0].PublicKey) {
		t.Errorf("the keys after a factory reset: %v", err)
	}
	if err := owner().Enrollz().RotateOIAK(t.Context(), b.rotation(t)); err != nil {
		t.Errorf("enrolled again: %v", err)
	}
}
