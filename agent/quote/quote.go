// Package quote is the one place in the agent where quotes are taken: the
// signature of the TPM over PCRs, the values that it covers, and the log that
// explains them.
//
// Quote and log are taken while nothing can be recorded, so that they agree.
// One quote is in flight at a time; few more may wait, and who finds the queue
// full is told so at once. The package never answers without a quote, never
// judges what it reports, and knows of no protocol: attestz, RESTCONF and the
// agent's own calls ask here.
package quote

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/merkle"
	"waxseal/measure/wire"
)

// Quoter is the part of a TPM that quotes.
type Quoter interface {
	// Banks returns the active PCR banks.
	Banks() []measure.Alg
	// ReadPCRs returns the values of exactly pcrs in one bank.
	ReadPCRs(ctx context.Context, bank measure.Alg, pcrs []measure.PCR) (map[measure.PCR][]byte, error)
	// Quote signs pcrs of one bank with the IAK. nonce becomes the extraData.
	// attest is a bare TPMS_ATTEST, signature a TPMT_SIGNATURE.
	Quote(ctx context.Context, nonce []byte, bank measure.Alg, pcrs []measure.PCR) (attest, signature []byte, err error)
}

// Recorder is what was measured so far; *measure.Recorder is one.
type Recorder interface {
	// Freeze calls f with a copy of the log while nothing can be recorded.
	Freeze(f func(log []measure.Event) error) error
}

// Config is what a Desk works with.
type Config struct {
	Quoter     Quoter       // nil: no TPM
	Recorder   Recorder     // nil: nothing was measured
	Firmware   eventlog.Log // the firmware's events; zero where it has left no log
	Unattested string       // why the device cannot attest, for example "boot incomplete"; empty: it can
	Queue      int          // questions that may wait for the TPM; 0: 16

	// Before is called before a quote is taken, for what must be recorded first; it
	// gets beforeLimit. nil: there is nothing.
	Before func(context.Context)
}

// Question asks for a quote.
type Question struct {
	Nonce []byte // becomes the quote's extraData
	Bank  measure.Alg
	PCRs  []measure.PCR // each at most once
	Batch bool          // Nonce is the commitment of a batch that the agent itself has made
}

// Answer is a quote and what explains it.
type Answer struct {
	PCRs      map[measure.PCR][]byte // the values that the quote covers
	Quoted    []byte                 // bare TPMS_ATTEST
	Signature []byte                 // TPMT_SIGNATURE
	Log       []byte                 // CEL-TLV: the firmware's events, then the agent's
}

// Desk takes quotes, one at a time. It is safe for concurrent use.
type Desk struct {
	config  Config
	waiting chan struct{} // a slot for each question that waits or is answered
	quoting chan struct{} // the one question that is answered
}

// New returns a desk.
func New(c Config) *Desk {
	if c.Queue == 0 {
		c.Queue = 16
	}
	return &Desk{config: c, waiting: make(chan struct{}, c.Queue), quoting: make(chan struct{}, 1)}
}

// Reason tells why the device cannot attest; it is empty if it can.
func (d *Desk) Reason() string {
	switch {
	case d.config.Unattested != "":
		return d.config.Unattested
	case d.config.Quoter == nil:
		return "no TPM"
	case d.config.Recorder == nil:
		return "nothing measured"
	}
	return ""
}

// Probe is Reason, and also asks the recorder whether it still records. It
// waits for a quote in flight.
func (d *Desk) Probe() string {
	if reason := d.Reason(); reason != "" {
		return reason
	}
	if err := d.config.Recorder.Freeze(func([]measure.Event) error { return nil }); err != nil {
		return err.Error()
	}
	return ""
}

// Busy tells whether anybody waits for a quote.
func (d *Desk) Busy() bool { return len(d.waiting) > 0 }

// Banks returns the active PCR banks, none without a TPM.
func (d *Desk) Banks() []measure.Alg {
	if d.config.Quoter == nil {
		return nil
	}
	return d.config.Quoter.Banks()
}

// Check finds what is wrong with a question without asking the TPM. What a
// device that cannot attest answers wraps wire.ErrNotReady.
func (d *Desk) Check(bank measure.Alg) error {
	if reason := d.Reason(); reason != "" {
		return fmt.Errorf("%w: UNATTESTED(%s)", wire.ErrNotReady, reason)
	}
	if banks := d.Banks(); !slices.Contains(banks, bank) {
		return fmt.Errorf("%w: hash_algo %v is no active bank: need one of %v", wire.ErrInvalid, bank, banks)
	}
	return nil
}

