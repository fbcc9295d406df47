package cbor

import "fmt"

// Reader reads items one after the other, from the outer to the inner. Once an
// item was not the one that was asked for, everything it returns is zero.
type Reader struct {
	s   scanner
	err error
}

// NewReader returns a reader over b, which must be one item that Check accepts.
func NewReader(b []byte) (*Reader, error) {
	if err := Check(b); err != nil {
		return nil, err
	}
	return &Reader{s: scanner{all: b, rest: b}}, nil
}

// want reads a head, which must be of one of two major types.
func (r *Reader) want(what string, a, b byte) (major byte, n uint64) {
	if r.err != nil {
		return 0, 0
	}
	at := len(r.s.all) - len(r.s.rest)
	major, n, err := r.s.head()
	if err == nil && major != a && major != b {
		err = ErrForm
	}
	if err != nil {
		r.err = fmt.Errorf("byte %d: %w: need %s", at, err, what)
		return 0, 0
	}
	return major, n
}

// Int reads an integer.
func (r *Reader) Int() int64 {
	major, n := r.want("an integer", majorUint, majorNint)
	if major == majorNint {
		return -1 - int64(n)
	}
	return int64(n)
}

func (r *Reader) string(what string, major byte) []byte {
	_, n := r.want(what, major, major)
	if r.err != nil {
		return nil
	}
	v, err := r.s.take(n)
	r.err = err
	return v
}

// Bytes reads a byte string. It shares memory with what is read.
func (r *Reader) Bytes() []byte { return r.string("a byte string", majorBytes) }

// Text reads a text.
func (r *Reader) Text() string { return string(r.string("a text", majorText)) }

// Array reads the head of an array and returns how many items follow. Each
// takes at least one byte.
func (r *Reader) Array() int {
	_, n := r.want("an array", majorArray, majorArray)
	return int(n)
}

// IsArray tells whether an array comes next.
func (r *Reader) IsArray() bool {
	return r.err == nil && len(r.s.rest) > 0 && r.s.rest[0]>>5 == majorArray
}

// Map reads the head of a map and returns how many entries follow, each a key
// and a value.
func (r *Reader) Map() int {
	_, n := r.want("a map", majorMap, majorMap)
	return int(n)
}

// Tag reads a tag, which must be the given one.
func (r *Reader) Tag(tag uint64) {
	what := fmt.Sprintf("tag %d", tag)
	_, n := r.want(what, majorTag, majorTag)
	if r.err == nil && n != tag {
		r.err = fmt.Errorf("%w: tag %d: need %s", ErrForm, n, what)
	}
}

// Err returns why an item was not the one that was asked for.
func (r *Reader) Err() error { return r.err }

// Done returns Err, or that something was left unread.
func (r *Reader) Done() error {
	if r.err == nil && len(r.s.rest) > 0 {
		return fmt.Errorf("%w: %d bytes are not read", ErrForm, len(r.s.rest))
	}
	return r.err
}
