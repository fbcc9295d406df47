package measure

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// MaxName is the largest length of a record name in bytes.
const MaxName = 255

// Suffixes of a record name for an item that could not be hashed. The
// content of such a record is the digest of the word without "!".
const (
	Absent = "!absent"
	Error  = "!error"
)

// Prefixes of the names of caps: the records that close a PCR.
const (
	Handoff = "phase/handoff/" // the boot was measured to the end
	Abort   = "phase/abort/"   // the measuring stopped early; what follows the slash is the reason
)

// Record is one measured thing. Its name and the digest of its content are
// both inside the payload that is extended, so both are authenticated.
type Record struct {
	PCR     PCR
	Name    string            // class/source/item[?c=form], ASCII 0x21–0x7e, at most MaxName bytes
	Content [sha256.Size]byte // SHA-256 of the content in its canonical form
}

// Of returns the record of content under name, in the PCR that p gives its class.
func (p Profile) Of(name string, content []byte) (Record, error) {
	return p.Sum(name, sha256.Sum256(content))
}

// Sum is Of for a content that is already hashed.
func (p Profile) Sum(name string, content [sha256.Size]byte) (Record, error) {
	pcr, err := p.For(name)
	if err != nil {
		return Record{}, err
	}
	r := Record{pcr, name, content}
	return r, r.Check()
}

// AbsentRecord says that an item of the policy is not there.
func (p Profile) AbsentRecord(name string) (Record, error) {
	return p.Of(name+Absent, []byte(Absent[1:]))
}

// ErrorRecord says that an item of the policy could not be read.
func (p Profile) ErrorRecord(name string) (Record, error) {
	return p.Of(name+Error, []byte(Error[1:]))
}

// Cap returns the records that close the profile's capped PCRs. name starts
// with Handoff or Abort.
func (p Profile) Cap(name string) []Record {
	content := sha256.Sum256([]byte(name))
	var caps []Record
	for _, pcr := range p.Capped() {
		caps = append(caps, Record{pcr, name, content})
	}
	return caps
}

// IsCap tells whether the record closes its PCR.
func (r Record) IsCap() bool {
	return strings.HasPrefix(r.Name, Handoff) || strings.HasPrefix(r.Name, Abort)
}

// Class returns the part of the name before the first slash.
func (r Record) Class() string {
	class, _, _ := strings.Cut(r.Name, "/")
	return class
}

// Subject returns the name without the suffixes Absent and Error: what the
// record speaks of, whether or not it could be read.
func (r Record) Subject() string { return Subject(r.Name) }

// Subject returns a record name without the suffixes Absent and Error.
func Subject(name string) string {
	return strings.TrimSuffix(strings.TrimSuffix(name, Absent), Error)
}

// Check tells whether the record can be encoded.
func (r Record) Check() error {
	if r.PCR >= NumPCRs {
		return fmt.Errorf("record %q: PCR %d is above 23", r.Name, r.PCR)
	}
	return CheckName(r.Name)
}

// CheckName tells whether name is a valid record name.
func CheckName(name string) error { return checkName(name) }

func checkName[text string | []byte](name text) error {
	if len(name) == 0 || len(name) > MaxName {
		return fmt.Errorf("record name of %d bytes: need 1 to %d", len(name), MaxName)
	}
	slash := false
	for i := range len(name) {
		if name[i] < 0x21 || name[i] > 0x7e {
			return fmt.Errorf("record name %q: byte %d (0x%02x) is not printable ASCII", name, i, name[i])
		}
		slash = slash || name[i] == '/'
	}
	if !slash {
		return fmt.Errorf("record name %q: need class/item", name)
	}
	return nil
}

const contentAlg = "sha256:\x00"

// Payload returns the IMA ima-ng template data of the record, the bytes whose
// digest is extended into the PCR:
//
//	u32le 40 | "sha256:" 0x00 | 32 bytes | u32le len(name)+1 | name 0x00
//
// (Linux Documentation/security/IMA-templates.rst, fields d-ng and n-ng.)
func (r Record) Payload() []byte {
	p := make([]byte, 0, 4+len(contentAlg)+sha256.Size+4+len(r.Name)+1)
	p = binary.LittleEndian.AppendUint32(p, uint32(len(contentAlg)+sha256.Size))
	p = append(p, contentAlg...)
	p = append(p, r.Content[:]...)
	p = binary.LittleEndian.AppendUint32(p, uint32(len(r.Name)+1))
	p = append(p, r.Name...)
	return append(p, 0)
}

var errPayload = errors.New("record payload is not ima-ng data with a sha256 digest and a printable name")

// payloadHead is the offset of the length of the name in a payload.
const payloadHead = 4 + len(contentAlg) + sha256.Size

// ParsePayload is the inverse of Payload. It accepts nothing but what Payload
// returns for a valid record.
func ParsePayload(pcr PCR, p []byte) (Record, error) {
	if err := CheckPayload(p); err != nil {
		return Record{}, err
	}
	if pcr >= NumPCRs {
		return Record{}, fmt.Errorf("record payload in PCR %d: above 23", pcr)
	}
	r := Record{PCR: pcr, Name: string(p[payloadHead+4 : len(p)-1])}
	copy(r.Content[:], p[4+len(contentAlg):])
	return r, nil
}

// CheckPayload tells whether ParsePayload accepts p, without making a record.
func CheckPayload(p []byte) error {
	if len(p) < payloadHead+4+2 || len(p) > payloadHead+4+MaxName+1 {
		return errPayload
	}
	if binary.LittleEndian.Uint32(p) != uint32(payloadHead-4) || string(p[4:4+len(contentAlg)]) != contentAlg {
		return errPayload
	}
	name := p[payloadHead+4:]
	if binary.LittleEndian.Uint32(p[payloadHead:]) != uint32(len(name)) || name[len(name)-1] != 0 {
		return errPayload
	}
	if err := checkName(name[:len(name)-1]); err != nil {
		return fmt.Errorf("%w: %w", errPayload, err)
	}
	return nil
}

// Digests returns the payload's digest for each bank, in the order of banks.
// A bank that is not computable (SHA-1, SM3) gets the SHA-256 digest cut to
// size: the bank is never evidence, but it must not stay a blank slate.
func (r Record) Digests(banks []Alg) []Digest {
	p := r.Payload()
	ds := make([]Digest, len(banks))
	for i, alg := range banks {
		if alg.Computable() {
			ds[i] = Hash(alg, p)
			continue
		}
		ds[i] = Digest{alg, Hash(SHA256, p).Sum[:alg.Size()]}
	}
	return ds
}
