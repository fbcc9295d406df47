package eventlog

import (
	"encoding/binary"
	"fmt"

	"waxseal/measure"
)

// DecodeIMA reads our events from a list in the form of the Linux files
// binary_runtime_measurements_<column>, which is also the form of the
// netequip_boot log of RFC 9684:
//
//	pcr u32 | digest of data in column | len u32 | "ima-ng" | len u32 | data
//
// (Linux Documentation/security/IMA-templates.rst; little-endian.) The list
// has the digest of one bank only, column; those of the other banks are
// computed, so each of banks must be computable or be column.
func DecodeIMA(b []byte, column measure.Alg, banks ...measure.Alg) (Log, error) {
	if err := checkSize(b); err != nil {
		return Log{}, err
	}
	for _, alg := range banks {
		if alg != column && !alg.Computable() {
			return Log{}, fmt.Errorf("IMA list with %v digests cannot give those of bank %v", column, alg)
		}
	}
	if column.Size() == 0 {
		return Log{}, fmt.Errorf("IMA list with digests of %v: unknown algorithm", column)
	}
	ima := encoding{
		skip: func(c *cursor, _ []measure.Alg) { skipIMA(c, column) },
		read: func(c *cursor, _ int, banks []measure.Alg, digests []measure.Digest) (Event, error) {
			return readIMA(c, column, banks, digests)
		},
	}
	return ima.decode(banks, cursor{b: b})
}

func skipIMA(c *cursor, column measure.Alg) {
	c.take(uint32(4 + column.Size()))
	c.take(c.le32())
	c.take(c.le32())
}

func readIMA(c *cursor, column measure.Alg, banks []measure.Alg, digests []measure.Digest) (Event, error) {
	pcr, sum := c.le32(), c.take(uint32(column.Size()))
	name := c.take(c.le32())
	data := c.take(c.le32())
	switch {
	case c.err != nil:
		return Event{}, c.err
	case pcr >= measure.NumPCRs:
		return Event{}, fmt.Errorf("PCR %d is above 23: %w", pcr, ErrMalformed)
	case string(name) != imaNG:
		return Event{}, fmt.Errorf("IMA template %q: need %s: %w", name, imaNG, ErrMalformed)
	}
	given := measure.Digest{Alg: column, Sum: sum}
	if column.Computable() && !measure.Hash(column, data).Equal(given) {
		return Event{}, fmt.Errorf("%v digest does not cover the template data: %w", column, ErrMalformed)
	}
	for i, alg := range banks {
		digests[i] = given
		if alg != column {
			digests[i] = measure.Hash(alg, data)
		}
	}
	return Event{PCR: measure.PCR(pcr), Ours: true, Type: EVEventTag, Digests: digests, Data: data}, nil
}

// EncodeIMA returns our events of l as a list with the digests of bank column.
// The firmware's events have no IMA form and are left out.
func EncodeIMA(l Log, column measure.Alg) ([]byte, error) {
	if err := l.check(); err != nil {
		return nil, fmt.Errorf("encode IMA list: %w", err)
	}
	var b []byte
	for _, e := range l.Ours() {
		d, ok := e.Digest(column)
		if !ok {
			return nil, fmt.Errorf("encode IMA list: log has no bank %v, only %v", column, l.Banks)
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(e.PCR))
		b = append(b, d.Sum...)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(imaNG)))
		b = append(b, imaNG...)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(e.Data)))
		b = append(b, e.Data...)
	}
	return b, checkSize(b)
}
