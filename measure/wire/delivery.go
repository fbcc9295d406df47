package wire

import (
	"context"
	"crypto/x509"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"waxseal/measure"
	"waxseal/measure/wire/waxsealpb"
)

// The full names of the doorstep check's calls.
const (
	MethodIdentify = "/waxseal.v1.Delivery/Identify"
	MethodProve    = "/waxseal.v1.Delivery/Prove"
)

// DeliveryServer is a device at the doorstep. It gets only requests whose form
// is good.
type DeliveryServer interface {
	Identify(context.Context) (Identity, error)
	Prove(context.Context, ProofRequest) (Proof, error)
}

// ProofRequest asks a device to prove which one it is and what it has booted.
type ProofRequest struct {
	Nonce  []byte // MinNonce to MaxNonce bytes; the extraData of all that is signed
	Bank   measure.Alg
	PCRs   []measure.PCR // each at most once
	IAK    Credential    // made for the IAK under the EK
	IDevID Credential    // made for the IDevID under the EK
}

// Credential is a secret that only the TPM with the EK and one other key can
// read (TPM 2.0 Part 1, section 24).
type Credential struct {
	Blob   []byte // TPMS_ID_OBJECT
	Secret []byte // encrypted seed, without its size
}

// Proof is what a device answers. It is a claim.
type Proof struct {
	PCRs   map[measure.PCR][]byte // values in the bank of the request
	Quote  Signed
	Log    []byte // CEL-TLV
	SRK    Signed // TPM2_Certify of the SRK by the IAK; empty where the TPM has none
	IDevID Signed // TPM2_Certify of the IDevID by the IAK

	IAKProof    []byte // see ProofRequest.Authenticate
	IDevIDProof []byte

	Peer []*x509.Certificate // as in AttestAnswer: this call may be another session than the one before
}

// Signed is what the IAK has signed.
type Signed struct {
	Attest    []byte // bare TPMS_ATTEST
	Signature []byte // TPMT_SIGNATURE
}

// Bounds of a credential, in bytes (TPM 2.0 Part 2, sections 11.4.33 and
// 12.4.2, for an EK of RSA-2048 or P-384).
const (
	maxCredential = 256
	maxSeed       = 256
)

// RegisterDelivery makes r serve waxseal.v1.Delivery by s.
func RegisterDelivery(r grpc.ServiceRegistrar, s DeliveryServer) {
	waxsealpb.RegisterDeliveryServer(r, delivery{server: s})
}

type delivery struct {
	waxsealpb.UnimplementedDeliveryServer
	server DeliveryServer
}

