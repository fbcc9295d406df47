// Package boot is what is measured before a router's own software runs, and
// in which order.
//
// Measure carries out a policy: it reads each item once, hashes it while it is
// read, and hands records to a Sink in the order of the policy. It ends with a
// cap in every capped PCR, whether all was measured or not, and never keeps
// the router from booting: a missing, unreadable or endless item costs time up
// to the policy's stop, no more.
//
// The same code runs on the build host over an image that was never booted
// (Predict), so that both sides agree by construction.
//
// The package opens no device and no kernel file, never writes, and never
// judges: what is good is decided elsewhere, later, by somebody else.
package boot

import (
	"context"
	"errors"
	"fmt"
	"time"

	"waxseal/measure"
)

// Sink takes what was measured. Calls come from one goroutine, in the order of
// the policy.
type Sink interface {
	// Record journals and extends a record. It should return when ctx is done.
	Record(ctx context.Context, r measure.Record) (measure.Event, error)
	// Keep holds content ready that may be shown to who asks for its SHA-256:
	// canonical text without secrets, lists, the policy, long path names.
	Keep(content []byte)
	// Note says why the record of the given name is an error record, or why its
	// text is raw. It is for the log; nothing depends on it.
	Note(name string, err error)
}

// Reasons of phase/abort/….
const (
	AbortPolicy     = "policy"     // the policy is missing or malformed
	AbortIncomplete = "incomplete" // the time was used up
	AbortRecord     = "record"     // a record could not be extended
)

// PolicyName is the name of the first record.
const PolicyName = "policy/measure"

// capTime is how long the caps may take after the stop.
const capTime = time.Second

// Errors by which a caller can tell how Measure ended. In all cases the boot
// goes on.
var (
	ErrIncomplete = errors.New("boot is measured in part only: the time is used up")
	ErrRecord     = errors.New("boot is measured in part only: a record could not be extended")
	ErrHangs      = errors.New("boot is measured in part only: the recorder does not answer, and no cap was extended")
)

// Measure measures what the policy in raw says and caps the PCRs.
//
// raw is nil if there is no policy file, and empty if it could not be read.
// The first record is policy/measure over raw. Without a valid policy that is
// policy/measure!absent or policy/measure!error, then come caps
// phase/abort/policy in the PCRs of measure.Waxseal1, and ErrPolicy.
//
// After the policy's budget, counted from the call, no further item or file is
// begun. After its stop the one in work is abandoned, even if its reader never
// returns. Both end in caps phase/abort/incomplete and ErrIncomplete, as does
// the end of ctx. Measure returns within one second after the stop.
//
// An item that could not be read is not an error of Measure: its record says
// so, and sink.Note why.
func Measure(ctx context.Context, raw []byte, src Source, sink Sink) error {
	p, err := ParsePolicy(raw)
	if err != nil {
		return bounded(ctx, abortTime, err, func(ctx context.Context) error { return abortPolicy(ctx, raw, err, sink) })
	}
	r := newRun(p, src, sink)
	r.late = time.After(time.Duration(p.Budget))
	return bounded(ctx, time.Duration(p.Stop), nil, func(ctx context.Context) error { return r.measure(ctx, raw) })
}

// bounded calls f with a context that ends after stop, and gives up f, which
// may go on, capTime later. why is joined to ErrHangs.
func bounded(ctx context.Context, stop time.Duration, why error, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, stop)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- guarded(func() error { return f(ctx) }) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(capTime):
		return errors.Join(why, ErrHangs)
	}
}

// abortTime is how long the records of a boot without policy may take.
const abortTime = 5 * time.Second

// abortPolicy records that there is no policy to follow.
func abortPolicy(ctx context.Context, raw []byte, why error, sink Sink) error {
	profile := measure.Waxseal1
	record := profile.ErrorRecord
	if raw == nil {
		record, why = profile.AbsentRecord, fmt.Errorf("%w: there is no file", ErrPolicy)
	}
	first, err := record(PolicyName)
	if err != nil {
		return err
	}
	sink.Note(first.Name, why)
	if _, err := sink.Record(ctx, first); err != nil {
		return errors.Join(why, fmt.Errorf("%w: %w", ErrRecord, err))
	}
	if err := recordCaps(ctx, sink, profile.Cap(measure.Abort+AbortPolicy)); err != nil {
		return errors.Join(why, fmt.Errorf("%w: %w", ErrRecord, err))
	}
	return why
}

func recordCaps(ctx context.Context, sink Sink, caps []measure.Record) error {
	for _, c := range caps {
		if _, err := sink.Record(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// ErrUnpredictable means that a prediction would hold what cannot be right.
var ErrUnpredictable = errors.New("cannot be predicted")

// Predict hands sink the records that Measure gives on a good boot of the same
// bytes, caps included. There is no budget but ctx. Items for which src
// returns ErrDeviceOnly are left out. Whatever would be an error record, or a
// malformed policy, is an error: nobody shall expect an error.
func Predict(ctx context.Context, raw []byte, src Source, sink Sink) error {
	p, err := ParsePolicy(raw)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := newRun(p, src, sink)
	r.strict = true
	return r.measure(ctx, raw)
}
