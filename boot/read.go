package boot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
)

// chunk is the size of one read of a large thing, in bytes.
const chunk = 1 << 20

var (
	errChanged = errors.New("changed while it was read")
	errRegular = errors.New("not a regular file")
)

// reader reads and hashes with two buffers: one is filled while the other is
// hashed.
type reader struct {
	buffers [2][]byte
}

func newReader() *reader { return &reader{} }

// filled is one buffer with n bytes in it.
type filled struct {
	buf []byte
	n   int
	err error
}

// each reads r to its end, chunk by chunk, and calls f with each chunk. It
// returns when ctx is done.
func (rd *reader) each(ctx context.Context, r io.Reader, f func([]byte)) error {
	for i := range rd.buffers {
		if rd.buffers[i] == nil {
			rd.buffers[i] = make([]byte, chunk)
		}
	}
	// Both channels have room for both buffers, so that no send blocks and an
	// abandoned goroutine ends once its read returns.
	full, empty := make(chan filled, 2), make(chan []byte, 2)
	for _, b := range rd.buffers {
		empty <- b
	}
	defer close(empty)
	go fill(r, empty, full)
	for {
		select {
		case <-ctx.Done():
			rd.buffers = [2][]byte{} // they may still be written to
			return ctx.Err()
		case c := <-full:
			f(c.buf[:c.n])
			if c.err == io.EOF {
				return nil
			}
			if c.err != nil {
				return c.err
			}
			empty <- c.buf
		}
	}
}

func fill(r io.Reader, empty <-chan []byte, full chan<- filled) {
	for b := range empty {
		n, err := io.ReadFull(r, b)
		if err == io.ErrUnexpectedEOF {
			err = io.EOF
		}
		full <- filled{b, n, err}
		if err != nil {
			return
		}
	}
}

// hash returns the SHA-256 of exactly size bytes of r, which must end there.
func (rd *reader) hash(ctx context.Context, r io.Reader, size int64) ([sha256.Size]byte, error) {
	h := sha256.New()
	var n int64
	err := rd.each(ctx, io.LimitReader(r, size+1), func(b []byte) {
		n += int64(len(b))
		h.Write(b)
	})
	if err == nil && n != size {
		err = fmt.Errorf("%w: %d bytes instead of %d", errChanged, n, size)
	}
	return sum(h), err
}

func sum(h hash.Hash) [sha256.Size]byte { return [sha256.Size]byte(h.Sum(nil)) }

// withFile calls f with the regular file of the given name and its size, and
// then makes sure that it did not change meanwhile.
func withFile(tree fs.FS, name string, limit int64, f func(r io.Reader, size int64) error) error {
	file, err := tree.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	before, err := file.Stat()
	if err != nil {
		return err
	}
	if !before.Mode().IsRegular() {
		return fmt.Errorf("%s: %w", name, errRegular)
	}
	if before.Size() > limit {
		return fmt.Errorf("%s: %d bytes: the policy's max_size is %d", name, before.Size(), limit)
	}
	if err := f(file, before.Size()); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	after, err := file.Stat()
	if err != nil {
		return err
	}
	if !same(before, after) {
		return fmt.Errorf("%s: %w", name, errChanged)
	}
	return nil
}

// readFile returns the content of a regular file of at most limit bytes.
func readFile(tree fs.FS, name string, limit int64) ([]byte, error) {
	var content []byte
	err := withFile(tree, name, limit, func(r io.Reader, size int64) error {
		b := make([]byte, size+1)
		n, err := io.ReadFull(r, b)
		content = b[:min(int64(n), size)]
		switch {
		case err == nil || int64(n) != size:
			return errChanged
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			return nil
		}
		return err
	})
	return content, err
}
