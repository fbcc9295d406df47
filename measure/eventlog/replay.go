package eventlog

import (
	"errors"
	"fmt"

	"waxseal/measure"
)

// Errors of Explains.
var (
	ErrUnexplained = errors.New("PCR is not at its start value and the log has no event for it")
	ErrReplay      = errors.New("PCR does not hold what the log says")
)

// Start returns the value of a PCR in bank before the first event: zero, but
// for PCR 0, whose last byte is the start-up locality (PC Client Platform
// Firmware Profile, section 10.4.5.3). For PCR 17 to 22 it is the value after
// a dynamic launch has reset them.
func (l Log) Start(bank measure.Alg, pcr measure.PCR) measure.Digest {
	d := measure.Digest{Alg: bank, Sum: make([]byte, bank.Size())}
	if pcr == 0 && len(d.Sum) > 0 {
		d.Sum[len(d.Sum)-1] = l.StartupLocality
	}
	return d
}

// Replay returns the values that the extends of the log lead to in bank, for
// the PCRs that it extends.
func (l Log) Replay(bank measure.Alg) (map[measure.PCR]measure.Digest, error) {
	if !bank.Computable() {
		return nil, fmt.Errorf("replay in bank %v: need SHA-256 or stronger", bank)
	}
	var sums [measure.NumPCRs][]byte // nil where nothing was extended
	n := 0
	for i, e := range l.Events {
		if !e.Extends() {
			continue
		}
		d, ok := e.Digest(bank)
		if !ok || len(d.Sum) != bank.Size() || e.PCR >= measure.NumPCRs {
			return nil, fmt.Errorf("replay event %d: PCR %d, no digest in bank %v: %w", i, e.PCR, bank, ErrMalformed)
		}
		if sums[e.PCR] == nil {
			sums[e.PCR] = l.Start(bank, e.PCR).Sum
			n++
		}
		sums[e.PCR] = extend(bank, sums[e.PCR], d.Sum)
	}
	values := make(map[measure.PCR]measure.Digest, n)
	for pcr, sum := range sums {
		if sum != nil {
			values[measure.PCR(pcr)] = measure.Digest{Alg: bank, Sum: sum}
		}
	}
	return values, nil
}

// extend returns H(value ‖ digest) in the place of value.
func extend(bank measure.Alg, value, digest []byte) []byte {
	var both [2 * 64]byte // of the longest digests
	return measure.AppendHash(value[:0], bank, append(append(both[:0], value...), digest...))
}

// Explains tells whether the log accounts for all of quoted, which are values
// in bank that a TPM has signed: each PCR replays, and a PCR that the log does
// not extend is at its start value. PCRs that are not quoted are not judged.
func (l Log) Explains(bank measure.Alg, quoted map[measure.PCR]measure.Digest) error {
	values, err := l.Replay(bank)
	if err != nil {
		return err
	}
	for pcr := range measure.PCR(measure.NumPCRs) {
		got, ok := quoted[pcr]
		if !ok {
			continue
		}
		want, extended := values[pcr]
		if !extended {
			want = l.Start(bank, pcr)
		}
		switch {
		case got.Equal(want):
		case !extended:
			return fmt.Errorf("PCR %d: %w", pcr, ErrUnexplained)
		default:
			return fmt.Errorf("PCR %d: %w", pcr, ErrReplay)
		}
	}
	return nil
}
