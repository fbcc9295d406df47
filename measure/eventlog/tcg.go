package eventlog

import (
	"encoding/binary"
	"fmt"

	"waxseal/measure"
)

// OurTag is the taggedEventID of our events in a TCG log: "WXS1" on disk.
const OurTag uint32 = 0x31535857

const sha1Size = 20

// DecodeTCG reads a crypto-agile log as the firmware leaves it (PC Client
// Platform Firmware Profile, section 10.2): the Spec ID event in the format of
// TPM 1.2, then events that have a digest for each bank. All of b must be the
// log: padding is an error.
func DecodeTCG(b []byte) (Log, error) {
	if err := checkSize(b); err != nil {
		return Log{}, err
	}
	c := cursor{b: b}
	header, err := readHeader(&c)
	if err != nil {
		return Log{}, fmt.Errorf("event 0: %w", err)
	}
	banks, err := decodeSpecID(header)
	if err != nil {
		return Log{}, fmt.Errorf("event 0: %w", err)
	}
	return tcg.decode(banks, c, Event{Type: EVNoAction, Digests: zeroDigests(banks), Data: header})
}

// readHeader returns the data of the first event, a TCG_PCClientPCREvent:
//
//	pcrIndex u32 | eventType u32 | SHA-1 digest 20 | eventDataSize u32 | event
func readHeader(c *cursor) ([]byte, error) {
	pcr, typ, digest := c.le32(), c.le32(), c.take(sha1Size)
	if c.err == nil && (pcr != 0 || typ != EVNoAction || !allZero(digest)) {
		return nil, ErrFormat
	}
	data := c.take(c.le32())
	return data, c.err
}

var tcg = encoding{skip: skipTCG, read: readTCG}

// skipTCG trusts that the digests are those of banks, and does not read them.
func skipTCG(c *cursor, banks []measure.Alg) {
	head := 3 * 4
	for _, alg := range banks {
		head += 2 + alg.Size()
	}
	c.take(uint32(head))
	c.take(c.le32())
}

// readTCG reads a TCG_PCR_EVENT2:
//
//	pcrIndex u32 | eventType u32 | count u32 | count × (algorithm u16, digest) | eventSize u32 | event
func readTCG(c *cursor, _ int, banks []measure.Alg, digests []measure.Digest) (Event, error) {
	pcr, typ, count := c.le32(), c.le32(), c.le32()
	if c.err == nil && pcr >= measure.NumPCRs {
		return Event{}, fmt.Errorf("PCR %d is above 23: %w", pcr, ErrMalformed)
	}
	if c.err == nil && count != uint32(len(banks)) {
		return Event{}, fmt.Errorf("%d digests for %d banks: %w", count, len(banks), ErrMalformed)
	}
	for i, want := range banks {
		alg := measure.Alg(c.le16())
		if c.err == nil && alg != want {
			return Event{}, fmt.Errorf("digest %d is of %v where the log has %v: %w", i, alg, want, ErrMalformed)
		}
		digests[i] = measure.Digest{Alg: want, Sum: c.take(uint32(want.Size()))}
	}
	data := c.take(c.le32())
	if c.err != nil {
		return Event{}, c.err
	}
	e := Event{PCR: measure.PCR(pcr), Type: typ, Digests: digests, Data: data}
	if typ == EVEventTag && isOurTag(data) {
		return untag(e)
	}
	return e, nil
}

// isOurTag tells whether the data of an EV_EVENT_TAG starts with our id.
func isOurTag(data []byte) bool {
	return len(data) >= 4 && binary.LittleEndian.Uint32(data) == OurTag
}

// untag turns the tagged event e into one of ours. TCG_PCClientTaggedEvent is
// taggedEventID u32 | taggedEventDataSize u32 | data; the digest covers data
// only, as in the events of the Linux EFI stub.
func untag(e Event) (Event, error) {
	c := cursor{b: e.Data}
	c.le32()
	e.Data = c.take(c.le32())
	if err := c.end(); err != nil {
		return Event{}, fmt.Errorf("tagged event: %w", err)
	}
	e.Ours = true
	return e, nil
}

// EncodeTCG returns the crypto-agile form of l. A log without a Spec ID event
// gets one.
func EncodeTCG(l Log) ([]byte, error) {
	if err := l.check(); err != nil {
		return nil, fmt.Errorf("encode TCG log: %w", err)
	}
	header, events := encodeSpecID(l.Banks), l.Events
	if len(events) > 0 && isSpecID(events[0]) {
		header, events = events[0].Data, events[1:]
	}
	b := binary.LittleEndian.AppendUint32(nil, 0)
	b = binary.LittleEndian.AppendUint32(b, EVNoAction)
	b = append(b, make([]byte, sha1Size)...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(header)))
	b = append(b, header...)
	for _, e := range events {
		b = appendTCG(b, e)
	}
	if len(events)+1 > MaxEvents {
		return nil, fmt.Errorf("encode TCG log: more than %d events: %w", MaxEvents, ErrTooLarge)
	}
	return b, checkSize(b)
}

func appendTCG(b []byte, e Event) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(e.PCR))
	b = binary.LittleEndian.AppendUint32(b, e.Type)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(e.Digests)))
	for _, d := range e.Digests {
		b = binary.LittleEndian.AppendUint16(b, uint16(d.Alg))
		b = append(b, d.Sum...)
	}
	if !e.Ours {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(e.Data)))
		return append(b, e.Data...)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(8+len(e.Data)))
	b = binary.LittleEndian.AppendUint32(b, OurTag)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(e.Data)))
	return append(b, e.Data...)
}