// Take returns a quote that answers q, and the log that explains it.
func (d *Desk) Take(ctx context.Context, q Question) (Answer, error) {
	if err := d.Check(q.Bank); err != nil {
		return Answer{}, err
	}
	// Whatever protocol a nonce came by: the TPM's signature over one that
	// reads as a commitment would speak for nonces that nobody has sent.
	if merkle.IsCommitment(q.Nonce) != q.Batch {
		return Answer{}, fmt.Errorf("%w: nonce begins like the commitment of a batch, for which it could pass", wire.ErrInvalid)
	}
	leave, err := d.queue(ctx)
	if err != nil {
		return Answer{}, err
	}
	defer leave()
	d.before(ctx)
	var ans Answer
	err = d.frozen(func(log []measure.Event) error {
		if ans.Log, err = d.encode(q.Bank, log); err != nil {
			return err
		}
		return d.quote(ctx, q, &ans)
	})
	if err != nil {
		return Answer{}, err
	}
	return ans, nil
}

// beforeLimit bounds what is done before a quote.
const beforeLimit = 2 * time.Second

func (d *Desk) before(ctx context.Context) {
	if d.config.Before == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, beforeLimit)
	defer cancel()
	done := make(chan struct{})
	go func() { defer close(done); d.config.Before(ctx) }()
	select {
	case <-done:
	case <-ctx.Done(): // what it was to record comes with a later quote
	}
}

// Log returns the log as it is now: the firmware's events, then the agent's.
// It needs no quote, and does not wait in the queue.
func (d *Desk) Log() (eventlog.Log, error) {
	if reason := d.Reason(); reason != "" {
		return eventlog.Log{}, fmt.Errorf("%w: UNATTESTED(%s)", wire.ErrNotReady, reason)
	}
	var joined eventlog.Log
	err := d.frozen(func(log []measure.Event) (err error) {
		joined, err = d.join(log)
		return err
	})
	return joined, err
}

// frozen calls f while nothing can be recorded. A recorder that no longer
// records is a device that cannot attest.
func (d *Desk) frozen(f func([]measure.Event) error) error {
	called := false
	err := d.config.Recorder.Freeze(func(log []measure.Event) error {
		called = true
		return f(log)
	})
	if err != nil && !called {
		return fmt.Errorf("%w: UNATTESTED(%w)", wire.ErrNotReady, err)
	}
	return err
}

// queue waits until no other question is answered. The queue is short: who
// finds it full is told so at once.
func (d *Desk) queue(ctx context.Context) (leave func(), err error) {
	select {
	case d.waiting <- struct{}{}:
	default:
		return nil, fmt.Errorf("%w: %d challenges wait for the TPM", wire.ErrBusy, cap(d.waiting))
	}
	select {
	case d.quoting <- struct{}{}:
		return func() { <-d.quoting; <-d.waiting }, nil
	case <-ctx.Done():
		<-d.waiting
		return nil, ctx.Err()
	}
}

// attempts bounds the quotes taken for one question. Others than the agent
// extend PCRs too, such as IMA in the kernel.
const attempts = 3

// quote fills in PCR values and a quote that covers exactly them.
func (d *Desk) quote(ctx context.Context, q Question, ans *Answer) error {
	for range attempts {
		values, err := d.config.Quoter.ReadPCRs(ctx, q.Bank, q.PCRs)
		if err != nil {
			return fmt.Errorf("read PCRs: %w", err)
		}
		if err := q.check(values); err != nil {
			return err
		}
		attest, signature, err := d.config.Quoter.Quote(ctx, q.Nonce, q.Bank, q.PCRs)
		if err != nil {
			return fmt.Errorf("quote: %w", err)
		}
		if covers(attest, values) {
			ans.PCRs, ans.Quoted, ans.Signature = values, attest, signature
			return nil
		}
	}
	return fmt.Errorf("%w: PCRs changed during each of %d quotes", wire.ErrRetry, attempts)
}

func (q Question) check(values map[measure.PCR][]byte) error {
	if len(values) != len(q.PCRs) {
		return fmt.Errorf("TPM gave %d PCR values for %d", len(values), len(q.PCRs))
	}
	for _, pcr := range q.PCRs {
		if len(values[pcr]) != q.Bank.Size() {
			return fmt.Errorf("TPM gave PCR %d with %d bytes: need %d", pcr, len(values[pcr]), q.Bank.Size())
		}
	}
	return nil
}

func (d *Desk) join(log []measure.Event) (eventlog.Log, error) {
	joined, err := eventlog.Join(d.config.Firmware, eventlog.New(d.Banks(), log))
	if err != nil {
		return joined, fmt.Errorf("%w: UNATTESTED(%w)", wire.ErrNotReady, err)
	}
	if len(joined.Events) == 0 {
		return joined, fmt.Errorf("%w: UNATTESTED(nothing measured)", wire.ErrNotReady)
	}
	return joined, nil
}

func (d *Desk) encode(bank measure.Alg, log []measure.Event) ([]byte, error) {
	joined, err := d.join(log)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(joined.Banks, bank) {
		return nil, fmt.Errorf("%w: the firmware's log has no bank %v", wire.ErrNotReady, bank)
	}
	b, err := eventlog.EncodeCEL(joined)
	if err != nil {
		return nil, fmt.Errorf("event log: %w", err)
	}
	if len(b) > eventlog.MaxSize {
		return nil, errors.New("event log is above 4 MiB")
	}
	return b, nil
}
