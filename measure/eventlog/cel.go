package eventlog

import (
	"encoding/binary"
	"fmt"

	"waxseal/measure"
)

// TLV types of a CEL record and of its contents (TCG Canonical Event Log
// Format, version 1.0, section 5). A TLV is u8 type | u32 length | value; all
// integers are big-endian.
const (
	celRecnum      = 0 // u64
	celPCR         = 1 // u8
	celDigests     = 3 // TLVs: low byte of the TPM_ALG_ID, digest
	celPCClient    = 5 // content: an event of the firmware
	celIMATemplate = 7 // content: an event of ours

	pcClientType = 0 // u32
	pcClientData = 1

	imaTemplateName = 0
	imaTemplateData = 1
)

// imaNG is the name of the IMA template whose data is a record's Payload.
const imaNG = "ima-ng"

// DecodeCEL reads a log in CEL-TLV: the firmware's events as PC-client
// records, then ours as IMA template records, numbered from 0 without gaps,
// all with the same banks in the same order. An empty log is an error.
func DecodeCEL(b []byte) (Log, error) {
	if err := checkSize(b); err != nil {
		return Log{}, err
	}
	banks, err := celBanks(b)
	if err != nil {
		return Log{}, at(0, 0, err)
	}
	return cel.decode(banks, cursor{b: b})
}

// celBanks returns the banks of the first record.
func celBanks(b []byte) ([]measure.Alg, error) {
	c := cursor{b: b}
	c.tlv(celRecnum, "the record number")
	c.tlv(celPCR, "the PCR")
	d := cursor{b: c.tlv(celDigests, "the digests")}
	if c.err != nil {
		return nil, c.err
	}
	var banks []measure.Alg
	for d.more() {
		t, _ := d.anyTLV()
		if banks = append(banks, measure.Alg(t)); len(banks) > MaxBanks {
			return nil, fmt.Errorf("more than %d PCR banks: %w", MaxBanks, ErrMalformed)
		}
	}
	return banks, d.err
}

var cel = encoding{skip: skipCEL, read: readCEL}

// skipCEL trusts that number, PCR and digests have the sizes that readCEL
// wants, and does not read them.
func skipCEL(c *cursor, banks []measure.Alg) {
	c.take(uint32(celRecordHead(banks)))
	c.anyTLV()
}

// readCEL reads record n: number, PCR, digests, content.
func readCEL(c *cursor, n int, banks []measure.Alg, digests []measure.Digest) (Event, error) {
	recnum, pcr := c.tlv(celRecnum, "the record number"), c.tlv(celPCR, "the PCR")
	sums := cursor{b: c.tlv(celDigests, "the digests")}
	content, value := c.anyTLV()
	if c.err != nil {
		return Event{}, c.err
	}
	if len(recnum) != 8 || binary.BigEndian.Uint64(recnum) != uint64(n) {
		return Event{}, fmt.Errorf("record number %x: need %d in 8 bytes: %w", recnum, n, ErrMalformed)
	}
	if len(pcr) != 1 || pcr[0] >= measure.NumPCRs {
		return Event{}, fmt.Errorf("PCR %x: need 0 to 23 in 1 byte: %w", pcr, ErrMalformed)
	}
	for i, alg := range banks {
		digests[i] = measure.Digest{Alg: alg, Sum: sums.tlv(uint8(alg), "the digest of the next bank")}
	}
	if err := sums.end(); err != nil {
		return Event{}, fmt.Errorf("digests: %w", err)
	}
	e := Event{PCR: measure.PCR(pcr[0]), Digests: digests}
	return e, e.readContent(content, value)
}

func (e *Event) readContent(content uint8, value []byte) error {
	c := cursor{b: value}
	switch content {
	case celPCClient:
		typ := c.tlv(pcClientType, "the event type")
		if c.err == nil && len(typ) != 4 {
			return fmt.Errorf("event type of %d bytes: need 4: %w", len(typ), ErrMalformed)
		}
		e.Data = c.tlv(pcClientData, "the event data")
		if err := c.end(); err != nil {
			return fmt.Errorf("PC-client record: %w", err)
		}
		e.Type = binary.BigEndian.Uint32(typ)
	case celIMATemplate:
		name := c.tlv(imaTemplateName, "the template name")
		e.Ours, e.Type, e.Data = true, EVEventTag, c.tlv(imaTemplateData, "the template data")
		if err := c.end(); err != nil {
			return fmt.Errorf("IMA template record: %w", err)
		}
		if string(name) != imaNG {
			return fmt.Errorf("IMA template %q: need %s: %w", name, imaNG, ErrMalformed)
		}
	default:
		return fmt.Errorf("content type %d is neither PC-client (5) nor IMA template (7): %w", content, ErrMalformed)
	}
	return nil
}

// EncodeCEL returns the CEL-TLV form of l, which must not be empty.
func EncodeCEL(l Log) ([]byte, error) {
	if err := l.check(); err != nil {
		return nil, fmt.Errorf("encode CEL: %w", err)
	}
	if len(l.Events) == 0 {
		return nil, fmt.Errorf("encode CEL: a log without events: %w", ErrMalformed)
	}
	b := make([]byte, 0, celSize(l))
	for i, e := range l.Events {
		b = appendCEL(b, i, e)
	}
	return b, checkSize(b)
}

// tlHead is the size of the type and length of a TLV.
const tlHead = 5

// celSize returns the size of the encoded log in bytes.
func celSize(l Log) int {
	head := celRecordHead(l.Banks)
	n := 0
	for _, e := range l.Events {
		n += head + tlHead + contentSize(e)
	}
	return n
}

// celRecordHead returns the size of the number, PCR and digests of a record.
func celRecordHead(banks []measure.Alg) int { return 3*tlHead + 8 + 1 + digestsSize(banks) }

func digestsSize(banks []measure.Alg) int {
	n := 0
	for _, alg := range banks {
		n += tlHead + alg.Size()
	}
	return n
}

func contentSize(e Event) int {
	if e.Ours {
		return 2*tlHead + len(imaNG) + len(e.Data)
	}
	return 2*tlHead + 4 + len(e.Data)
}

func appendCEL(b []byte, n int, e Event) []byte {
	b = binary.BigEndian.AppendUint64(appendHead(b, celRecnum, 8), uint64(n))
	b = append(appendHead(b, celPCR, 1), uint8(e.PCR))
	size := 0
	for _, d := range e.Digests {
		size += tlHead + len(d.Sum)
	}
	b = appendHead(b, celDigests, size)
	for _, d := range e.Digests {
		b = append(appendHead(b, uint8(d.Alg), len(d.Sum)), d.Sum...)
	}
	if e.Ours {
		b = appendHead(b, celIMATemplate, contentSize(e))
		b = append(appendHead(b, imaTemplateName, len(imaNG)), imaNG...)
		return append(appendHead(b, imaTemplateData, len(e.Data)), e.Data...)
	}
	b = appendHead(b, celPCClient, contentSize(e))
	b = binary.BigEndian.AppendUint32(appendHead(b, pcClientType, 4), e.Type)
	return append(appendHead(b, pcClientData, len(e.Data)), e.Data...)
}

func appendHead(b []byte, t uint8, size int) []byte {
	return binary.BigEndian.AppendUint32(append(b, t), uint32(size))
}
