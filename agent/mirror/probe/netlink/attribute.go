package netlink

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
)

// Attr is one attribute (struct nlattr, or rtattr, which is laid out alike).
type Attr struct {
	Type   uint16 // without the flags
	Nested bool   // NLA_F_NESTED is set; old families do not set it
	Data   []byte
}

const (
	attrHeader = 4
	nestedFlag = 1 << 15 // NLA_F_NESTED
	typeMask   = 1<<14 - 1
)

// Attributes walks attributes. A broken one is the last thing that it yields,
// as an error.
func Attributes(b []byte) iter.Seq2[Attr, error] {
	return func(yield func(Attr, error) bool) {
		for len(b) > 0 {
			if len(b) < attrHeader {
				yield(Attr{}, fmt.Errorf("%w: %d bytes are no attribute", ErrMalformed, len(b)))
				return
			}
			size, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
			if size < attrHeader || size > len(b) {
				yield(Attr{}, fmt.Errorf("%w: attribute %d of %d bytes in %d", ErrMalformed, kind&typeMask, size, len(b)))
				return
			}
			if !yield(Attr{kind & typeMask, kind&nestedFlag != 0, b[attrHeader:size]}, nil) {
				return
			}
			b = b[min(align(size), len(b)):]
		}
	}
}

// Uint8 is a number of one byte; an attribute of another length reads as 0, as
// in all of these.
func (a Attr) Uint8() uint8 {
	if len(a.Data) != 1 {
		return 0
	}
	return a.Data[0]
}

// Uint16 is in the machine's byte order.
func (a Attr) Uint16() uint16 {
	if len(a.Data) != 2 {
		return 0
	}
	return binary.NativeEndian.Uint16(a.Data)
}

// Uint32 is in the machine's byte order.
func (a Attr) Uint32() uint32 {
	if len(a.Data) != 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(a.Data)
}

// Uint64 is in the machine's byte order.
func (a Attr) Uint64() uint64 {
	if len(a.Data) != 8 {
		return 0
	}
	return binary.NativeEndian.Uint64(a.Data)
}

// BigUint16 is in network byte order.
func (a Attr) BigUint16() uint16 {
	if len(a.Data) != 2 {
		return 0
	}
	return binary.BigEndian.Uint16(a.Data)
}

// BigUint32 is in network byte order.
func (a Attr) BigUint32() uint32 {
	if len(a.Data) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(a.Data)
}

// BigUint64 is in network byte order.
func (a Attr) BigUint64() uint64 {
	if len(a.Data) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(a.Data)
}

// String is the text up to the first NUL.
func (a Attr) String() string {
	text, _, _ := bytes.Cut(a.Data, []byte{0})
	return string(text)
}

// AppendAttr adds an attribute with data, padded.
func AppendAttr(b []byte, kind uint16, data []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(attrHeader+len(data)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, data...)
	return append(b, make([]byte, align(len(data))-len(data))...)
}

// AppendUint32 adds a number in the machine's byte order.
func AppendUint32(b []byte, kind uint16, v uint32) []byte {
	return AppendAttr(b, kind, binary.NativeEndian.AppendUint32(nil, v))
}

// AppendString adds a text that ends with NUL.
func AppendString(b []byte, kind uint16, s string) []byte {
	return AppendAttr(b, kind, append([]byte(s), 0))
}

// AppendNested adds an attribute whose data are attributes.
func AppendNested(b []byte, kind uint16, inside []byte) []byte {
	return AppendAttr(b, kind|nestedFlag, inside)
}
