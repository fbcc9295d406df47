package eventlog

import (
	"encoding/binary"
	"fmt"
)

// cursor reads fields from the front of b. After the first field that is not
// there all reads give zero values and err is set.
type cursor struct {
	b   []byte
	off int // of the next byte
	err error
}

func (c *cursor) more() bool { return c.err == nil && c.off < len(c.b) }

// take returns the next n bytes, in place.
func (c *cursor) take(n uint32) []byte {
	if c.err != nil || uint64(n) > uint64(len(c.b)-c.off) {
		return c.missing(n)
	}
	c.off += int(n)
	return c.b[c.off-int(n) : c.off : c.off]
}

// missing notes that a field of n bytes is not there. It stands alone so that
// take is small enough to be inlined.
func (c *cursor) missing(n uint32) []byte {
	if c.err == nil {
		c.err = fmt.Errorf("field of %d bytes where %d are left: %w", n, len(c.b)-c.off, ErrTruncated)
	}
	return nil
}

func (c *cursor) u8() uint8 {
	if v := c.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (c *cursor) le16() uint16 {
	if v := c.take(2); v != nil {
		return binary.LittleEndian.Uint16(v)
	}
	return 0
}

func (c *cursor) le32() uint32 {
	if v := c.take(4); v != nil {
		return binary.LittleEndian.Uint32(v)
	}
	return 0
}

// tlv returns the value of a CEL-TLV field, which must be of type t.
func (c *cursor) tlv(t uint8, what string) []byte {
	got, v := c.anyTLV()
	if c.err == nil && got != t {
		c.err = fmt.Errorf("TLV type %d where %s (%d) belongs: %w", got, what, t, ErrMalformed)
		return nil
	}
	return v
}

func (c *cursor) anyTLV() (t uint8, v []byte) {
	head := c.take(tlHead)
	if head == nil {
		return 0, nil
	}
	return head[0], c.take(binary.BigEndian.Uint32(head[1:]))
}

// end makes it an error that bytes are left.
func (c *cursor) end() error {
	if c.err == nil && c.off != len(c.b) {
		c.err = fmt.Errorf("%d bytes too many: %w", len(c.b)-c.off, ErrMalformed)
	}
	return c.err
}
