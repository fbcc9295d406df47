package delivery

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/evidence"
	"waxseal/measure/manifest"
	"waxseal/measure/manifest/sealed"
	"waxseal/measure/reference"
	"waxseal/measure/wire"
)

// FileFormat is the value of the key "format" in a saved check.
const FileFormat = "waxseal-delivery-1"

// MaxFile is the largest saved check that Parse accepts, in bytes.
const MaxFile = 48 << 20

// ErrFile means that a file is not a saved check.
var ErrFile = errors.New("saved check is malformed")

// Saved is a check as it is kept: what was said, and what the buyer concluded
// then. The secret of the shipment is not in it.
type Saved struct {
	Transcript Transcript
	Outcome    Outcome
	Reasons    []string
}

// file is a saved check as it is written.
type file struct {
	Format    string        `json:"format"`
	Outcome   Outcome       `json:"outcome"`
	Reasons   []string      `json:"reasons"`
	Issued    time.Time     `json:"issued"`
	Received  time.Time     `json:"received"`
	Manifest  manifest.Blob `json:"manifest"`
	Reference manifest.Blob `json:"reference,omitempty"`
	Fresh     manifest.Blob `json:"fresh"`
	Request   request       `json:"request"`
	Identity  identity      `json:"identity"`
	Proof     *proof        `json:"proof,omitempty"`
	Refusal   string        `json:"refusal,omitempty"`
}

type request struct {
	Nonce  manifest.Blob `json:"nonce"`
	Bank   string        `json:"bank"`
	PCRs   []measure.PCR `json:"pcrs"`
	IAK    credentialOf  `json:"iak"`
	IDevID credentialOf  `json:"idevid"`
}

type credentialOf struct {
	Blob   manifest.Blob `json:"blob"`
	Secret manifest.Blob `json:"secret"`
	Inside manifest.Blob `json:"inside"`
}

type identity struct {
	Card       evidence.Card `json:"card"`
	EK         manifest.Blob `json:"ek"`
	IAK        manifest.Blob `json:"iak"`
	IDevID     manifest.Blob `json:"idevid"`
	SRK        manifest.Blob `json:"srk"`
	EKCerts    []string      `json:"ek_certs"`
	IAKCert    []string      `json:"iak_cert"`
	IDevIDCert []string      `json:"idevid_cert"`
	Session    []string      `json:"session"`
}

type proof struct {
	PCRs        map[measure.PCR]manifest.Blob `json:"pcrs"`
	Quote       signed                        `json:"quote"`
	Log         manifest.Blob                 `json:"log"`
	SRK         signed                        `json:"srk"`
	IDevID      signed                        `json:"idevid"`
	IAKProof    manifest.Blob                 `json:"iak_proof"`
	IDevIDProof manifest.Blob                 `json:"idevid_proof"`
	Session     []string                      `json:"session"`
}

type signed struct {
	Attest    manifest.Blob `json:"attest"`
	Signature manifest.Blob `json:"signature"`
}

// Encode returns the file that Parse reads: the same bytes for the same check.
func (s Saved) Encode() ([]byte, error) {
	t := s.Transcript
	f := file{
		Format: FileFormat, Outcome: s.Outcome, Reasons: s.Reasons, Issued: t.Issued, Received: t.Received,
		Manifest: t.Manifest, Reference: t.Reference, Fresh: t.Fresh[:], Refusal: t.Refusal,
		Request: request{
			Nonce: t.Request.Nonce, Bank: t.Request.Bank.String(), PCRs: t.Request.PCRs,
			IAK:    credentialOf{t.Request.IAK.Blob, t.Request.IAK.Secret, t.Inside.IAK},
			IDevID: credentialOf{t.Request.IDevID.Blob, t.Request.IDevID.Secret, t.Inside.IDevID},
		},
		Identity: identityOf(t.Identity),
	}
	if t.Proof != nil {
		f.Proof = proofOf(*t.Proof)
	}
	b, err := json.Marshal(f, jsontext.WithIndent("  "), json.Deterministic(true), json.FormatNilSliceAsNull(false))
	if err != nil {
		return nil, fmt.Errorf("save check: %w", err)
	}
	if len(b) >= MaxFile {
		return nil, fmt.Errorf("save check: %w: %d bytes: at most %d", ErrFile, len(b), MaxFile)
	}
	return append(b, '\n'), nil
}

func identityOf(id wire.Identity) identity {
	c := id.Card
	return identity{
		Card: evidence.Card{
			Role: c.Role.String(), Serial: c.Serial, Slot: c.Slot,
			Manufacturer: c.Maker, PartNumber: c.Part, ChassisSerial: c.ChassisSerial,
		},
		EK: id.EK, IAK: id.IAK, IDevID: id.IDevID, SRK: id.SRK,
		EKCerts: id.EKCerts, IAKCert: id.IAKCert, IDevIDCert: id.IDevIDCert, Session: wire.ChainOf(id.Peer...),
	}
}

