package challenge

import (
	"context"
	"crypto/sha256"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"waxseal/agent/quote"
	"waxseal/measure"
	"waxseal/measure/merkle"
	"waxseal/measure/wire"
)

// Desk takes quotes; *quote.Desk is one.
type Desk interface {
	// Check finds what is wrong with a question without asking the TPM.
	Check(bank measure.Alg) error
	// Take returns a quote and the log that explains it.
	Take(ctx context.Context, q quote.Question) (quote.Answer, error)
}

// BatchConfig is what Batches work with.
type BatchConfig struct {
	Card    wire.Card
	Desk    Desk
	OIAK    func() wire.Chain // the owner's certificate of the IAK; empty chain: not enrolled
	Waiting int               // challengers that may wait for the next quotes, at most merkle.MaxSize
	Every   time.Duration     // from the beginning of one quote to that of the next; 0: as fast as the TPM is
	Limit   time.Duration     // for one quote, the wait at the desk included
}

// maxSelections bounds the batches that wait: a challenger who asks for other
// PCRs than the others needs a quote of its own.
const maxSelections = 8

// Batches answers many challengers by one quote: who comes while a quote is
// taken waits for the next, together with all others who ask for the same
// PCRs. Nobody waits longer than for the quotes before his own. It implements
// wire.BatchServer.
type Batches struct {
	config BatchConfig

	mu      sync.Mutex // guards what follows, and the callers of each batch
	waiting []*batch   // in the order of their first callers
	callers int        // of those batches
	running bool       // a goroutine takes quotes
	next    time.Time  // when the next quote may begin
}

var _ wire.BatchServer = (*Batches)(nil)

// NewBatches returns batches without a caller.
func NewBatches(c BatchConfig) *Batches { return &Batches{config: c} }

// batch is a quote to come, and those who wait for it.
type batch struct {
	bank    measure.Alg
	pcrs    []measure.PCR // ascending
	callers map[*caller]struct{}
	cancel  context.CancelFunc // of the quote; nil while it waits

	answered chan struct{} // closed when what follows is set
	tree     merkle.Tree
	quote    quote.Answer
	log      [sha256.Size]byte // digest of quote.Log
	err      error
}

type caller struct {
	nonce []byte
	index int // in the tree, set before the quote is taken
}

// AttestBatched implements wire.BatchServer.
func (b *Batches) AttestBatched(ctx context.Context, req wire.BatchRequest) (wire.BatchAnswer, error) {
	oiak, err := b.refuse(req)
	if err != nil {
		return wire.BatchAnswer{}, err
	}
	c := &caller{nonce: req.Nonce}
	of, err := b.join(c, req)
	if err != nil {
		return wire.BatchAnswer{}, err
	}
	select {
	case <-of.answered:
	case <-ctx.Done():
		b.leave(c, of)
		return wire.BatchAnswer{}, ctx.Err()
	}
	if of.err != nil {
		return wire.BatchAnswer{}, of.err
	}
	ans := of.answer(c, req.KnownLog)
	ans.Card, ans.OIAK = b.config.Card, oiak
	return ans, nil
}

// refuse finds what is wrong with a request without asking the TPM.
func (b *Batches) refuse(req wire.BatchRequest) (wire.Chain, error) {
	if err := req.Check(); err != nil {
		return nil, err
	}
	if err := b.config.Desk.Check(req.Bank); err != nil {
		return nil, err
	}
	oiak := b.config.OIAK()
	if len(oiak) == 0 {
		return nil, fmt.Errorf("%w: not enrolled: no oIAK certificate installed", wire.ErrNotReady)
	}
	return oiak, nil
}

// join puts c among those who wait for a quote over the same PCRs.
func (b *Batches) join(c *caller, req wire.BatchRequest) (*batch, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.callers >= b.config.Waiting {
		return nil, fmt.Errorf("%w: %d challengers wait for a quote", wire.ErrBusy, b.callers)
	}
	pcrs := slices.Sorted(slices.Values(req.PCRs))
	i := slices.IndexFunc(b.waiting, func(w *batch) bool { return w.bank == req.Bank && slices.Equal(w.pcrs, pcrs) })
	if i < 0 {
		if len(b.waiting) >= maxSelections {
			return nil, fmt.Errorf("%w: quotes over %d other selections of PCRs come first", wire.ErrBusy, len(b.waiting))
		}
		i = len(b.waiting)
		b.waiting = append(b.waiting, &batch{
			bank: req.Bank, pcrs: pcrs, callers: map[*caller]struct{}{}, answered: make(chan struct{}),
		})
	}
	b.waiting[i].callers[c] = struct{}{}
	b.callers++
	if !b.running {
		b.running = true
		go b.run()
	}
	return b.waiting[i], nil
}

// leave takes a caller out who no longer waits. A quote that nobody waits for
// is not taken, and not waited for.
func (b *Batches) leave(c *caller, of *batch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(of.callers, c)
	if of.cancel == nil {
		b.callers--
	}
	if len(of.callers) > 0 {
		return
	}
	if of.cancel != nil {
		of.cancel()
		return
	}
	b.waiting = slices.DeleteFunc(b.waiting, func(w *batch) bool { return w == of })
}

// run takes quotes until nobody waits.
func (b *Batches) run() {
	for {
		pause, more := b.more()
		if !more {
			return
		}
		time.Sleep(pause) // more may join
		if ctx, of := b.close(); of != nil {
			b.take(ctx, of)
			of.cancel()
		}
	}
}

// more tells whether anybody waits, and how long until a quote may begin.
func (b *Batches) more() (time.Duration, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.running = len(b.waiting) > 0
	return time.Until(b.next), b.running
}

// close returns the batch that has waited longest, nil if all have left.
// Nobody joins it any more.
func (b *Batches) close() (context.Context, *batch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting) == 0 {
		return nil, nil
	}
	of := b.waiting[0]
	b.waiting = slices.Delete(b.waiting, 0, 1)
	b.callers -= len(of.callers)
	b.next = time.Now().Add(b.config.Every)
	ctx, cancel := context.WithTimeout(context.Background(), b.config.Limit)
	of.cancel = cancel
	nonces := make([][]byte, 0, len(of.callers))
	for c := range of.callers {
		c.index = len(nonces)
		nonces = append(nonces, c.nonce)
	}
	of.tree, of.err = merkle.New(nonces)
	return ctx, of
}

// take lets the TPM sign the commitment and tells all who wait. No caller is
// there to catch a panic, which must not end the agent.
func (b *Batches) take(ctx context.Context, of *batch) {
	defer close(of.answered)
	defer func() {
		if p := recover(); p != nil {
			of.err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	if of.err != nil {
		return
	}
	of.quote, of.err = b.config.Desk.Take(ctx, quote.Question{Nonce: of.tree.Commitment(), Bank: of.bank, PCRs: of.pcrs, Batch: true})
	of.log = sha256.Sum256(of.quote.Log)
}

// answer returns what is c's of the quote. A log that c has already is left out.
func (of *batch) answer(c *caller, known []byte) wire.BatchAnswer {
	q := of.quote
	ans := wire.BatchAnswer{
		AttestAnswer: wire.AttestAnswer{PCRs: q.PCRs, Quoted: q.Quoted, Signature: q.Signature, Log: q.Log},
		Proof:        of.tree.Proof(c.index),
	}
	if slices.Equal(known, of.log[:]) {
		ans.Log, ans.LogKnown = nil, true
	}
	return ans
}
