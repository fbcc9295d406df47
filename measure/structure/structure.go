// Package structure reads TPM structures: big-endian numbers and byte strings
// with their length before them (TPM 2.0 Part 2, section 4.2).
//
// Reader knows no structure itself, copies nothing and allocates nothing: a
// length that is a lie costs no memory. It never panics. Point is the one
// structure that several readers share.
package structure

import "encoding/binary"

// Reader reads from the front of Rest. After a read beyond the end it is short
// and every further read gives zero.
type Reader struct {
	Rest  []byte
	short bool
}

// Take returns the next n bytes, or nil if there are fewer.
func (r *Reader) Take(n int) []byte {
	if n < 0 || n > len(r.Rest) {
		r.Rest, r.short = nil, true
		return nil
	}
	b := r.Rest[:n:n]
	r.Rest = r.Rest[n:]
	return b
}

// U8 reads one byte.
func (r *Reader) U8() uint8 {
	if b := r.Take(1); b != nil {
		return b[0]
	}
	return 0
}

// U16 reads two bytes.
func (r *Reader) U16() uint16 {
	if b := r.Take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

// U32 reads four bytes.
func (r *Reader) U32() uint32 {
	if b := r.Take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// U64 reads eight bytes.
func (r *Reader) U64() uint64 {
	if b := r.Take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// Sized reads a TPM2B: a length of two bytes, then as many bytes.
func (r *Reader) Sized() []byte { return r.Take(int(r.U16())) }

// Short tells whether a read went beyond the end.
func (r *Reader) Short() bool { return r.short }

// Done tells whether all was read, and no more than there was.
func (r *Reader) Done() bool { return !r.short && len(r.Rest) == 0 }

// AppendSized appends b as a TPM2B. b has at most 65535 bytes.
func AppendSized(to, b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(to, uint16(len(b))), b...)
}
