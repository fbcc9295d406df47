// Package csr writes and reads TCG-CSR-IDEVID, the request by which a device
// asks for certificates of keys that are in its TPM ("TPM 2.0 Keys for Device
// Identity and Attestation", version 1.10, section 13.1:
// TCG_CSR_IDEVID_CONTENT).
//
// It knows the layout and nothing else: it judges no key, no certificate and
// no signature. Parse allocates nothing by a length that it has not compared
// with the bytes that are there.
package csr

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"waxseal/measure"
	"waxseal/measure/structure"
)

// ErrFormat means that bytes are no TCG_CSR_IDEVID_CONTENT.
var ErrFormat = errors.New("not a TCG-CSR-IDEVID")

// MaxSize is the largest content that is written or read, in bytes. A real one
// has about 2 KiB; an event log and CA data may stand in it.
const MaxSize = 32 << 10

// Constants of the layout.
const (
	version = 0x100 // structVer
	align   = 16    // bytes; the content is padded to a multiple
	maxText = 128   // bytes of prodModel and prodSerial
	sizes   = 13    // numbers in the table of sizes, the padding's included
)

// Content is what a device asks with. Its fields stand in the order of the
// layout.
type Content struct {
	Model        string // prodModel
	Serial       string // prodSerial
	CAData       []byte // prodCaData, for the CA; ours is empty
	BootLog      []byte // bootEvntLog; ours is empty
	EK           []byte // ekCert: DER of the EK's certificate, or the EK's TPMT_PUBLIC where it has none
	IAK          []byte // attestPub: TPMT_PUBLIC
	IAKTicket    []byte // atCreateTkt; ours is empty
	IAKAttest    []byte // atCertifyInfo: TPMS_ATTEST; ours is empty
	IAKSignature []byte // atCertifyInfoSignature: TPMT_SIGNATURE; ours is empty
	IDevID       []byte // signingPub: TPMT_PUBLIC
	IDevIDAttest []byte // sgnCertifyInfo: TPMS_ATTEST by which the IAK certifies the IDevID
	IDevIDProof  []byte // sgnCertifyInfoSignature: TPMT_SIGNATURE of the IAK over IDevIDAttest
}

// field is one field of the layout.
type field struct {
	name   string
	bytes  []byte
	needed bool
	limit  int
}

// fields returns the fields in the order of the layout, without the padding.
func (c Content) fields() []field {
	return []field{
		{"prodModel", []byte(c.Model), true, maxText},
		{"prodSerial", []byte(c.Serial), true, maxText},
		{"prodCaData", c.CAData, false, MaxSize},
		{"bootEvntLog", c.BootLog, false, MaxSize},
		{"ekCert", c.EK, true, MaxSize},
		{"attestPub", c.IAK, true, MaxSize},
		{"atCreateTkt", c.IAKTicket, false, MaxSize},
		{"atCertifyInfo", c.IAKAttest, false, MaxSize},
		{"atCertifyInfoSignature", c.IAKSignature, false, MaxSize},
		{"signingPub", c.IDevID, true, MaxSize},
		{"sgnCertifyInfo", c.IDevIDAttest, true, MaxSize},
		{"sgnCertifyInfoSignature", c.IDevIDProof, true, MaxSize},
	}
}

// content is fields backwards.
func content(f []field) Content {
	return Content{
		Model: string(f[0].bytes), Serial: string(f[1].bytes), CAData: f[2].bytes, BootLog: f[3].bytes,
		EK: f[4].bytes, IAK: f[5].bytes, IAKTicket: f[6].bytes, IAKAttest: f[7].bytes, IAKSignature: f[8].bytes,
		IDevID: f[9].bytes, IDevIDAttest: f[10].bytes, IDevIDProof: f[11].bytes,
	}
}

func (f field) check(size int) error {
	if f.needed && size == 0 {
		return fmt.Errorf("%w: no %s", ErrFormat, f.name)
	}
	if size > f.limit {
		return fmt.Errorf("%w: %s of %d bytes: at most %d", ErrFormat, f.name, size, f.limit)
	}
	return nil
}

