package authorised

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"waxseal/measure/manifest/sealed"
)

// Formats of the file, and of a revocation in it.
const (
	FileFormat       = "waxseal-mirrors-1"
	RevocationFormat = "waxseal-revocation-1"
)

// MaxFile is the largest file that Open reads, in bytes.
const MaxFile = 8 << 20

// Why a file is refused. Open wraps one of these or one of package sealed.
var (
	ErrFile      = errors.New("file of authorised mirrors is malformed")
	ErrUnsigned  = errors.New("file of authorised mirrors is not signed by enough approvers")
	ErrOld       = errors.New("file of authorised mirrors is older than one that was in force")
	ErrDifferent = errors.New("the approvers did not sign the same list")
)

// File is a list with the signatures of those who approve it, and what was
// revoked since.
type File struct {
	Format      string `json:"format"`
	Lists       []Blob `json:"lists"`       // the same list, sealed by each approver
	Revocations []Blob `json:"revocations"` // each sealed by one
}

// Blob is bytes in standard base64 with padding.
type Blob []byte

// MarshalText implements encoding.TextMarshaler.
func (b Blob) MarshalText() ([]byte, error) { return base64.StdEncoding.AppendEncode(nil, b), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Blob) UnmarshalText(text []byte) (err error) {
	*b, err = base64.StdEncoding.Strict().AppendDecode(nil, text)
	return err
}

// late is a revocation that was made after its list.
type late struct {
	Format string `json:"format"`
	Number uint64 `json:"number"` // of the file from now on
	Revocation
}

// ParseFile reads a file whose signatures nobody has looked at.
func ParseFile(data []byte) (File, error) {
	var f File
	if len(data) > MaxFile {
		return f, fmt.Errorf("%w: %d bytes: at most %d", ErrFile, len(data), MaxFile)
	}
	if err := json.Unmarshal(data, &f, json.RejectUnknownMembers(true)); err != nil {
		return File{}, fmt.Errorf("%w: %w", ErrFile, err)
	}
	if f.Format != FileFormat || len(f.Lists) == 0 || len(f.Lists) > MaxApprovers || len(f.Revocations) > MaxEntries {
		return File{}, fmt.Errorf("%w: it is a %q of %d lists and %d revocations", ErrFile, f.Format, len(f.Lists), len(f.Revocations))
	}
	plain, err := f.Encode()
	if err != nil || !bytes.Equal(plain, data) {
		return File{}, fmt.Errorf("%w: it is not written in its one plain form", ErrFile)
	}
	return f, nil
}

// Encode returns the file that ParseFile reads.
func (f File) Encode() ([]byte, error) {
	b, err := json.Marshal(f, jsontext.WithIndent("  "))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFile, err)
	}
	return append(b, '\n'), nil
}

// Sign returns a file of a new list, with the first of its approvals.
func (l List) Sign(keys sealed.Keys) (File, error) {
	blob, err := l.seal(keys)
	return File{Format: FileFormat, Lists: []Blob{blob}, Revocations: []Blob{}}, err
}

func (l List) seal(keys sealed.Keys) (Blob, error) {
	payload, err := l.Encode()
	if err != nil {
		return nil, err
	}
	return sealed.Seal(Format, payload, keys.Signers()...)
}

// Approve adds an approval to the list of a file. Whoever approves has read it.
func (f File) Approve(l List, keys sealed.Keys) (File, error) {
	blob, err := l.seal(keys)
	f.Lists = append(slices.Clone(f.Lists), blob)
	return f, err
}

// Revoke adds a revocation, with which the file has a new number. It needs one
// approver.
func (f File) Revoke(r Revocation, number uint64, keys sealed.Keys) (File, error) {
	payload, err := late{RevocationFormat, number, r}.encode()
	if err != nil {
		return f, err
	}
	blob, err := sealed.Seal(RevocationFormat, payload, keys.Signers()...)
	f.Revocations = append(slices.Clone(f.Revocations), blob)
	return f, err
}

func (l late) encode() ([]byte, error) {
	if l.Format != RevocationFormat || l.Number == 0 {
		return nil, fmt.Errorf("%w: it is a %q of number %d", ErrList, l.Format, l.Number)
	}
	if err := l.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrList, err)
	}
	return encode(l)
}
