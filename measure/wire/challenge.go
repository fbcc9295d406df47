package wire

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/bits"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"waxseal/measure"
	"waxseal/measure/merkle"
	"waxseal/measure/wire/waxsealpb"
)

// BatchRequest asks a device for a quote that may answer others too.
type BatchRequest struct {
	Nonce    []byte // MinNonce to MaxNonce bytes; a leaf of the tree that the quote commits to
	Bank     measure.Alg
	PCRs     []measure.PCR // each at most once
	KnownLog []byte        // SHA-256 of a log that the caller has; nil: none
}

// BatchAnswer is the evidence that a device answers, with the place of the
// caller's nonce. It is a claim.
type BatchAnswer struct {
	AttestAnswer // Log is empty if LogKnown; there is no OIDevID
	Proof        merkle.Proof
	LogKnown     bool // the log is still the one that BatchRequest.KnownLog names
}

// BatchServer answers many challenges by one quote. It gets only requests
// whose form is good.
type BatchServer interface {
	AttestBatched(context.Context, BatchRequest) (BatchAnswer, error)
}

// RegisterChallenge makes r serve waxseal.v1.Challenge by s.
func RegisterChallenge(r grpc.ServiceRegistrar, s BatchServer) {
	waxsealpb.RegisterChallengeServer(r, challenge{server: s})
}

type challenge struct {
	waxsealpb.UnimplementedChallengeServer
	server BatchServer
}

func (c challenge) Attest(ctx context.Context, p *waxsealpb.BatchedAttestRequest) (*waxsealpb.BatchedAttestResponse, error) {
	req, err := batchRequestOf(p)
	if err != nil {
		return nil, toStatus(err)
	}
	ans, err := c.server.AttestBatched(ctx, req)
	if err != nil {
		return nil, toStatus(err)
	}
	return ans.proto(), nil
}

// BatchClient challenges devices over waxseal.v1.Challenge.
type BatchClient struct{ client waxsealpb.ChallengeClient }

// NewChallenge returns a client over conn; see Dial.
func NewChallenge(conn grpc.ClientConnInterface) BatchClient {
	return BatchClient{waxsealpb.NewChallengeClient(conn)}
}

// Attest sends one challenge. The answer has the right form and nothing more:
// it is to be given to evidence.Verify.
func (c BatchClient) Attest(ctx context.Context, req BatchRequest) (BatchAnswer, error) {
	p, err := req.proto()
	if err != nil {
		return BatchAnswer{}, err
	}
	var from peer.Peer
	resp, err := c.client.Attest(ctx, p, grpc.Peer(&from), grpc.MaxCallRecvMsgSize(MaxAnswer))
	if err != nil {
		return BatchAnswer{}, fromStatus("Challenge.Attest", err)
	}
	ans, err := batchAnswerOf(resp, req)
	if err != nil {
		return BatchAnswer{}, fmt.Errorf("Challenge.Attest: %w: %w", ErrAnswer, err)
	}
	ans.Peer = certificatesOf(&from)
	return ans, nil
}

// Check tells whether the request may be put to a TPM.
func (r BatchRequest) Check() error {
	if n := len(r.KnownLog); n != 0 && n != sha256.Size {
		return fmt.Errorf("%w: known_log of %d bytes: need none or %d", ErrInvalid, n, sha256.Size)
	}
	return AttestRequest{Select: Selection{Role: Active}, Nonce: r.Nonce, Bank: r.Bank, PCRs: r.PCRs}.Check()
}

func batchRequestOf(p *waxsealpb.BatchedAttestRequest) (BatchRequest, error) {
	if p.GetBank() > 0xffff || p.GetPcrs()>>measure.NumPCRs != 0 {
		return BatchRequest{}, fmt.Errorf("%w: bank 0x%x, pcrs 0x%x: need 16 and %d bits", ErrInvalid, p.GetBank(), p.GetPcrs(), measure.NumPCRs)
	}
	req := BatchRequest{Nonce: p.GetNonce(), Bank: measure.Alg(p.GetBank()), PCRs: pcrsOf(p.GetPcrs()), KnownLog: p.GetKnownLog()}
	return req, req.Check()
}

