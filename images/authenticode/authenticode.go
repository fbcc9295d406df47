// Package authenticode computes the digest of a PE executable that UEFI
// firmware extends into PCR 4 when it loads the executable, and that a Secure
// Boot signature covers.
//
// It verifies no signature and trusts no executable.
package authenticode

import (
	"bytes"
	"errors"
	"fmt"
	"hash"
	"io"

	"waxseal/boot/uki"
	"waxseal/measure"
)

// ErrFormat means that the file is no PE executable of which it is certain
// what firmware hashes.
var ErrFormat = errors.New("no Authenticode digest")

// Of is Digest for an executable in memory.
func Of(pe []byte, alg measure.Alg) (measure.Digest, error) {
	return Digest(bytes.NewReader(pe), int64(len(pe)), alg)
}

// Digest returns the digest of the PE executable in the first size bytes of r
// (Windows Authenticode Portable Executable Signature Format, "Calculating the
// PE Image Hash"; TCG PC Client Platform Firmware Profile, section 3.3.4.5).
//
// It hashes the headers but for the checksum and the entry of the certificate
// table, the sections in the order of their offsets, and what follows them up
// to the certificate table. As firmware does, and unlike signing tools, it
// does not pad a file whose length is no multiple of 8.
func Digest(r io.ReaderAt, size int64, alg measure.Alg) (measure.Digest, error) {
	if !alg.Computable() {
		return measure.Digest{}, fmt.Errorf("%w in %v: it is not computed", ErrFormat, alg)
	}
	im, err := uki.Parse(r, size)
	if err != nil {
		return measure.Digest{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	spans, err := covered(im)
	if err != nil {
		return measure.Digest{}, err
	}
	h := alg.New()
	for _, s := range spans {
		if err := s.hash(h, r); err != nil {
			return measure.Digest{}, err
		}
	}
	return measure.Digest{Alg: alg, Sum: h.Sum(nil)}, nil
}

// span is a part of the file, from and up to, not including, to.
type span struct{ from, to int64 }

func (s span) hash(h hash.Hash, r io.ReaderAt) error {
	n, err := io.Copy(h, io.NewSectionReader(r, s.from, s.to-s.from))
	if err == nil && n != s.to-s.from {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("bytes %d to %d: %w", s.from, s.to, err)
	}
	return nil
}

const (
	checksumLength = 4 // CheckSum of the optional header
	entryLength    = 8 // one data directory
)

// covered returns the parts of the file that the digest covers, in order.
func covered(im uki.Image) ([]span, error) {
	if im.Checksum+checksumLength > im.Headers || im.Certificates+entryLength > im.Headers {
		return nil, fmt.Errorf("%w: headers of %d bytes are too short", ErrFormat, im.Headers)
	}
	if im.CertSize > 0 && im.CertOffset+im.CertSize != im.Size {
		return nil, fmt.Errorf("%w: %d bytes follow the certificate table", ErrFormat, im.Size-im.CertOffset-im.CertSize)
	}
	spans := []span{{0, im.Checksum}}
	after := im.Checksum + checksumLength
	if im.Certificates > 0 {
		spans = append(spans, span{after, im.Certificates})
		after = im.Certificates + entryLength
	}
	spans = append(spans, span{after, im.Headers})
	sum := im.Headers
	for _, s := range im.Sections {
		if s.Raw > 0 {
			spans = append(spans, span{s.Offset, s.Offset + s.Raw})
			sum += s.Raw
		}
	}
	// Firmware takes the sum of lengths as the place where the sections end. With
	// a hole between sections that is not where they end; see the specification,
	// step 13. We do as the specification says.
	if end := im.Size - im.CertSize; end > sum {
		spans = append(spans, span{sum, end})
	}
	return spans, nil
}
