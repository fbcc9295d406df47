package eventlog

import (
	"fmt"

	"waxseal/measure"
)

// encoding is how the events of one kind of log are found and read.
type encoding struct {
	// skip goes over one event without looking into it.
	skip func(c *cursor, banks []measure.Alg)
	// read reads event n of a log; digests has a place for each bank, for its result.
	read func(c *cursor, n int, banks []measure.Alg, digests []measure.Digest) (Event, error)
}

// decode reads the events in c, which come after those that header has. It
// counts them first, so that the slices are made once, in their final size.
func (enc encoding) decode(banks []measure.Alg, c cursor, header ...Event) (Log, error) {
	k, err := newChecker(banks)
	if err != nil {
		return Log{}, err
	}
	n := enc.count(c, banks)
	l := Log{Banks: banks, Events: make([]Event, 0, len(header)+n)}
	for i, e := range header {
		if err := k.event(e); err != nil {
			return Log{}, fmt.Errorf("event %d: %w", i, err)
		}
		l.Events = append(l.Events, e)
	}
	digests := make([]measure.Digest, n*len(banks))
	for c.more() {
		if len(digests) == 0 { // the rest is malformed, or beyond MaxEvents: read says what is wrong
			digests = make([]measure.Digest, len(banks))
		}
		own := digests[:len(banks):len(banks)]
		digests = digests[len(banks):]
		start := c.off
		e, err := enc.read(&c, len(l.Events), banks, own)
		if err == nil {
			err = k.event(e)
		}
		if err != nil {
			return Log{}, at(len(l.Events), start, err)
		}
		l.Events = append(l.Events, e)
	}
	l.StartupLocality = k.locality
	return l, nil
}

// count returns the number of events in c that are there in full, but not
// more than a log may have. It says nothing about what is in them.
func (enc encoding) count(c cursor, banks []measure.Alg) int {
	n := 0
	for c.more() && n < MaxEvents {
		if enc.skip(&c, banks); c.err == nil {
			n++
		}
	}
	return n
}

func at(event, offset int, err error) error {
	return fmt.Errorf("event %d at byte %d: %w", event, offset, err)
}

// checkSize tells whether a decoder takes b, before it looks into it.
func checkSize(b []byte) error {
	if len(b) > MaxSize {
		return fmt.Errorf("event log of %d bytes, at most %d: %w", len(b), MaxSize, ErrTooLarge)
	}
	return nil
}

func zeroDigests(banks []measure.Alg) []measure.Digest {
	ds := make([]measure.Digest, len(banks))
	for i, alg := range banks {
		ds[i] = measure.Digest{Alg: alg, Sum: make([]byte, alg.Size())}
	}
	return ds
}