func proofOf(p wire.Proof) *proof {
	out := &proof{
		PCRs: map[measure.PCR]manifest.Blob{}, Log: p.Log, IAKProof: p.IAKProof, IDevIDProof: p.IDevIDProof,
		Quote:  signed{p.Quote.Attest, p.Quote.Signature},
		SRK:    signed{p.SRK.Attest, p.SRK.Signature},
		IDevID: signed{p.IDevID.Attest, p.IDevID.Signature}, Session: wire.ChainOf(p.Peer...),
	}
	for pcr, v := range p.PCRs {
		out.PCRs[pcr] = v
	}
	return out
}

// Parse reads a saved check. Any bytes but those of Encode are refused. What
// it returns is a claim.
func Parse(data []byte) (Saved, error) {
	var f file
	if len(data) > MaxFile {
		return Saved{}, fmt.Errorf("%w: %d bytes: at most %d", ErrFile, len(data), MaxFile)
	}
	if err := json.Unmarshal(data, &f, json.RejectUnknownMembers(true)); err != nil {
		return Saved{}, fmt.Errorf("%w: %w", ErrFile, err)
	}
	s, err := f.saved()
	if err != nil {
		return Saved{}, fmt.Errorf("%w: %w", ErrFile, err)
	}
	plain, err := s.Encode()
	if err != nil {
		return Saved{}, err
	}
	if !bytes.Equal(plain, data) {
		return Saved{}, fmt.Errorf("%w: it is not written in its one plain form", ErrFile)
	}
	return s, nil
}

func (f file) saved() (Saved, error) {
	if f.Format != FileFormat {
		return Saved{}, fmt.Errorf("format is %q: need %q", f.Format, FileFormat)
	}
	if len(f.Fresh) != 32 || len(f.Manifest) > sealed.MaxFile || len(f.Reference) > reference.MaxSize {
		return Saved{}, fmt.Errorf("fresh of %d, manifest of %d and reference of %d bytes", len(f.Fresh), len(f.Manifest), len(f.Reference))
	}
	bank, err := measure.ParseAlg(f.Request.Bank)
	if err != nil {
		return Saved{}, err
	}
	t := Transcript{
		Manifest: f.Manifest, Reference: f.Reference, Fresh: [32]byte(f.Fresh), Issued: f.Issued, Received: f.Received,
		Inside: Inside{f.Request.IAK.Inside, f.Request.IDevID.Inside}, Refusal: f.Refusal,
		Request: wire.ProofRequest{
			Nonce: f.Request.Nonce, Bank: bank, PCRs: f.Request.PCRs,
			IAK:    wire.Credential{Blob: f.Request.IAK.Blob, Secret: f.Request.IAK.Secret},
			IDevID: wire.Credential{Blob: f.Request.IDevID.Blob, Secret: f.Request.IDevID.Secret},
		},
	}
	if err := t.Request.Check(); err != nil {
		return Saved{}, err
	}
	if t.Identity, err = f.Identity.wire(); err != nil {
		return Saved{}, err
	}
	if f.Proof != nil {
		if t.Proof, err = f.Proof.wire(bank); err != nil {
			return Saved{}, err
		}
	}
	return Saved{Transcript: t, Outcome: f.Outcome, Reasons: f.Reasons}, nil
}

func (f identity) wire() (wire.Identity, error) {
	c := f.Card
	id := wire.Identity{
		Card: wire.Card{
			Serial: c.Serial, Slot: c.Slot, Maker: c.Manufacturer, Part: c.PartNumber, ChassisSerial: c.ChassisSerial,
		},
		EK: f.EK, IAK: f.IAK, IDevID: f.IDevID, SRK: f.SRK,
		EKCerts: f.EKCerts, IAKCert: f.IAKCert, IDevIDCert: f.IDevIDCert,
	}
	for role := wire.NoRole; role <= wire.Chassis; role++ {
		if role.String() == c.Role {
			id.Card.Role = role
		}
	}
	var err error
	id.Peer, err = wire.Chain(f.Session).Certificates()
	return id, err
}

func (f proof) wire(bank measure.Alg) (*wire.Proof, error) {
	if len(f.PCRs) > measure.NumPCRs || len(f.Log) > eventlog.MaxSize {
		return nil, fmt.Errorf("%d PCRs and a log of %d bytes", len(f.PCRs), len(f.Log))
	}
	p := &wire.Proof{
		PCRs: map[measure.PCR][]byte{}, Log: f.Log, IAKProof: f.IAKProof, IDevIDProof: f.IDevIDProof,
		Quote:  wire.Signed{Attest: f.Quote.Attest, Signature: f.Quote.Signature},
		SRK:    wire.Signed{Attest: f.SRK.Attest, Signature: f.SRK.Signature},
		IDevID: wire.Signed{Attest: f.IDevID.Attest, Signature: f.IDevID.Signature},
	}
	for pcr, v := range f.PCRs {
		if pcr >= measure.NumPCRs || len(v) != bank.Size() {
			return nil, fmt.Errorf("PCR %d of %d bytes", pcr, len(v))
		}
		p.PCRs[pcr] = v
	}
	var err error
	p.Peer, err = wire.Chain(f.Session).Certificates()
	return p, err
}
