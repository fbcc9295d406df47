package evidence

import (
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/merkle"
)

// Format is the value of the key "format" in an evidence file.
const Format = "waxseal-evidence-1"

// Bounds of an evidence file.
const (
	MaxFile     = 32 << 20 // bytes of the file
	MaxContent  = 4 << 20  // bytes of one content
	MaxContents = 1024     // number of contents
)

// file is an evidence file as it is written.
type file struct {
	Format       string               `json:"format"`
	Nonce        blob                 `json:"nonce"`
	Batch        *place               `json:"batch,omitempty"`
	Bank         string               `json:"bank"`
	PCRs         map[measure.PCR]blob `json:"pcrs"`
	Quoted       blob                 `json:"quoted"`
	Signature    blob                 `json:"signature"`
	Log          blob                 `json:"log"`
	Certificates map[string][]string  `json:"certificates"`
	Card         Card                 `json:"card"`
	Received     time.Time            `json:"received"`
	Contents     map[string]blob      `json:"contents,omitempty"`
}

// place is a merkle.Proof in an evidence file. All three keys must be there:
// an index that is left out would be read as 0, another text for the same proof.
type place struct {
	Index *uint32 `json:"index"`
	Size  *uint32 `json:"size"`
	Path  *blob   `json:"path"`
}

func (p place) proof() (*merkle.Proof, error) {
	if p.Index == nil || p.Size == nil || p.Path == nil {
		return nil, fmt.Errorf("%w: batch: need index, size and path", ErrFormat)
	}
	return &merkle.Proof{Index: *p.Index, Size: *p.Size, Path: *p.Path}, nil
}

// blob is bytes in standard base64 with padding.
type blob []byte

// MarshalText implements encoding.TextMarshaler.
func (b blob) MarshalText() ([]byte, error) { return base64.StdEncoding.AppendEncode(nil, b), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It accepts only what
// MarshalText returns.
func (b *blob) UnmarshalText(text []byte) error {
	out, err := base64.StdEncoding.Strict().AppendDecode(nil, text)
	if err != nil {
		return err
	}
	if base64.StdEncoding.EncodedLen(len(out)) != len(text) {
		return errors.New("base64 with line breaks")
	}
	*b = out
	return nil
}

// Parse reads an evidence file. Unknown, doubled and differently spelled keys
// and other forms of base64 are errors. What it returns is a claim.
func Parse(data []byte) (Evidence, error) {
	if len(data) > MaxFile {
		return Evidence{}, fmt.Errorf("%w: file of %d bytes: at most %d", ErrFormat, len(data), MaxFile)
	}
	var f file
	if err := json.Unmarshal(data, &f, json.RejectUnknownMembers(true)); err != nil {
		return Evidence{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return f.evidence()
}

func (f file) evidence() (Evidence, error) {
	if f.Format != Format {
		return Evidence{}, fmt.Errorf("%w: format is %q: need %q", ErrFormat, f.Format, Format)
	}
	bank, err := measure.ParseAlg(f.Bank)
	if err != nil {
		return Evidence{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	ev := Evidence{
		Nonce: f.Nonce, Bank: bank, Quoted: f.Quoted, Signature: f.Signature, Log: f.Log,
		Card: f.Card, Received: f.Received, PCRs: map[measure.PCR][]byte{},
	}
	if f.Batch != nil {
		if ev.Batch, err = f.Batch.proof(); err != nil {
			return Evidence{}, err
		}
	}
	for pcr, value := range f.PCRs {
		ev.PCRs[pcr] = value
	}
	for name, b := range f.Contents {
		if ev.Contents == nil {
			ev.Contents = map[string][]byte{}
		}
		ev.Contents[name] = b
	}
	if ev.Certificates, err = certificates(f.Certificates); err != nil {
		return Evidence{}, err
	}
	return ev, ev.checkSize()
}

func certificates(chains map[string][]string) (Certificates, error) {
	var c Certificates
	places := map[string]*[]string{"oiak": &c.OIAK, "tls": &c.TLS, "iak": &c.IAK, "idevid": &c.IDevID}
	for name, chain := range chains {
		place, ok := places[name]
		if !ok || len(chain) == 0 {
			return c, fmt.Errorf("%w: certificates: %q is not one of oiak, tls, iak, idevid, or is empty", ErrFormat, name)
		}
		*place = chain
	}
	return c, nil
}

// checkSize holds evidence to the bounds of a file.
func (ev Evidence) checkSize() error {
	if len(ev.PCRs) > measure.NumPCRs || len(ev.Log) > eventlog.MaxSize || len(ev.Contents) > MaxContents {
		return fmt.Errorf("%w: %d PCRs, log of %d bytes, %d contents: at most %d, %d, %d", ErrFormat,
			len(ev.PCRs), len(ev.Log), len(ev.Contents), measure.NumPCRs, eventlog.MaxSize, MaxContents)
	}
	if ev.Batch != nil {
		if err := ev.Batch.Check(); err != nil {
			return fmt.Errorf("%w: %w", ErrFormat, err)
		}
	}
	for pcr := range ev.PCRs {
		if pcr >= measure.NumPCRs {
			return fmt.Errorf("%w: PCR %d is above 23", ErrFormat, pcr)
		}
	}
	for name, b := range ev.Contents {
		if len(b) > MaxContent {
			return fmt.Errorf("%w: content %q of %d bytes: at most %d", ErrFormat, name, len(b), MaxContent)
		}
	}
	return nil
}

// Encode returns the file that Parse reads: the same bytes for the same
// evidence.
func (ev Evidence) Encode() ([]byte, error) {
	if err := ev.checkSize(); err != nil {
		return nil, err
	}
	f := file{
		Format: Format, Nonce: ev.Nonce, Bank: ev.Bank.String(), PCRs: map[measure.PCR]blob{},
		Quoted: ev.Quoted, Signature: ev.Signature, Log: ev.Log, Certificates: map[string][]string{},
		Card: ev.Card, Received: ev.Received, Contents: map[string]blob{},
	}
	if b := ev.Batch; b != nil {
		path := blob(b.Path)
		f.Batch = &place{&b.Index, &b.Size, &path}
	}
	for pcr, value := range ev.PCRs {
		f.PCRs[pcr] = value
	}
	for name, b := range ev.Contents {
		f.Contents[name] = b
	}
	c := ev.Certificates
	for name, chain := range map[string][]string{"oiak": c.OIAK, "tls": c.TLS, "iak": c.IAK, "idevid": c.IDevID} {
		if len(chain) > 0 {
			f.Certificates[name] = chain
		}
	}
	b, err := json.Marshal(f, jsontext.WithIndent("  "), json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	if len(b) > MaxFile {
		return nil, fmt.Errorf("%w: file of %d bytes: at most %d", ErrFormat, len(b), MaxFile)
	}
	return append(b, '\n'), nil
}