// pcrsOf returns the PCRs of a bit map, in ascending order.
func pcrsOf(mask uint32) []measure.PCR {
	pcrs := make([]measure.PCR, 0, bits.OnesCount32(mask))
	for pcr := range measure.PCR(measure.NumPCRs) {
		if mask&(1<<pcr) != 0 {
			pcrs = append(pcrs, pcr)
		}
	}
	return pcrs
}

// Mask returns the PCRs as a bit map, PCR 0 in the lowest bit.
func (r BatchRequest) Mask() uint32 {
	var mask uint32
	for _, pcr := range r.PCRs {
		mask |= 1 << pcr
	}
	return mask
}

func (r BatchRequest) proto() (*waxsealpb.BatchedAttestRequest, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	return &waxsealpb.BatchedAttestRequest{Nonce: r.Nonce, Bank: uint32(r.Bank), Pcrs: r.Mask(), KnownLog: r.KnownLog}, nil
}

func (a BatchAnswer) proto() *waxsealpb.BatchedAttestResponse {
	p := &waxsealpb.BatchedAttestResponse{
		Card: &waxsealpb.BatchedAttestResponse_Card{
			Role: int32(a.Card.Role), Serial: a.Card.Serial, Slot: a.Card.Slot,
			Maker: a.Card.Maker, Part: a.Card.Part, ChassisSerial: a.Card.ChassisSerial,
		},
		Quoted: a.Quoted, QuoteSignature: a.Signature, OiakCert: a.OIAK.String(),
		Log: a.Log, LogKnown: a.LogKnown,
		Index: a.Proof.Index, Size: a.Proof.Size, Path: a.Proof.Path,
	}
	for pcr := range measure.PCR(measure.NumPCRs) {
		if v, ok := a.PCRs[pcr]; ok {
			p.PcrValues = append(p.PcrValues, v)
		}
	}
	return p
}

func batchAnswerOf(p *waxsealpb.BatchedAttestResponse, req BatchRequest) (BatchAnswer, error) {
	a := BatchAnswer{
		Proof:    merkle.Proof{Index: p.GetIndex(), Size: p.GetSize(), Path: p.GetPath()},
		LogKnown: p.GetLogKnown(),
	}
	if err := a.Proof.Check(); err != nil {
		return BatchAnswer{}, err
	}
	if a.LogKnown && (len(req.KnownLog) == 0 || len(p.GetLog()) != 0) {
		return BatchAnswer{}, fmt.Errorf("log_known, with a log of %d bytes and %d bytes of known_log", len(p.GetLog()), len(req.KnownLog))
	}
	if len(p.GetQuoted()) > maxStructure || len(p.GetQuoteSignature()) > maxStructure {
		return BatchAnswer{}, fmt.Errorf("quoted of %d and quote_signature of %d bytes: at most %d", len(p.GetQuoted()), len(p.GetQuoteSignature()), maxStructure)
	}
	a.Quoted, a.Signature, a.Log = p.GetQuoted(), p.GetQuoteSignature(), p.GetLog()
	var err error
	if a.PCRs, err = inOrder(p.GetPcrValues(), pcrsOf(req.Mask()), req.Bank); err != nil {
		return BatchAnswer{}, err
	}
	if a.OIAK, err = ParseChain(p.GetOiakCert()); err != nil {
		return BatchAnswer{}, fmt.Errorf("oiak_cert: %w", err)
	}
	c := p.GetCard()
	a.Card = Card{
		Role: Role(c.GetRole()), Serial: c.GetSerial(), Slot: c.GetSlot(),
		Maker: c.GetMaker(), Part: c.GetPart(), ChassisSerial: c.GetChassisSerial(),
	}
	return a, a.Card.Check()
}

// inOrder gives each of pcrs its value.
func inOrder(values [][]byte, pcrs []measure.PCR, bank measure.Alg) (map[measure.PCR][]byte, error) {
	if len(values) != len(pcrs) {
		return nil, fmt.Errorf("%d pcr_values, asked were %d", len(values), len(pcrs))
	}
	out := make(map[measure.PCR][]byte, len(pcrs))
	for i, pcr := range pcrs {
		if len(values[i]) != bank.Size() {
			return nil, fmt.Errorf("pcr_values: PCR %d has %d bytes: need %d", pcr, len(values[i]), bank.Size())
		}
		out[pcr] = values[i]
	}
	return out, nil
}
