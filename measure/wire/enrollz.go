package wire

import (
	"context"
	"fmt"
	"slices"

	epb "github.com/openconfig/attestz/proto/tpm_enrollz"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
)

// EnrollServer is the device's half of enrollment, by the maker's certificates
// (IAKCert) or without them (Challenge, IDevIDCSR). It gets only requests whose
// form is good. The call for TPM 1.2 (RotateAIKCert) answers Unimplemented.
type EnrollServer interface {
	CardID(context.Context, Selection) (Card, error)
	IAKCert(context.Context, Selection) (IAKAnswer, error)
	// Challenge lets an HMAC key that somebody has wrapped for this TPM certify
	// the IAK. One that the TPM cannot take in is ErrInvalid.
	Challenge(context.Context, HMACChallenge) (HMACAnswer, error)
	// IDevIDCSR returns the request for an IDevID certificate. For a template or
	// parent that the device does not have it returns its card and ErrUnsupported.
	IDevIDCSR(context.Context, CSRRequest) (CSRAnswer, error)
	// RotateOIAK installs all of the rotation or nothing. When it returns
	// without an error, the certificates are persistent and in use.
	RotateOIAK(context.Context, Rotation) error
}

// RegisterEnrollz makes r serve enrollz by s.
func RegisterEnrollz(r grpc.ServiceRegistrar, s EnrollServer) {
	epb.RegisterTpmEnrollzServiceServer(r, enrollz{server: s})
}

type enrollz struct {
	epb.UnimplementedTpmEnrollzServiceServer
	server EnrollServer
}

func (e enrollz) GetControlCardVendorID(ctx context.Context, p *epb.GetControlCardVendorIDRequest) (*epb.GetControlCardVendorIDResponse, error) {
	sel, err := selectionOf(p.GetControlCardSelection())
	if err != nil {
		return nil, toStatus(err)
	}
	card, err := e.server.CardID(ctx, sel)
	if err != nil {
		return nil, toStatus(err)
	}
	return &epb.GetControlCardVendorIDResponse{ControlCardId: card.proto()}, nil
}

func (e enrollz) GetIakCert(ctx context.Context, p *epb.GetIakCertRequest) (*epb.GetIakCertResponse, error) {
	sel, err := selectionOf(p.GetControlCardSelection())
	if err != nil {
		return nil, toStatus(err)
	}
	ans, err := e.server.IAKCert(ctx, sel)
	if err != nil {
		return nil, toStatus(err)
	}
	return &epb.GetIakCertResponse{
		ControlCardId:               ans.Card.proto(),
		IakCert:                     ans.IAK.String(),
		IdevidCert:                  ans.IDevID.String(),
		AtomicCertRotationSupported: ans.Atomic,
	}, nil
}

func (e enrollz) RotateOIakCert(ctx context.Context, p *epb.RotateOIakCertRequest) (*epb.RotateOIakCertResponse, error) {
	rot, err := rotationOf(p)
	if err != nil {
		return nil, toStatus(err)
	}
	if err := e.server.RotateOIAK(ctx, rot); err != nil {
		return nil, toStatus(err)
	}
	return &epb.RotateOIakCertResponse{}, nil
}

// EnrollClient is the owner's half of enrollment.
type EnrollClient struct{ client epb.TpmEnrollzServiceClient }

// NewEnrollz returns a client over conn; see Dial.
func NewEnrollz(conn grpc.ClientConnInterface) EnrollClient {
	return EnrollClient{epb.NewTpmEnrollzServiceClient(conn)}
}

// CardID asks for the identity of a control card.
func (c EnrollClient) CardID(ctx context.Context, sel Selection) (Card, error) {
	p, err := sel.proto()
	if err != nil {
		return Card{}, err
	}
	resp, err := c.client.GetControlCardVendorID(ctx, &epb.GetControlCardVendorIDRequest{ControlCardSelection: p})
	if err != nil {
		return Card{}, fromStatus("GetControlCardVendorID", err)
	}
	card, err := cardOf(resp.GetControlCardId())
	if err != nil {
		return Card{}, fmt.Errorf("GetControlCardVendorID: %w: %w", ErrAnswer, err)
	}
	return card, nil
}

// IAKCert asks for the maker's certificates of a control card.
func (c EnrollClient) IAKCert(ctx context.Context, sel Selection) (IAKAnswer, error) {
	p, err := sel.proto()
	if err != nil {
		return IAKAnswer{}, err
	}
	var from peer.Peer
	resp, err := c.client.GetIakCert(ctx, &epb.GetIakCertRequest{ControlCardSelection: p}, grpc.Peer(&from), grpc.MaxCallRecvMsgSize(MaxAnswer))
	if err != nil {
		return IAKAnswer{}, fromStatus("GetIakCert", err)
	}
	ans, err := iakAnswerOf(resp)
	if err != nil {
		return IAKAnswer{}, fmt.Errorf("GetIakCert: %w: %w", ErrAnswer, err)
	}
	ans.Peer = certificatesOf(&from)
	return ans, nil
}

