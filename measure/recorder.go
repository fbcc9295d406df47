package measure

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// Extender is the part of a TPM that a Recorder needs.
type Extender interface {
	// Banks returns the active PCR banks in ascending order of their ids.
	Banks() []Alg
	// Extend extends pcr in all banks by one TPM2_PCR_Extend; digests has one
	// digest for each of Banks, in that order.
	Extend(ctx context.Context, pcr PCR, digests []Digest) error
	// ReadPCR returns the value of pcr in each of Banks, in that order.
	ReadPCR(ctx context.Context, pcr PCR) ([]Digest, error)
}

// Journal keeps the log where it outlives the process. After an error of Append
// the recorder stops: whether the event was kept is not known.
type Journal interface {
	// Begin keeps the PCR values before the first event. It is called once.
	Begin(start []PCRValue) error
	// Append keeps an event that is about to be extended. When it returns,
	// the event survives the death of the process.
	Append(Event) error
}

// PCRValue is the value of one PCR in each active bank.
type PCRValue struct {
	PCR    PCR
	Values []Digest
}

// Event is a record as it was extended.
type Event struct {
	Record
	Digests []Digest // of the payload, one for each active bank
}

// Errors of a Recorder.
var (
	// ErrDiverged means that the PCRs do not hold what the journal says.
	ErrDiverged = errors.New("PCR values do not match the journal")
	// ErrStopped means that an earlier record could not be kept or extended:
	// the log no longer explains the PCRs, so nothing more is said.
	ErrStopped = errors.New("recorder has stopped")
	// ErrNoBank means that the TPM has no active bank of SHA-256 or stronger.
	ErrNoBank = errors.New("TPM has no active PCR bank of SHA-256 or stronger: allocate one")
)

// Recorder is the one door to the PCRs of a profile: it writes each record to
// the journal, then extends it, under one lock.
type Recorder struct {
	tpm     Extender
	journal Journal

	mu     sync.Mutex // guards what follows, and the order of extends
	values map[PCR][]Digest
	events []Event
	broken error // why the first record failed that had reached the journal; nothing is recorded after it
}

// NewRecorder reads the start values of pcrs, keeps them in the journal and
// returns an empty recorder over them.
func NewRecorder(ctx context.Context, tpm Extender, journal Journal, pcrs []PCR) (*Recorder, error) {
	if !slices.ContainsFunc(tpm.Banks(), Alg.Computable) {
		return nil, ErrNoBank
	}
	r := &Recorder{tpm: tpm, journal: journal, values: map[PCR][]Digest{}}
	var start []PCRValue
	for _, pcr := range pcrs {
		v, err := tpm.ReadPCR(ctx, pcr)
		if err != nil {
			return nil, fmt.Errorf("read PCR %d: %w", pcr, err)
		}
		r.values[pcr] = v
		start = append(start, PCRValue{pcr, v})
	}
	if err := journal.Begin(start); err != nil {
		return nil, fmt.Errorf("begin journal: %w", err)
	}
	return r, nil
}

