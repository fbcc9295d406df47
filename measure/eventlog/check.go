package eventlog

import (
	"bytes"
	"fmt"
	"slices"

	"waxseal/measure"
)

// checker holds an encoder or decoder to the rules that all encodings share.
// It is given the events of a log in order.
type checker struct {
	banks    []measure.Alg
	sum      []byte // the digest that was computed last
	n        int    // events seen
	locality uint8  // from a StartupLocality event
	located  bool
	pcr0     bool // PCR 0 was extended
	ours     bool // an event of ours was seen
}

func newChecker(banks []measure.Alg) (*checker, error) {
	if len(banks) == 0 || len(banks) > MaxBanks {
		return nil, fmt.Errorf("%d PCR banks: need 1 to %d: %w", len(banks), MaxBanks, ErrMalformed)
	}
	for i, alg := range banks {
		if alg.Size() == 0 {
			return nil, fmt.Errorf("PCR bank %v: unknown algorithm: %w", alg, ErrMalformed)
		}
		if slices.Contains(banks[:i], alg) {
			return nil, fmt.Errorf("PCR bank %v stands twice: %w", alg, ErrMalformed)
		}
	}
	return &checker{banks: banks}, nil
}

// event checks the next event of the log.
func (k *checker) event(e Event) error {
	if k.n++; k.n > MaxEvents {
		return fmt.Errorf("more than %d events: %w", MaxEvents, ErrTooLarge)
	}
	if e.PCR >= measure.NumPCRs {
		return fmt.Errorf("PCR %d is above 23: %w", e.PCR, ErrMalformed)
	}
	if err := k.digests(e); err != nil {
		return err
	}
	if e.Ours {
		return k.ourEvent(e)
	}
	if k.ours {
		return fmt.Errorf("%s event of the firmware after one of ours: %w", TypeName(e.Type), ErrMalformed)
	}
	if !e.Extends() {
		return k.noAction(e)
	}
	if e.Type == EVEventTag && isOurTag(e.Data) {
		return fmt.Errorf("tagged event of ours in the place of the firmware's: %w", ErrMalformed)
	}
	k.pcr0 = k.pcr0 || e.PCR == 0
	return nil
}

func (k *checker) digests(e Event) error {
	if len(e.Digests) != len(k.banks) {
		return fmt.Errorf("%d digests for %d banks: %w", len(e.Digests), len(k.banks), ErrMalformed)
	}
	for i, d := range e.Digests {
		if d.Alg != k.banks[i] || len(d.Sum) != d.Alg.Size() {
			return fmt.Errorf("digest %d is %v of %d bytes: need %v of %d: %w", i, d.Alg, len(d.Sum), k.banks[i], k.banks[i].Size(), ErrMalformed)
		}
	}
	return nil
}

// ourEvent checks that e is what Of returns for a record.
func (k *checker) ourEvent(e Event) error {
	k.ours = true
	if e.Type != EVEventTag {
		return fmt.Errorf("event of ours has type %s: need EV_EVENT_TAG: %w", TypeName(e.Type), ErrMalformed)
	}
	if err := measure.CheckPayload(e.Data); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	covered := false
	for _, d := range e.Digests {
		if !d.Alg.Computable() {
			continue
		}
		if k.sum = measure.AppendHash(k.sum[:0], d.Alg, e.Data); !bytes.Equal(k.sum, d.Sum) {
			return fmt.Errorf("%v digest does not cover the record: %w", d.Alg, ErrMalformed)
		}
		covered = true
	}
	if !covered {
		return fmt.Errorf("record has no digest of SHA-256 or stronger: %w", ErrMalformed)
	}
	return nil
}

// log checks a log that is to be encoded.
func (l Log) check() error {
	k, err := newChecker(l.Banks)
	if err != nil {
		return err
	}
	for i, e := range l.Events {
		if err := k.event(e); err != nil {
			return fmt.Errorf("event %d: %w", i, err)
		}
	}
	if l.StartupLocality != k.locality {
		return fmt.Errorf("start-up locality is %d and the events say %d: %w", l.StartupLocality, k.locality, ErrMalformed)
	}
	return nil
}
