// Package cbor writes and reads the part of CBOR (RFC 8949) that tokens are
// made of: integers, byte strings, texts, arrays, maps and tags.
//
// There is one spelling of each value, the deterministic one of RFC 8949,
// section 4.2.1: definite lengths, each number in its shortest form, the keys
// of a map in ascending order of their bytes and none twice. The reader
// refuses every other spelling, looks at no more than a few levels, copies
// nothing and allocates nothing for a length that is a lie. It never panics.
package cbor

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// Major types (RFC 8949, section 3.1).
const (
	majorUint  = 0
	majorNint  = 1
	majorBytes = 2
	majorText  = 3
	majorArray = 4
	majorMap   = 5
	majorTag   = 6
)

// MaxDepth is how many arrays, maps and tags may stand in each other.
const MaxDepth = 8

// appendHead appends the major type and its argument in the shortest form.
func appendHead(b []byte, major byte, n uint64) []byte {
	major <<= 5
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n < 1<<8:
		return append(b, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), n)
}

// AppendInt appends an integer.
func AppendInt(b []byte, n int64) []byte {
	if n < 0 {
		return appendHead(b, majorNint, uint64(-1-n))
	}
	return appendHead(b, majorUint, uint64(n))
}

// AppendBytes appends a byte string.
func AppendBytes(b, v []byte) []byte { return append(appendHead(b, majorBytes, uint64(len(v))), v...) }

// AppendText appends a text. s is UTF-8.
func AppendText(b []byte, s string) []byte {
	return append(appendHead(b, majorText, uint64(len(s))), s...)
}

// AppendArray appends the head of an array of n items, which follow.
func AppendArray(b []byte, n int) []byte { return appendHead(b, majorArray, uint64(n)) }

// AppendTag appends a tag. The item that it is of follows.
func AppendTag(b []byte, tag uint64) []byte { return appendHead(b, majorTag, tag) }

// Pair is one entry of a map: two items, each already encoded.
type Pair struct{ Key, Value []byte }

// AppendMap appends a map, in the order that it must have. No key may stand
// in pairs twice.
func AppendMap(b []byte, pairs ...Pair) []byte {
	sorted := slices.SortedFunc(slices.Values(pairs), func(p, q Pair) int { return bytes.Compare(p.Key, q.Key) })
	b = appendHead(b, majorMap, uint64(len(sorted)))
	for _, p := range sorted {
		b = append(append(b, p.Key...), p.Value...)
	}
	return b
}

// Int returns an integer as an item.
func Int(n int64) []byte { return AppendInt(nil, n) }

// Bytes returns a byte string as an item.
func Bytes(v []byte) []byte { return AppendBytes(nil, v) }

// Text returns a text as an item.
func Text(s string) []byte { return AppendText(nil, s) }