// Resume returns a recorder that goes on after the events of a journal, for
// an agent that was restarted. If the last event was written but not extended
// it is extended now. PCRs that hold anything else give ErrDiverged.
func Resume(ctx context.Context, tpm Extender, journal Journal, start []PCRValue, events []Event) (*Recorder, error) {
	if !slices.ContainsFunc(tpm.Banks(), Alg.Computable) {
		return nil, ErrNoBank
	}
	r := &Recorder{tpm: tpm, journal: journal, values: map[PCR][]Digest{}}
	for _, s := range start {
		r.values[s.PCR] = s.Values
	}
	for i, e := range events {
		if !slices.EqualFunc(e.Digests, e.Record.Digests(tpm.Banks()), Digest.Equal) {
			return nil, fmt.Errorf("event %s does not have the digests of its record: %w", e.Name, ErrDiverged)
		}
		if i == len(events)-1 {
			if err := r.settle(ctx, e); err != nil {
				return nil, fmt.Errorf("last event %s: %w", e.Name, err)
			}
		}
		if err := r.apply(e); err != nil {
			return nil, err
		}
	}
	if err := r.compare(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

// Record journals and extends rec, and returns it as it was extended.
func (r *Recorder) Record(ctx context.Context, rec Record) (Event, error) {
	if err := rec.Check(); err != nil {
		return Event{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken != nil {
		return Event{}, fmt.Errorf("record %s: %w: %w", rec.Name, ErrStopped, r.broken)
	}
	if _, ok := r.values[rec.PCR]; !ok {
		return Event{}, fmt.Errorf("record %s: PCR %d is not one of this recorder's", rec.Name, rec.PCR)
	}
	e := Event{rec, rec.Digests(r.tpm.Banks())}
	if err := r.keep(ctx, e); err != nil {
		r.broken = fmt.Errorf("record %s: %w", rec.Name, err)
		return Event{}, r.broken
	}
	return e, nil
}

// keep journals e, extends it and adds it to the log.
func (r *Recorder) keep(ctx context.Context, e Event) error {
	if err := r.journal.Append(e); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if err := r.extend(ctx, e); err != nil {
		return err
	}
	return r.apply(e)
}

// Freeze calls f with a copy of the log while nothing can be recorded, so
// that a quote taken in f covers exactly that log. f must not change the
// events' digests, which it shares with the recorder, and must not call Record.
func (r *Recorder) Freeze(f func(log []Event) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken != nil {
		return fmt.Errorf("%w: %w", ErrStopped, r.broken)
	}
	return f(slices.Clone(r.events))
}

// extend extends e once. When the TPM answers with an error, the PCR is read
// to learn whether the extend took effect; if it did not, it is tried once more.
func (r *Recorder) extend(ctx context.Context, e Event) error {
	err := r.tpm.Extend(ctx, e.PCR, e.Digests)
	if err == nil {
		return nil
	}
	// The caller's time may be used up, yet the state of the PCR must be known.
	if serr := r.settle(context.WithoutCancel(ctx), e); serr != nil {
		return fmt.Errorf("extend PCR %d: %w; then: %w", e.PCR, err, serr)
	}
	return nil
}

// settle makes sure that e is extended exactly once on top of r.values.
func (r *Recorder) settle(ctx context.Context, e Event) error {
	before, ok := r.values[e.PCR]
	if !ok {
		return fmt.Errorf("PCR %d has no start value: %w", e.PCR, ErrDiverged)
	}
	after, err := extendAll(before, e.Digests)
	if err != nil {
		return err
	}
	now, err := r.tpm.ReadPCR(ctx, e.PCR)
	if err != nil {
		return fmt.Errorf("read PCR %d: %w", e.PCR, err)
	}
	switch {
	case sameValues(now, after):
		return nil
	case sameValues(now, before):
		return r.tpm.Extend(ctx, e.PCR, e.Digests)
	}
	return fmt.Errorf("PCR %d: %w", e.PCR, ErrDiverged)
}

func (r *Recorder) apply(e Event) error {
	v, err := extendAll(r.values[e.PCR], e.Digests)
	if err != nil {
		return fmt.Errorf("event %s: %w", e.Name, err)
	}
	r.values[e.PCR] = v
	r.events = append(r.events, e)
	return nil
}

func (r *Recorder) compare(ctx context.Context) error {
	for pcr, want := range r.values {
		got, err := r.tpm.ReadPCR(ctx, pcr)
		if err != nil {
			return fmt.Errorf("read PCR %d: %w", pcr, err)
		}
		if !sameValues(got, want) {
			return fmt.Errorf("PCR %d: %w", pcr, ErrDiverged)
		}
	}
	return nil
}

// extendAll returns the values of a PCR after an extend of each bank. A bank
// that is not computable keeps a nil sum: its value is not known.
func extendAll(values, digests []Digest) ([]Digest, error) {
	if len(values) != len(digests) {
		return nil, fmt.Errorf("%d digests for %d banks", len(digests), len(values))
	}
	next := make([]Digest, len(values))
	for i, v := range values {
		if !v.Alg.Computable() {
			next[i] = Digest{Alg: v.Alg}
			continue
		}
		d, err := Extend(v, digests[i])
		if err != nil {
			return nil, err
		}
		next[i] = d
	}
	return next, nil
}

// sameValues compares two values of a PCR in the banks that are known in both.
func sameValues(a, b []Digest) bool {
	return slices.EqualFunc(a, b, func(x, y Digest) bool {
		if x.Alg != y.Alg {
			return false
		}
		return !x.Alg.Computable() || x.Equal(y)
	})
}