// RotateOIAK installs the owner's certificates.
func (c EnrollClient) RotateOIAK(ctx context.Context, rot Rotation) error {
	p, err := rot.proto()
	if err != nil {
		return err
	}
	_, err = c.client.RotateOIakCert(ctx, p)
	return fromStatus("RotateOIakCert", err)
}

func iakAnswerOf(p *epb.GetIakCertResponse) (IAKAnswer, error) {
	ans := IAKAnswer{Atomic: p.GetAtomicCertRotationSupported()}
	var err error
	if ans.Card, err = cardOf(p.GetControlCardId()); err != nil {
		return IAKAnswer{}, err
	}
	if ans.IAK, err = ParseChain(p.GetIakCert()); err != nil {
		return IAKAnswer{}, fmt.Errorf("iak_cert: %w", err)
	}
	if ans.IDevID, err = ParseChain(p.GetIdevidCert()); err != nil {
		return IAKAnswer{}, fmt.Errorf("idevid_cert: %w", err)
	}
	return ans, nil
}

// maxUpdates bounds the control cards of one rotation.
const maxUpdates = 8

// rotationOf reads updates and the deprecated single fields. A client may
// send both for the sake of old devices, but then they must say the same.
func rotationOf(p *epb.RotateOIakCertRequest) (Rotation, error) {
	rot := Rotation{Profile: p.GetSslProfileId()}
	if n := len(p.GetUpdates()); n > maxUpdates {
		return Rotation{}, fmt.Errorf("%w: %d updates: at most %d", ErrInvalid, n, maxUpdates)
	}
	for i, u := range p.GetUpdates() {
		up, err := updateOf(u)
		if err != nil {
			return Rotation{}, fmt.Errorf("updates[%d]: %w", i, err)
		}
		rot.Updates = append(rot.Updates, up)
	}
	if old := oldUpdate(p); old != nil {
		single, err := updateOf(old)
		if err != nil {
			return Rotation{}, err
		}
		switch {
		case len(rot.Updates) == 0:
			rot.Updates = []Update{single}
		case len(rot.Updates) > 1 || !rot.Updates[0].equal(single):
			return Rotation{}, fmt.Errorf("%w: updates and the deprecated single fields differ", ErrInvalid)
		}
	}
	return rot, rot.check()
}

func updateOf(p *epb.ControlCardCertUpdate) (Update, error) {
	var u Update
	var err error
	if u.Select, err = selectionOf(p.GetControlCardSelection()); err != nil {
		return Update{}, err
	}
	if u.OIAK, err = ParseChain(p.GetOiakCert()); err != nil {
		return Update{}, fmt.Errorf("oiak_cert: %w", err)
	}
	if u.OIDevID, err = ParseChain(p.GetOidevidCert()); err != nil {
		return Update{}, fmt.Errorf("oidevid_cert: %w", err)
	}
	return u, nil
}

func (u Update) equal(v Update) bool {
	return u.Select == v.Select && slices.Equal(u.OIAK, v.OIAK) && slices.Equal(u.OIDevID, v.OIDevID)
}

func (r Rotation) check() error {
	if len(r.Updates) == 0 {
		return fmt.Errorf("%w: no updates", ErrInvalid)
	}
	if err := checkText("ssl_profile_id", r.Profile); err != nil {
		return err
	}
	for i, u := range r.Updates {
		if len(u.OIAK) == 0 {
			return fmt.Errorf("%w: updates[%d]: no oiak_cert", ErrInvalid, i)
		}
		if len(u.OIDevID) > 0 && r.Profile == "" {
			return fmt.Errorf("%w: updates[%d]: an oidevid_cert needs ssl_profile_id", ErrInvalid, i)
		}
	}
	return nil
}

func (r Rotation) proto() (*epb.RotateOIakCertRequest, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	p := &epb.RotateOIakCertRequest{SslProfileId: r.Profile}
	for i, u := range r.Updates {
		sel, err := u.Select.proto()
		if err != nil {
			return nil, fmt.Errorf("updates[%d]: %w", i, err)
		}
		p.Updates = append(p.Updates, &epb.ControlCardCertUpdate{
			ControlCardSelection: sel,
			OiakCert:             u.OIAK.String(),
			OidevidCert:          u.OIDevID.String(),
		})
	}
	return p, nil
}
