package tpm

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/go-tpm/tpm2/transport"
)

// class is the urgency of a call: a lower one goes first.
type class int

const (
	urgent  class = iota // PCRs: the boot waits for them
	quoting              // quotes, counters, keys, NV
	signing              // TLS signatures: strangers can ask for them
	classes
)

// queueSizes bound how many calls of each class wait; together 32. Each class
// has a share of its own, so that a flood of handshakes keeps no extend out.
var queueSizes = [classes]int{8, 8, 16}

// States of a job. Only one of owner and caller takes it out of waiting.
const (
	waiting int32 = iota
	running
	abandoned
)

type job struct {
	ctx   context.Context
	asked time.Time
	state atomic.Int32
	run   func(*bus) // sends its result to the caller of ask
}

// command is one command that was given to the TPM.
type command struct {
	code  uint32
	since time.Time
}

type result[T any] struct {
	value T
	err   error
}

// ask runs f on the owner goroutine and returns its result. limit is the
// deadline when ctx has none. When ctx ends first, ask returns at once: a call
// that still waited is never sent, one that was sent may still take effect.
func ask[T any](ctx context.Context, d *Device, c class, limit time.Duration, f func(transport.TPM) (T, error)) (T, error) {
	ctx, cancel := withDeadline(ctx, limit)
	results := make(chan result[T], 1)
	j := &job{ctx: ctx, asked: time.Now()}
	j.run = func(b *bus) {
		defer cancel()
		v, err := safely(b, f)
		results <- result[T]{v, err}
	}
	if err := d.enqueue(c, j); err != nil {
		cancel()
		var none T
		return none, err
	}
	select {
	case r := <-results:
		return r.value, r.err
	case <-d.stopped:
	case <-ctx.Done():
	}
	// Several may have happened at once: a result is a result.
	select {
	case r := <-results:
		return r.value, r.err
	default:
		var none T
		return none, d.giveUp(j, cancel)
	}
}

// giveUp says why a call has no result, and takes it out of the queue.
func (d *Device) giveUp(j *job, cancel context.CancelFunc) error {
	unsent := j.state.CompareAndSwap(waiting, abandoned)
	if !unsent {
		return fmt.Errorf("%s: not done within %v: %w", d.doing(), since(j.asked), timedOut(j.ctx))
	}
	defer cancel() // nobody will run it
	if j.ctx.Err() == nil {
		return ErrClosed
	}
	return fmt.Errorf("not sent within %v, waiting behind %s: %w", since(j.asked), d.doing(), timedOut(j.ctx))
}

// timedOut is ErrNoAnswer when a deadline passed, and the context's error in
// any case.
func timedOut(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", ErrNoAnswer, ctx.Err())
	}
	return ctx.Err()
}

func since(t time.Time) time.Duration { return time.Since(t).Round(time.Millisecond) }

// safely runs f and turns a panic of the response decoder, which is not ours,
// into an error: a TPM with bit errors must not stop a router.
func safely[T any](b *bus, f func(transport.TPM) (T, error)) (v T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: %w: %v", commandName(b.last), ErrMalformed, p)
		}
	}()
	v, err = f(b)
	if err != nil {
		return v, b.explain(err)
	}
	return v, nil
}

func (d *Device) enqueue(c class, j *job) error {
	select {
	case <-d.closing:
		return ErrClosed
	default:
	}
	select {
	case d.queues[c] <- j:
		return nil
	default:
		return fmt.Errorf("%w: %d of this class, the TPM is in %s", ErrBusy, cap(d.queues[c]), d.doing())
	}
}

// own is the owner goroutine: the only one that touches the transport.
func (d *Device) own() {
	defer close(d.stopped)
	for {
		j := d.next()
		if j == nil {
			break
		}
		if j.state.CompareAndSwap(waiting, running) {
			j.run(&bus{d: d, ctx: j.ctx})
		}
	}
	d.dropSession(&bus{d: d, ctx: context.Background()})
	d.closeErr = d.transport.Close()
}

// next returns the most urgent job, waiting for one; nil when the device closes.
func (d *Device) next() *job {
	select {
	case <-d.closing:
		return nil
	default:
	}
	for _, q := range d.queues {
		select {
		case j := <-q:
			return j
		default:
		}
	}
	select {
	case <-d.closing:
		return nil
	case j := <-d.queues[urgent]:
		return j
	case j := <-d.queues[quoting]:
		return j
	case j := <-d.queues[signing]:
		return j
	}
}

// doing says what the TPM is working on, for errors.
func (d *Device) doing() string {
	c := d.current.Load()
	if c == nil {
		return "no command"
	}
	return fmt.Sprintf("%s (since %v)", commandName(c.code), since(c.since))
}
