package wire

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	epb "github.com/openconfig/attestz/proto/tpm_enrollz"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
)

// ErrUnsupported means that a device does not do what was asked and says so:
// STATUS_UNSUPPORTED in an answer, not a failed call.
var ErrUnsupported = errors.New("the device does not support this")

// MaxCSR is the largest TCG-CSR-IDEVID, in bytes.
const MaxCSR = 32 << 10

// Parent is the key of a TPM that a secret is wrapped for.
type Parent int32

// The parents of enrollz Key.
const (
	ParentEK  Parent = 1 // endorsement key
	ParentPPK Parent = 2 // platform primary key
)

// Template is the TCG template that IAK and IDevID are made from.
type Template int32

// TemplateP384 is ECC_NIST_P384, the only one that attestz has.
const TemplateP384 Template = 1

// HMACChallenge gives a TPM an HMAC key that only this TPM can unwrap.
type HMACChallenge struct {
	Select    Selection
	Parent    Parent
	Public    []byte // TPM2B_PUBLIC
	Duplicate []byte // TPM2B_PRIVATE
	Seed      []byte // TPM2B_ENCRYPTED_SECRET
}

// HMACAnswer holds the IAK and the word of the HMAC key that it is in the TPM.
type HMACAnswer struct {
	IAK       []byte // TPM2B_PUBLIC
	Attest    []byte // TPM2B_ATTEST
	Signature []byte // TPMT_SIGNATURE
}

// CSRRequest asks for the request for an IDevID certificate.
type CSRRequest struct {
	Select   Selection
	Parent   Parent
	Template Template
}

// CSRAnswer is a device's request for an IDevID certificate.
type CSRAnswer struct {
	Card      Card
	Content   []byte // TCG_CSR_IDEVID_CONTENT
	Signature []byte // TPMT_SIGNATURE of the IDevID over Content

	Peer []*x509.Certificate // as in AttestAnswer
}

// Challenge implements the generated server interface.
func (e enrollz) Challenge(ctx context.Context, p *epb.ChallengeRequest) (*epb.ChallengeResponse, error) {
	c, err := challengeOf(p)
	if err != nil {
		return nil, toStatus(err)
	}
	ans, err := e.server.Challenge(ctx, c)
	if err != nil {
		return nil, toStatus(err)
	}
	return &epb.ChallengeResponse{ChallengeResp: &epb.HMACChallengeResponse{
		IakPub: ans.IAK, IakCertifyInfo: ans.Attest, IakCertifyInfoSignature: ans.Signature,
	}}, nil
}

// GetIdevidCsr implements the generated server interface. What the device does
// not support it says in the answer.
func (e enrollz) GetIdevidCsr(ctx context.Context, p *epb.GetIdevidCsrRequest) (*epb.GetIdevidCsrResponse, error) {
	r := CSRRequest{Parent: Parent(p.GetKey()), Template: Template(p.GetKeyTemplate())}
	var err error
	if r.Select, err = selectionOf(p.GetControlCardSelection()); err != nil {
		return nil, toStatus(err)
	}
	if r.Parent <= 0 {
		return nil, toStatus(fmt.Errorf("%w: key: need KEY_EK", ErrInvalid))
	}
	ans, err := e.server.IDevIDCSR(ctx, r)
	if errors.Is(err, ErrUnsupported) {
		return &epb.GetIdevidCsrResponse{ControlCardId: ans.Card.proto(), Status: epb.Status_STATUS_UNSUPPORTED}, nil
	}
	if err != nil {
		return nil, toStatus(err)
	}
	return &epb.GetIdevidCsrResponse{
		ControlCardId: ans.Card.proto(),
		CsrResponse:   &epb.CsrResponse{CsrContents: ans.Content, IdevidSignatureCsr: ans.Signature},
		Status:        epb.Status_STATUS_SUCCESS,
	}, nil
}