func (d delivery) Identify(ctx context.Context, _ *waxsealpb.IdentifyRequest) (*waxsealpb.IdentifyResponse, error) {
	id, err := d.server.Identify(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	return id.proto(), nil
}

func (d delivery) Prove(ctx context.Context, p *waxsealpb.ProveRequest) (*waxsealpb.ProveResponse, error) {
	req, err := proofRequestOf(p)
	if err != nil {
		return nil, toStatus(err)
	}
	proof, err := d.server.Prove(ctx, req)
	if err != nil {
		return nil, toStatus(err)
	}
	return proof.proto(), nil
}

// DeliveryClient asks a device at the doorstep.
type DeliveryClient struct{ client waxsealpb.DeliveryClient }

// Delivery returns the client of waxseal.v1.Delivery.
func (c Conn) Delivery() DeliveryClient {
	return DeliveryClient{waxsealpb.NewDeliveryClient(c.ClientConn)}
}

// Identify asks who the device is.
func (c DeliveryClient) Identify(ctx context.Context) (Identity, error) {
	var from peer.Peer
	resp, err := c.client.Identify(ctx, &waxsealpb.IdentifyRequest{}, grpc.Peer(&from), grpc.MaxCallRecvMsgSize(3*MaxChain*MaxCert))
	if err != nil {
		return Identity{}, fromStatus("Identify", err)
	}
	id, err := identityOf(resp)
	if err != nil {
		return Identity{}, fmt.Errorf("Identify: %w: %w", ErrAnswer, err)
	}
	id.Peer = certificatesOf(&from)
	return id, nil
}

// Prove asks the device for its proof. The answer has the right form and
// nothing more.
func (c DeliveryClient) Prove(ctx context.Context, req ProofRequest) (Proof, error) {
	if err := req.Check(); err != nil {
		return Proof{}, err
	}
	var from peer.Peer
	resp, err := c.client.Prove(ctx, req.proto(), grpc.Peer(&from), grpc.MaxCallRecvMsgSize(MaxAnswer))
	if err != nil {
		return Proof{}, fromStatus("Prove", err)
	}
	proof, err := proofOf(resp, req.Bank)
	if err != nil {
		return Proof{}, fmt.Errorf("Prove: %w: %w", ErrAnswer, err)
	}
	proof.Peer = certificatesOf(&from)
	return proof, nil
}

// Check tells whether the request may be put to a TPM.
func (r ProofRequest) Check() error {
	if err := (AttestRequest{Select: Selection{Role: Active}, Nonce: r.Nonce, Bank: r.Bank, PCRs: r.PCRs}).Check(); err != nil {
		return err
	}
	if err := r.IAK.check(); err != nil {
		return fmt.Errorf("%w: credential of the IAK: %w", ErrInvalid, err)
	}
	if err := r.IDevID.check(); err != nil {
		return fmt.Errorf("%w: credential of the IDevID: %w", ErrInvalid, err)
	}
	return nil
}

func (c Credential) check() error {
	if len(c.Blob) == 0 || len(c.Blob) > maxCredential || len(c.Secret) == 0 || len(c.Secret) > maxSeed {
		return fmt.Errorf("blob of %d and secret of %d bytes: need 1 to %d and 1 to %d", len(c.Blob), len(c.Secret), maxCredential, maxSeed)
	}
	return nil
}

func (r ProofRequest) proto() *waxsealpb.ProveRequest {
	p := &waxsealpb.ProveRequest{
		Nonce: r.Nonce, Bank: uint32(r.Bank),
		Iak:    &waxsealpb.Credential{Blob: r.IAK.Blob, Secret: r.IAK.Secret},
		Idevid: &waxsealpb.Credential{Blob: r.IDevID.Blob, Secret: r.IDevID.Secret},
	}
	for _, pcr := range r.PCRs {
		p.Pcrs = append(p.Pcrs, uint32(pcr))
	}
	return p
}

func proofRequestOf(p *waxsealpb.ProveRequest) (ProofRequest, error) {
	if n := len(p.GetPcrs()); n > measure.NumPCRs {
		return ProofRequest{}, fmt.Errorf("%w: %d pcrs: at most %d", ErrInvalid, n, measure.NumPCRs)
	}
	if bank := p.GetBank(); bank > 0xffff {
		return ProofRequest{}, fmt.Errorf("%w: bank 0x%x", ErrInvalid, bank)
	}
	req := ProofRequest{
		Nonce: p.GetNonce(), Bank: measure.Alg(p.GetBank()),
		IAK:    Credential{Blob: p.GetIak().GetBlob(), Secret: p.GetIak().GetSecret()},
		IDevID: Credential{Blob: p.GetIdevid().GetBlob(), Secret: p.GetIdevid().GetSecret()},
	}
	for _, pcr := range p.GetPcrs() {
		if pcr >= measure.NumPCRs {
			return ProofRequest{}, fmt.Errorf("%w: pcrs holds %d: need 0 to %d", ErrInvalid, pcr, measure.NumPCRs-1)
		}
		req.PCRs = append(req.PCRs, measure.PCR(pcr))
	}
	return req, req.Check()
}

func (p Proof) proto() *waxsealpb.ProveResponse {
	out := &waxsealpb.ProveResponse{
		PcrValues: map[uint32][]byte{}, Quote: p.Quote.proto(), Log: p.Log,
		Srk: p.SRK.proto(), Idevid: p.IDevID.proto(), IakProof: p.IAKProof, IdevidProof: p.IDevIDProof,
	}
	for pcr, v := range p.PCRs {
		out.PcrValues[uint32(pcr)] = v
	}
	return out
}

func (s Signed) proto() *waxsealpb.Signed {
	return &waxsealpb.Signed{Attest: s.Attest, Signature: s.Signature}
}

func proofOf(p *waxsealpb.ProveResponse, bank measure.Alg) (Proof, error) {
	values := map[int32][]byte{}
	for i, v := range p.GetPcrValues() {
		if i >= measure.NumPCRs {
			return Proof{}, fmt.Errorf("pcr_values holds index %d", i)
		}
		values[int32(i)] = v
	}
	pcrs, err := pcrValuesOf(values, bank)
	if err != nil {
		return Proof{}, err
	}
	out := Proof{
		PCRs: pcrs, Quote: signedOf(p.GetQuote()), Log: p.GetLog(),
		SRK: signedOf(p.GetSrk()), IDevID: signedOf(p.GetIdevid()),
		IAKProof: p.GetIakProof(), IDevIDProof: p.GetIdevidProof(),
	}
	for name, b := range map[string][]byte{
		"quote.attest": out.Quote.Attest, "quote.signature": out.Quote.Signature, "srk.attest": out.SRK.Attest, "srk.signature": out.SRK.Signature,
		"idevid.attest": out.IDevID.Attest, "idevid.signature": out.IDevID.Signature, "iak_proof": out.IAKProof, "idevid_proof": out.IDevIDProof,
	} {
		if len(b) > maxStructure {
			return Proof{}, fmt.Errorf("%s of %d bytes: at most %d", name, len(b), maxStructure)
		}
	}
	return out, nil
}

func signedOf(p *waxsealpb.Signed) Signed {
	return Signed{Attest: p.GetAttest(), Signature: p.GetSignature()}
}
