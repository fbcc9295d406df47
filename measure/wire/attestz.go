package wire

import (
	"context"
	"errors"
	"fmt"

	cpb "github.com/openconfig/attestz/proto/common_definitions"
	apb "github.com/openconfig/attestz/proto/tpm_attestz"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"waxseal/measure"
	"waxseal/measure/merkle"
)

// AttestServer answers challenges. It gets only requests whose form is good.
type AttestServer interface {
	Attest(context.Context, AttestRequest) (AttestAnswer, error)
}

// RegisterAttestz makes r serve attestz by s.
func RegisterAttestz(r grpc.ServiceRegistrar, s AttestServer) {
	apb.RegisterTpmAttestzServiceServer(r, attestz{server: s})
}

type attestz struct {
	apb.UnimplementedTpmAttestzServiceServer
	server AttestServer
}

func (a attestz) Attest(ctx context.Context, p *apb.AttestRequest) (*apb.AttestResponse, error) {
	req, err := attestRequestOf(p)
	if err != nil {
		return nil, toStatus(err)
	}
	if req.Format, err = formatAsked(ctx); err != nil {
		return nil, toStatus(err)
	}
	ans, err := a.server.Attest(ctx, req)
	if err != nil {
		return nil, toStatus(err)
	}
	return ans.proto(), nil
}

// AttestClient challenges devices.
type AttestClient struct{ client apb.TpmAttestzServiceClient }

// NewAttestz returns a client over conn; see Dial.
func NewAttestz(conn grpc.ClientConnInterface) AttestClient {
	return AttestClient{apb.NewTpmAttestzServiceClient(conn)}
}

// Attest sends one challenge. The answer has the right form and nothing more:
// it is to be given to evidence.Verify.
func (c AttestClient) Attest(ctx context.Context, req AttestRequest) (AttestAnswer, error) {
	p, err := req.proto()
	if err != nil {
		return AttestAnswer{}, err
	}
	var from peer.Peer
	resp, err := c.client.Attest(req.Format.askFor(ctx), p, grpc.Peer(&from), grpc.MaxCallRecvMsgSize(MaxAnswer))
	if err != nil {
		return AttestAnswer{}, fromStatus("Attest", err)
	}
	ans, err := attestAnswerOf(resp, req)
	if err != nil {
		return AttestAnswer{}, fmt.Errorf("Attest: %w: %w", ErrAnswer, err)
	}
	ans.Peer = certificatesOf(&from)
	return ans, nil
}

var hashOf = map[measure.Alg]cpb.Tpm20HashAlgo{
	measure.SHA256: cpb.Tpm20HashAlgo_TPM_2_0_HASH_ALGO_SHA256,
	measure.SHA384: cpb.Tpm20HashAlgo_TPM_2_0_HASH_ALGO_SHA384,
	measure.SHA512: cpb.Tpm20HashAlgo_TPM_2_0_HASH_ALGO_SHA512,
}

func bankOf(h cpb.Tpm20HashAlgo) (measure.Alg, error) {
	for alg, hash := range hashOf {
		if hash == h {
			return alg, nil
		}
	}
	return 0, fmt.Errorf("%w: hash_algo %d: need SHA-256, SHA-384 or SHA-512", ErrInvalid, h)
}

func attestRequestOf(p *apb.AttestRequest) (AttestRequest, error) {
	sel, err := selectionOf(p.GetControlCardSelection())
	if err != nil {
		return AttestRequest{}, err
	}
	bank, err := bankOf(p.GetHashAlgo())
	if err != nil {
		return AttestRequest{}, err
	}
	if n := len(p.GetPcrIndices()); n > measure.NumPCRs {
		return AttestRequest{}, fmt.Errorf("%w: %d pcr_indices: at most %d", ErrInvalid, n, measure.NumPCRs)
	}
	req := AttestRequest{Select: sel, Nonce: p.GetNonce(), Bank: bank}
	for _, i := range p.GetPcrIndices() {
		if i < 0 || i >= measure.NumPCRs {
			return AttestRequest{}, fmt.Errorf("%w: pcr_indices holds %d: need 0 to %d", ErrInvalid, i, measure.NumPCRs-1)
		}
		req.PCRs = append(req.PCRs, measure.PCR(i))
	}
	return req, req.Check()
}