// Encode writes the content, with its SHA-384 in front and zeros as padding.
func (c Content) Encode() ([]byte, error) {
	if err := checkTexts(c); err != nil {
		return nil, err
	}
	head := binary.BigEndian.AppendUint32(nil, version)
	head = binary.BigEndian.AppendUint32(head, uint32(measure.SHA384))
	head = binary.BigEndian.AppendUint32(head, uint32(measure.SHA384.Size()))
	var table, body []byte
	for _, f := range c.fields() {
		if err := f.check(len(f.bytes)); err != nil {
			return nil, err
		}
		table = binary.BigEndian.AppendUint32(table, uint32(len(f.bytes)))
		body = append(body, f.bytes...)
	}
	pad := padding(len(head) + measure.SHA384.Size() + 4*sizes + len(body))
	table = binary.BigEndian.AppendUint32(table, uint32(pad))
	body = append(body, make([]byte, pad)...)
	follows := append(table, body...)
	out := append(append(head, measure.Hash(measure.SHA384, follows).Sum...), follows...)
	if len(out) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes: at most %d", ErrFormat, len(out), MaxSize)
	}
	return out, nil
}

// padding returns how many bytes a content of size bytes lacks to a multiple
// of align.
func padding(size int) int { return (align - size%align) % align }

// Parse reads a content: every size must be true to the byte, the padding the
// shortest one, and the hash in front that of what follows. The padding's
// bytes may be anything: makers leave there what was in memory, and the hash
// covers it.
func Parse(b []byte) (Content, error) {
	if len(b) > MaxSize {
		return Content{}, fmt.Errorf("%w: %d bytes: at most %d", ErrFormat, len(b), MaxSize)
	}
	r := structure.Reader{Rest: b}
	if v := r.U32(); v != version {
		return Content{}, fmt.Errorf("%w: version 0x%x: need 0x%x", ErrFormat, v, version)
	}
	if err := readHash(&r); err != nil {
		return Content{}, err
	}
	f := Content{}.fields()
	lengths := make([]uint32, sizes)
	for i := range lengths {
		lengths[i] = r.U32()
	}
	total := uint64(0)
	for _, n := range lengths {
		total += uint64(n)
	}
	if r.Short() || total != uint64(len(r.Rest)) {
		return Content{}, fmt.Errorf("%w: its sizes add up to %d bytes, there are %d", ErrFormat, total, len(r.Rest))
	}
	for i := range f {
		if err := f[i].check(int(lengths[i])); err != nil {
			return Content{}, err
		}
		if n := lengths[i]; n > 0 {
			f[i].bytes = r.Take(int(n))
		}
	}
	if pad := len(r.Rest); pad != padding(len(b)-pad) {
		return Content{}, fmt.Errorf("%w: padding of %d bytes: need the shortest to a multiple of %d", ErrFormat, pad, align)
	}
	c := content(f)
	return c, checkTexts(c)
}

// readHash reads the hash algorithm and the hash, and holds it against what
// follows.
func readHash(r *structure.Reader) error {
	id, size := r.U32(), r.U32()
	alg := measure.Alg(id)
	if id > 0xffff || !alg.Computable() || int(size) != alg.Size() {
		return fmt.Errorf("%w: hash 0x%x of %d bytes: need SHA-256 or stronger", ErrFormat, id, size)
	}
	sum := r.Take(alg.Size())
	if r.Short() || !bytes.Equal(sum, measure.Hash(alg, r.Rest).Sum) {
		return fmt.Errorf("%w: its hash is not that of what follows", ErrFormat)
	}
	return nil
}

// checkTexts accepts printable ASCII: model and serial number end in
// certificates and on terminals.
func checkTexts(c Content) error {
	for _, s := range []string{c.Model, c.Serial} {
		for i := range len(s) {
			if s[i] < 0x20 || s[i] > 0x7e {
				return fmt.Errorf("%w: model or serial number is not printable ASCII", ErrFormat)
			}
		}
	}
	return nil
}
