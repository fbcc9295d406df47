package cbor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
)

// Why bytes are refused.
var (
	// ErrForm means that the bytes are no CBOR item, or not its one spelling.
	ErrForm = errors.New("CBOR is malformed or not deterministic")
	// ErrSubset means that they are CBOR which no token is made of.
	ErrSubset = errors.New("CBOR holds what a token does not")
)

// Check tells whether b is exactly one item, in its one spelling.
func Check(b []byte) error {
	s := scanner{all: b, rest: b}
	if err := s.item(0); err != nil {
		return fmt.Errorf("byte %d: %w", len(b)-len(s.rest), err)
	}
	if len(s.rest) > 0 {
		return fmt.Errorf("%w: %d bytes after the item", ErrForm, len(s.rest))
	}
	return nil
}

// scanner walks over items without keeping anything of them.
type scanner struct{ all, rest []byte }

// item walks over one item that stands in depth others.
func (s *scanner) item(depth int) error {
	major, n, err := s.head()
	if err != nil {
		return err
	}
	switch major {
	case majorUint, majorNint:
		if n > math.MaxInt64 {
			return fmt.Errorf("%w: an integer above 63 bits", ErrSubset)
		}
		return nil
	case majorBytes, majorText:
		v, err := s.take(n)
		if err == nil && major == majorText && !utf8.Valid(v) {
			return fmt.Errorf("%w: text that is not UTF-8", ErrForm)
		}
		return err
	}
	if depth == MaxDepth {
		return fmt.Errorf("%w: more than %d levels", ErrSubset, MaxDepth)
	}
	switch major {
	case majorArray:
		for ; n > 0 && err == nil; n-- {
			err = s.item(depth + 1)
		}
		return err
	case majorMap:
		return s.pairs(n, depth+1)
	}
	return s.item(depth + 1) // of a tag
}

// pairs walks over n entries of a map and demands that their keys ascend.
func (s *scanner) pairs(n uint64, depth int) error {
	var last []byte
	for i := range n {
		start := s.rest
		if len(start) > 0 && start[0]>>5 > majorText {
			return fmt.Errorf("%w: a key that is neither number nor string", ErrSubset)
		}
		if err := s.item(depth); err != nil {
			return err
		}
		key := start[:len(start)-len(s.rest)]
		if i > 0 && bytes.Compare(last, key) >= 0 {
			return fmt.Errorf("%w: key %x stands twice or not in order", ErrForm, key)
		}
		last = key
		if err := s.item(depth); err != nil {
			return err
		}
	}
	return nil
}

// head reads a major type and its argument (RFC 8949, section 3).
func (s *scanner) head() (major byte, n uint64, err error) {
	first, err := s.take(1)
	if err != nil {
		return 0, 0, err
	}
	major, info := first[0]>>5, first[0]&0x1f
	if major > majorTag {
		return 0, 0, fmt.Errorf("%w: a float or simple value", ErrSubset)
	}
	if info < 24 {
		return major, uint64(info), nil
	}
	if info > 27 {
		return 0, 0, fmt.Errorf("%w: an indefinite length or a reserved form", ErrForm)
	}
	size := uint64(1) << (info - 24)
	b, err := s.take(size)
	if err != nil {
		return 0, 0, err
	}
	var wide [8]byte
	copy(wide[8-size:], b)
	n = binary.BigEndian.Uint64(wide[:])
	if n < 24 || size > 1 && n>>(4*size) == 0 {
		return 0, 0, fmt.Errorf("%w: number %d in more bytes than it needs", ErrForm, n)
	}
	return major, n, nil
}

func (s *scanner) take(n uint64) ([]byte, error) {
	if n > uint64(len(s.rest)) {
		return nil, fmt.Errorf("%w: it is cut short", ErrForm)
	}
	b := s.rest[:n:n]
	s.rest = s.rest[n:]
	return b, nil
}