// Check tells whether the request may be put to a TPM.
func (r AttestRequest) Check() error {
	if err := r.Select.check(); err != nil {
		return err
	}
	if _, ok := formatNames[r.Format]; !ok {
		return fmt.Errorf("%w: %v: need TPM_RAW, EAT_JWT or EAT_CWT", ErrInvalid, r.Format)
	}
	if n := len(r.Nonce); n < MinNonce || n > MaxNonce {
		return fmt.Errorf("%w: nonce of %d bytes: need %d to %d", ErrInvalid, n, MinNonce, MaxNonce)
	}
	if merkle.IsCommitment(r.Nonce) {
		return fmt.Errorf("%w: nonce begins like the commitment of a batch, for which it could pass", ErrInvalid)
	}
	if _, ok := hashOf[r.Bank]; !ok {
		return fmt.Errorf("%w: bank %v: need SHA-256, SHA-384 or SHA-512", ErrInvalid, r.Bank)
	}
	if len(r.PCRs) == 0 {
		return fmt.Errorf("%w: no pcr_indices: a quote over nothing says nothing", ErrInvalid)
	}
	var seen [measure.NumPCRs]bool
	for _, pcr := range r.PCRs {
		if pcr >= measure.NumPCRs || seen[pcr] {
			return fmt.Errorf("%w: pcr_indices: %d is out of range or stands twice", ErrInvalid, pcr)
		}
		seen[pcr] = true
	}
	return nil
}

func (r AttestRequest) proto() (*apb.AttestRequest, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	sel, err := r.Select.proto()
	if err != nil {
		return nil, err
	}
	p := &apb.AttestRequest{ControlCardSelection: sel, Nonce: r.Nonce, HashAlgo: hashOf[r.Bank]}
	for _, pcr := range r.PCRs {
		p.PcrIndices = append(p.PcrIndices, int32(pcr))
	}
	return p, nil
}

func (a AttestAnswer) proto() *apb.AttestResponse {
	if a.Format != Raw {
		return a.tokenProto()
	}
	oiak := a.OIAK.String()
	p := &apb.AttestResponse{
		ControlCardId:  a.Card.proto(),
		PcrValues:      map[int32][]byte{},
		Quoted:         a.Quoted,
		QuoteSignature: a.Signature,
		OidevidCert:    a.OIDevID.String(),
		AttestationCert: &apb.AttestResponse_AttestationCert{
			Value: &apb.AttestResponse_AttestationCert_OiakCert{OiakCert: oiak},
		},
		EventlogBytes: a.Log,
		Format:        apb.AttestResponse_ATTESTATION_FORMAT_TPM_RAW,
	}
	for pcr, v := range a.PCRs {
		p.PcrValues[int32(pcr)] = v
	}
	setOldOIAK(p, oiak)
	return p
}

// maxStructure bounds TPMS_ATTEST and TPMT_SIGNATURE, in bytes.
const maxStructure = 2048

func attestAnswerOf(p *apb.AttestResponse, req AttestRequest) (AttestAnswer, error) {
	if f := formatOf(p); f != req.Format {
		return AttestAnswer{}, fmt.Errorf("it is %v, asked was %v", f, req.Format)
	}
	if req.Format != Raw {
		return tokenOf(p, req.Format)
	}
	if len(p.GetEatToken()) > 0 {
		return AttestAnswer{}, errors.New("raw form with a token beside it")
	}
	if len(p.GetQuoted()) > maxStructure || len(p.GetQuoteSignature()) > maxStructure {
		return AttestAnswer{}, fmt.Errorf("quoted of %d and quote_signature of %d bytes: at most %d", len(p.GetQuoted()), len(p.GetQuoteSignature()), maxStructure)
	}
	a := AttestAnswer{Quoted: p.GetQuoted(), Signature: p.GetQuoteSignature(), Log: p.GetEventlogBytes()}
	var err error
	if a.Card, err = cardOf(p.GetControlCardId()); err != nil {
		return AttestAnswer{}, err
	}
	if a.PCRs, err = pcrValuesOf(p.GetPcrValues(), req.Bank); err != nil {
		return AttestAnswer{}, err
	}
	if a.OIAK, err = oiakOf(p); err != nil {
		return AttestAnswer{}, err
	}
	if a.OIDevID, err = ParseChain(p.GetOidevidCert()); err != nil {
		return AttestAnswer{}, fmt.Errorf("oidevid_cert: %w", err)
	}
	return a, nil
}

func pcrValuesOf(p map[int32][]byte, bank measure.Alg) (map[measure.PCR][]byte, error) {
	values := map[measure.PCR][]byte{}
	for i, v := range p {
		if i < 0 || i >= measure.NumPCRs {
			return nil, fmt.Errorf("pcr_values holds index %d", i)
		}
		if len(v) != bank.Size() {
			return nil, fmt.Errorf("pcr_values[%d] has %d bytes: need %d", i, len(v), bank.Size())
		}
		values[measure.PCR(i)] = v
	}
	return values, nil
}
