package boot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"waxseal/boot/canon"
	"waxseal/measure"
)

// run is one run of a policy: one goroutine reads and hashes, another records,
// so that extends are hidden behind reads.
type run struct {
	policy  Policy
	profile measure.Profile
	src     Source
	sink    Sink
	strict  bool             // a prediction: errors are errors
	late    <-chan time.Time // gives once the budget is used up; nil for none
	over    bool             // it has given; owned by the reading goroutine
	kept    int              // bytes handed to Keep so far; owned by the reading goroutine
	reader  *reader          // owned by the reading goroutine
}

// step is what the reading goroutine hands to the recording one.
type step struct {
	record measure.Record // none if its name is empty
	keep   []byte         // or nil
	note   error          // or nil
	listed bool           // the record is a line of a list and not extended by itself
}

// ahead is how many steps the reader may be ahead of the recorder.
const ahead = 64

// maxKept bounds what one run hands to Keep, in bytes. What is above is
// measured as all else; its text cannot be shown.
const maxKept = 4 << 20

var errLate = errors.New("budget is used up")

func newRun(p Policy, src Source, sink Sink) *run {
	profile, _ := measure.ParseProfile(p.Profile) // Check has looked
	return &run{policy: p, profile: profile, src: src, sink: sink, reader: newReader()}
}

// measure records the policy, all items and the caps.
func (r *run) measure(ctx context.Context, raw []byte) error {
	reading, abandon := context.WithCancel(ctx)
	defer abandon()
	steps := make(chan step, ahead)
	end := make(chan error, 1)
	go func() {
		end <- guarded(func() error { return r.items(reading, raw, steps) })
		close(steps)
	}()
	if err := r.record(ctx, steps); err != nil {
		return r.cap(ctx, err)
	}
	return r.cap(ctx, <-end)
}

// record takes steps until there are no more or ctx is done.
func (r *run) record(ctx context.Context, steps <-chan step) error {
	for {
		select {
		case <-ctx.Done():
			return ErrIncomplete
		case s, ok := <-steps:
			if !ok {
				return nil
			}
			if err := r.step(ctx, s); err != nil {
				return err
			}
		}
	}
}

func (r *run) step(ctx context.Context, s step) error {
	if s.note != nil {
		r.sink.Note(s.record.Name, s.note)
	}
	if r.strict && strings.HasSuffix(s.record.Name, measure.Error) {
		return fmt.Errorf("%s: %w: %w", s.record.Name, ErrUnpredictable, s.note)
	}
	if s.keep != nil {
		r.sink.Keep(s.keep)
	}
	if s.listed || s.record.Name == "" {
		return nil
	}
	_, err := r.sink.Record(ctx, s.record)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	return fmt.Errorf("%w: %w", ErrRecord, err)
}

// cap records how the measuring ended, and returns why it did not end well.
func (r *run) cap(ctx context.Context, why error) error {
	name := measure.Handoff + r.policy.Handoff
	switch {
	case why != nil && r.strict:
		return why
	case errors.Is(why, ErrRecord):
		name = measure.Abort + AbortRecord
	case why != nil:
		name = measure.Abort + AbortIncomplete
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), capTime)
	defer cancel()
	if err := recordCaps(ctx, r.sink, r.profile.Cap(name)); err != nil {
		return errors.Join(why, fmt.Errorf("%w: %w", ErrRecord, err))
	}
	return why
}

// items reads the items of the policy in their order.
func (r *run) items(ctx context.Context, raw []byte, steps chan<- step) error {
	e := emitter{run: r, ctx: ctx, steps: steps}
	if err := e.text(PolicyName, raw); err != nil {
		return err
	}
	for _, it := range r.policy.Items {
		if err := r.due(ctx); err != nil {
			return err
		}
		if err := r.item(it, e); err != nil {
			return err
		}
	}
	return nil
}

// due tells whether there is still time to begin something.
func (r *run) due(ctx context.Context) error {
	select {
	case <-r.late:
		r.over = true
	case <-ctx.Done():
		r.over = true
	default:
	}
	if r.over {
		return fmt.Errorf("%w: %w", ErrIncomplete, errLate)
	}
	return nil
}

// item measures one item. Its error ends the run; what is wrong with the item
// is in its record.
func (r *run) item(it Item, e emitter) error {
	switch it.Kind {
	case Cmdline:
		return e.cmdline()
	case Agent:
		return e.agent()
	case Identity:
		return e.identity()
	case Aggregate:
		return e.aggregate()
	case File:
		return e.file(it)
	case UKI:
		return e.uki(it)
	case Volume:
		return e.volume(it)
	case Owner:
		return e.owner(it)
	case Modules:
		return e.inventory("module/live", e.src.Modules)
	case Programs:
		return e.inventory("bpf/live", e.src.Programs)
	}
	return e.files(it)
}

// emitter makes steps of what an item gives.
type emitter struct {
	*run
	ctx   context.Context
	steps chan<- step
}

func (e emitter) send(s step) error {
	select {
	case e.steps <- s:
		return nil
	case <-e.ctx.Done():
		return ErrIncomplete
	}
}

// sum emits the record of a content that is already hashed.
func (e emitter) sum(name string, content [sha256.Size]byte, keep []byte) error {
	rec, err := e.profile.Sum(name, content)
	if err != nil {
		return err
	}
	return e.send(step{record: rec, keep: e.room(keep)})
}

// room returns content if the run may still keep it, else nil.
func (e emitter) room(content []byte) []byte {
	if e.kept+len(content) > maxKept {
		return nil
	}
	e.kept += len(content)
	return content
}

// keep emits content that has no record of its own.
func (e emitter) keep(content []byte) error {
	if content = e.room(content); content == nil {
		return nil
	}
	return e.send(step{keep: content})
}

// text emits a content that may be shown.
func (e emitter) text(name string, content []byte) error {
	if content == nil {
		content = []byte{} // an empty text is shown too
	}
	return e.sum(name, sha256.Sum256(content), content)
}

// missing emits the record of an item that could not be read because of why.
func (e emitter) missing(name string, why error) error {
	if errors.Is(why, ErrDeviceOnly) && e.strict {
		return nil
	}
	name, content := missingName(name, why)
	rec, err := e.profile.Sum(name, content)
	if err != nil {
		return err
	}
	return e.send(step{record: rec, note: why})
}

// missingName returns name and content of the record of a thing that could not
// be read because of why.
func missingName(name string, why error) (string, [sha256.Size]byte) {
	suffix := measure.Error
	if errors.Is(why, fs.ErrNotExist) {
		suffix = measure.Absent
	}
	return name + suffix, sha256.Sum256([]byte(suffix[1:]))
}

// list emits one record over many.
func (e emitter) list(prefix string, entries []canon.Entry) error {
	return e.text(prefix+"/@list?c="+string(canon.List1), canon.List(entries).Bytes)
}
