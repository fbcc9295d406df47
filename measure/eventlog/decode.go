package eventlog

import (
	"fmt"

	"waxseal/measure"
)

// read reads event n of a log; digests has a place for each bank, for its result.
type read func(c *cursor, n int, banks []measure.Alg, digests []measure.Digest) (Event, error)

// decode reads the events in c, which come after those that header has. It
// goes over them twice, so that the slices are made once, in their final size,
// and only for a log that is whole.
func decode(banks []measure.Alg, c cursor, next read, header ...Event) (Log, error) {
	k, err := newChecker(banks)
	if err != nil {
		return Log{}, err
	}
	n, err := count(c, banks, next, len(header))
	if err != nil {
		return Log{}, err
	}
	l := Log{Banks: banks, Events: make([]Event, 0, len(header)+n)}
	for i, e := range header {
		if err := k.event(e); err != nil {
			return Log{}, fmt.Errorf("event %d: %w", i, err)
		}
		l.Events = append(l.Events, e)
	}
	digests := make([]measure.Digest, n*len(banks))
	for c.more() {
		own := digests[:len(banks):len(banks)]
		digests = digests[len(banks):]
		start := c.off
		e, err := next(&c, len(l.Events), banks, own)
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

// count returns the number of events in c, the first of which has number first.
func count(c cursor, banks []measure.Alg, next read, first int) (int, error) {
	n := first
	digests := make([]measure.Digest, len(banks))
	for c.more() {
		start := c.off
		if _, err := next(&c, n, banks, digests); err != nil {
			return 0, at(n, start, err)
		}
		if n++; n > MaxEvents {
			return 0, fmt.Errorf("more than %d events: %w", MaxEvents, ErrTooLarge)
		}
	}
	return n - first, nil
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