// challengeOf checks the form: every structure is there and within bounds.
// Whether the TPM can take it in, only the TPM can tell.
func challengeOf(p *epb.ChallengeRequest) (HMACChallenge, error) {
	h := p.GetChallenge()
	c := HMACChallenge{Parent: Parent(p.GetKey()), Public: h.GetHmacPubKey(), Duplicate: h.GetDuplicate(), Seed: h.GetInSymSeed()}
	var err error
	if c.Select, err = selectionOf(p.GetControlCardSelection()); err != nil {
		return c, err
	}
	if c.Parent <= 0 {
		return c, fmt.Errorf("%w: key: need KEY_EK", ErrInvalid)
	}
	return c, checkStructures(
		structureField{"challenge.hmac_pub_key", c.Public},
		structureField{"challenge.duplicate", c.Duplicate},
		structureField{"challenge.in_sym_seed", c.Seed})
}

type structureField struct {
	name  string
	bytes []byte
}

func checkStructures(fields ...structureField) error {
	for _, f := range fields {
		if n := len(f.bytes); n == 0 || n > maxStructure {
			return fmt.Errorf("%w: %s of %d bytes: need 1 to %d", ErrInvalid, f.name, n, maxStructure)
		}
	}
	return nil
}

// Challenge gives the device an HMAC key and returns what it says of the IAK.
func (c EnrollClient) Challenge(ctx context.Context, h HMACChallenge) (HMACAnswer, error) {
	sel, err := h.Select.proto()
	if err != nil {
		return HMACAnswer{}, err
	}
	resp, err := c.client.Challenge(ctx, &epb.ChallengeRequest{
		ControlCardSelection: sel, Key: epb.Key(h.Parent),
		Challenge: &epb.HMACChallenge{HmacPubKey: h.Public, Duplicate: h.Duplicate, InSymSeed: h.Seed},
	})
	if err != nil {
		return HMACAnswer{}, fromStatus("Challenge", err)
	}
	r := resp.GetChallengeResp()
	ans := HMACAnswer{IAK: r.GetIakPub(), Attest: r.GetIakCertifyInfo(), Signature: r.GetIakCertifyInfoSignature()}
	err = checkStructures(
		structureField{"iak_pub", ans.IAK},
		structureField{"iak_certify_info", ans.Attest},
		structureField{"iak_certify_info_signature", ans.Signature})
	if err != nil {
		return HMACAnswer{}, fmt.Errorf("Challenge: %w: %w", ErrAnswer, err)
	}
	return ans, nil
}

// IDevIDCSR asks for the request for an IDevID certificate. A device that does
// not know the template answers ErrUnsupported.
func (c EnrollClient) IDevIDCSR(ctx context.Context, r CSRRequest) (CSRAnswer, error) {
	sel, err := r.Select.proto()
	if err != nil {
		return CSRAnswer{}, err
	}
	var from peer.Peer
	resp, err := c.client.GetIdevidCsr(ctx, &epb.GetIdevidCsrRequest{
		ControlCardSelection: sel, Key: epb.Key(r.Parent), KeyTemplate: epb.KeyTemplate(r.Template),
	}, grpc.Peer(&from))
	if err != nil {
		return CSRAnswer{}, fromStatus("GetIdevidCsr", err)
	}
	switch status := resp.GetStatus(); status {
	case epb.Status_STATUS_SUCCESS:
	case epb.Status_STATUS_UNSUPPORTED:
		return CSRAnswer{}, fmt.Errorf("GetIdevidCsr: %w", ErrUnsupported)
	default:
		return CSRAnswer{}, fmt.Errorf("GetIdevidCsr: %w: status %d", ErrAnswer, status)
	}
	ans := CSRAnswer{Content: resp.GetCsrResponse().GetCsrContents(), Signature: resp.GetCsrResponse().GetIdevidSignatureCsr(), Peer: certificatesOf(&from)}
	if ans.Card, err = cardOf(resp.GetControlCardId()); err != nil {
		return CSRAnswer{}, fmt.Errorf("GetIdevidCsr: %w: %w", ErrAnswer, err)
	}
	if n := len(ans.Content); n == 0 || n > MaxCSR {
		return CSRAnswer{}, fmt.Errorf("GetIdevidCsr: %w: csr_contents of %d bytes: need 1 to %d", ErrAnswer, n, MaxCSR)
	}
	if err := checkStructures(structureField{"idevid_signature_csr", ans.Signature}); err != nil {
		return CSRAnswer{}, fmt.Errorf("GetIdevidCsr: %w: %w", ErrAnswer, err)
	}
	return ans, nil
}
