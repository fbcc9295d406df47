package challenge

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"waxseal/agent/quote"
	"waxseal/measure"
	"waxseal/measure/wire"
)

const quoteTime = 250 * time.Millisecond

// desk takes quoteTime for a quote, and keeps what it was asked.
type desk struct {
	log  []byte
	fail func() error // nil: nothing fails

	mu    sync.Mutex // guards what follows
	asked []quote.Question
	at    []time.Time
	cut   int // quotes that were given up
}

func (d *desk) Check(bank measure.Alg) error {
	if bank != measure.SHA384 {
		return wire.ErrInvalid
	}
	return nil
}

func (d *desk) Take(ctx context.Context, q quote.Question) (quote.Answer, error) {
	d.mu.Lock()
	d.asked, d.at = append(d.asked, q), append(d.at, time.Now())
	d.mu.Unlock()
	select {
	case <-time.After(quoteTime):
	case <-ctx.Done():
		d.mu.Lock()
		defer d.mu.Unlock()
		d.cut++
		return quote.Answer{}, ctx.Err()
	}
	if d.fail != nil {
		return quote.Answer{}, d.fail()
	}
	return quote.Answer{Quoted: q.Nonce, Signature: []byte("signature"), Log: d.log}, nil
}

func newBatches(d *desk, changes ...func(*BatchConfig)) *Batches {
	c := BatchConfig{
		Desk: d, OIAK: func() wire.Chain { return wire.Chain{"oiak"} },
		Waiting: 1000, Limit: time.Minute,
	}
	for _, change := range changes {
		change(&c)
	}
	return NewBatches(c)
}

func request(n int, pcrs ...measure.PCR) wire.BatchRequest {
	nonce := sha256.Sum256(binary.BigEndian.AppendUint32(nil, uint32(n)))
	if len(pcrs) == 0 {
		pcrs = []measure.PCR{12, 15}
	}
	return wire.BatchRequest{Nonce: nonce[:], Bank: measure.SHA384, PCRs: pcrs}
}

// challengers ask, each in a goroutine of its own.
type challengers struct {
	wait    sync.WaitGroup
	answers []wire.BatchAnswer
	errs    []error
}

func (c *challengers) ask(t *testing.T, ctx context.Context, b *Batches, reqs ...wire.BatchRequest) {
	c.answers, c.errs = make([]wire.BatchAnswer, len(reqs)), make([]error, len(reqs))
	for i, req := range reqs {
		c.wait.Go(func() {
			ans, err := b.AttestBatched(ctx, req)
			c.answers[i], c.errs[i] = ans, err
			if err != nil {
				return
			}
			want, err := ans.Proof.Commitment(req.Nonce)
			if err != nil || !bytes.Equal(ans.Quoted, want) {
				t.Errorf("challenger %d got a quote over %x, %v: want %x", i, ans.Quoted, err, want)
			}
		})
	}
}

func (c *challengers) good() (n int) {
	c.wait.Wait()
	for _, err := range c.errs {
		if err == nil {
			n++
		}
	}
	return n
}

func requests(from, n int, pcrs ...measure.PCR) (all []wire.BatchRequest) {
	for i := range n {
		all = append(all, request(from+i, pcrs...))
	}
	return all
}

func TestWhoWaitsTogetherGetsOneQuote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{}
		b := newBatches(d)
		var first, rest challengers
		first.ask(t, t.Context(), b, request(0))
		synctest.Wait()
		rest.ask(t, t.Context(), b, requests(1, 500)...)
		if n := first.good() + rest.good(); n != 501 || len(d.asked) != 2 {
			t.Errorf("%d of 501 answered by %d quotes: want 2", n, len(d.asked))
		}
		seen := map[uint32]bool{}
		for _, a := range rest.answers {
			if seen[a.Proof.Index] || a.Proof.Size != 500 {
				t.Fatalf("place %d of %d is given twice, or the size is wrong", a.Proof.Index, a.Proof.Size)
			}
			seen[a.Proof.Index] = true
		}
	})
}

func TestNobodyWaitsLongerThanForTwoQuotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{}
		b := newBatches(d)
		begin := time.Now()
		const n = 5000 // 1,000 a second
		var wait sync.WaitGroup
		for i := range n {
			wait.Go(func() {
				asked := time.Now()
				if _, err := b.AttestBatched(t.Context(), request(i)); err != nil {
					t.Error(err)
				}
				if took := time.Since(asked); took > 2*quoteTime {
					t.Errorf("challenger %d waited %v", i, took)
				}
			})
			time.Sleep(time.Millisecond)
		}
		wait.Wait()
		if quotes := float64(len(d.asked)); quotes > 1+5*time.Since(begin).Seconds() {
			t.Errorf("%g quotes in %v", quotes, time.Since(begin))
		}
	})
}

func TestOtherSelectionsGetQuotesOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{}
		b := newBatches(d)
		var blocker, these, others challengers
		blocker.ask(t, t.Context(), b, request(0))
		synctest.Wait()
		these.ask(t, t.Context(), b, append(requests(1, 10, 12, 15), requests(11, 10, 15, 12)...)...) // in either order
		synctest.Wait()
		others.ask(t, t.Context(), b, requests(21, 10, 12)...)
		if n := blocker.good() + these.good() + others.good(); n != 31 || len(d.asked) != 3 {
			t.Fatalf("%d of 31 answered by %d quotes: want 3", n, len(d.asked))
		}
		if !slices.Equal(d.asked[1].PCRs, []measure.PCR{12, 15}) || !slices.Equal(d.asked[2].PCRs, []measure.PCR{12}) {
			t.Errorf("asked %v", d.asked)
		}
	})
}

func TestQuotesAreNotTakenFasterThanAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{}
		b := newBatches(d, func(c *BatchConfig) { c.Every = 4 * quoteTime })
		for i := range 5 {
			var c challengers
			c.ask(t, t.Context(), b, request(i))
			if c.good() != 1 {
				t.Fatal(c.errs)
			}
		}
		for i := 1; i < len(d.at); i++ {
			if pause := d.at[i].Sub(d.at[i-1]); pause < 4*quoteTime {
				t.Errorf("quote %d begins %v after the one before", i, pause)
			}
		}
	})
}

func TestWaitingChallengersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBatches(&desk{}, func(c *BatchConfig) { c.Waiting = 20 })
		var blocker, many challengers
		blocker.ask(t, t.Context(), b, request(0))
		synctest.Wait()
		many.ask(t, t.Context(), b, requests(1, 30)...)
		if n := many.good(); n != 20 {
			t.Errorf("%d challengers waited: want 20", n)
		}
		for _, err := range many.errs {
			if err != nil && !errors.Is(err, wire.ErrBusy) {
				t.Errorf("%v: want ErrBusy", err)
			}
		}
		blocker.good()
		var selections challengers
		var reqs []wire.BatchRequest
		for pcr := range measure.PCR(20) {
			reqs = append(reqs, request(int(pcr), pcr))
		}
		blocker.ask(t, t.Context(), b, request(0, 20))
		synctest.Wait()
		selections.ask(t, t.Context(), b, reqs...)
		if n := selections.good(); n != maxSelections {
			t.Errorf("%d selections waited: want %d", n, maxSelections)
		}
		blocker.good()
		if b.callers != 0 || len(b.waiting) != 0 {
			t.Errorf("afterwards %d callers of %d batches wait", b.callers, len(b.waiting))
		}
	})
}

func TestWhoLeavesBreaksNothingForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{}
		b := newBatches(d, func(c *BatchConfig) { c.Waiting = 20 })
		var blocker, impatient, patient challengers
		blocker.ask(t, t.Context(), b, request(0))
		synctest.Wait()
		soon, cancel := context.WithTimeout(t.Context(), quoteTime/2)
		defer cancel()
		impatient.ask(t, soon, b, requests(1, 10)...)
		patient.ask(t, t.Context(), b, requests(11, 10)...)
		if n := impatient.good(); n != 0 {
			t.Errorf("%d were answered before the quote", n)
		}
		var late challengers // the places of those who left are free again
		late.ask(t, t.Context(), b, requests(21, 10)...)
		if n := patient.good() + late.good() + blocker.good(); n != 21 || len(d.asked) != 2 {
			t.Errorf("%d of 21 answered by %d quotes: want 2", n, len(d.asked))
		}
		if size := patient.answers[0].Proof.Size; size != 20 {
			t.Errorf("the batch has %d nonces: want 20", size)
		}
	})
}

func TestQuoteThatNobodyWaitsForIsNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{}
		b := newBatches(d)
		ctx, cancel := context.WithTimeout(t.Context(), quoteTime/2)
		defer cancel()
		before, cancelBefore := context.WithTimeout(ctx, quoteTime/4) // else a quote may begin for those who are about to leave
		defer cancelBefore()
		var inFlight, waiting challengers
		inFlight.ask(t, ctx, b, request(0))
		synctest.Wait()
		waiting.ask(t, before, b, requests(1, 10)...)
		if n := inFlight.good() + waiting.good(); n != 0 || b.callers != 0 || len(b.waiting) != 0 {
			t.Errorf("%d answered, then %d callers of %d batches wait", n, b.callers, len(b.waiting))
		}
		synctest.Wait()
		if len(d.asked) != 1 || d.cut != 1 {
			t.Errorf("%d quotes were asked for and %d given up: want 1 and 1", len(d.asked), d.cut)
		}
		var again challengers
		again.ask(t, t.Context(), b, request(11))
		if again.good() != 1 {
			t.Errorf("the next challenger: %v", again.errs)
		}
	})
}

func TestLogThatIsKnownIsNotSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := []byte("log")
		sum, other := sha256.Sum256(log), sha256.Sum256([]byte("older"))
		knows := func(n int, sum []byte) wire.BatchRequest {
			r := request(n)
			r.KnownLog = sum
			return r
		}
		var c challengers
		c.ask(t, t.Context(), newBatches(&desk{log: log}), knows(0, sum[:]), knows(1, other[:]), knows(2, nil))
		if c.good() != 3 {
			t.Fatal(c.errs)
		}
		for i, known := range []bool{true, false, false} {
			if a := c.answers[i]; a.LogKnown != known || (len(a.Log) == 0) != known {
				t.Errorf("challenger %d: known %v, log of %d bytes", i, a.LogKnown, len(a.Log))
			}
		}
	})
}

func TestFailedQuoteAnswersNobody(t *testing.T) {
	for name, fail := range map[string]func() error{
		"error": func() error { return wire.ErrRetry },
		"panic": func() error { panic("the TPM is gone") },
	} {
		synctest.Test(t, func(t *testing.T) {
			d := &desk{fail: fail}
			b := newBatches(d)
			var c challengers
			c.ask(t, t.Context(), b, requests(0, 10)...)
			if n := c.good(); n != 0 {
				t.Errorf("%s: %d were answered", name, n)
			}
			d.fail = nil
			c.ask(t, t.Context(), b, requests(0, 10)...)
			if n := c.good(); n != 10 {
				t.Errorf("%s: then %d were answered: %v", name, n, c.errs)
			}
		})
	}
}

func TestBatchedIsRefusedWithoutAskingTheTPM(t *testing.T) {
	for name, test := range map[string]struct {
		config  func(*BatchConfig)
		request func(*wire.BatchRequest)
		want    error
	}{
		"no PCR":          {request: func(r *wire.BatchRequest) { r.PCRs = nil }, want: wire.ErrInvalid},
		"PCR twice":       {request: func(r *wire.BatchRequest) { r.PCRs = []measure.PCR{1, 1} }, want: wire.ErrInvalid},
		"short nonce":     {request: func(r *wire.BatchRequest) { r.Nonce = make([]byte, 15) }, want: wire.ErrInvalid},
		"known log":       {request: func(r *wire.BatchRequest) { r.KnownLog = make([]byte, 31) }, want: wire.ErrInvalid},
		"bank not active": {request: func(r *wire.BatchRequest) { r.Bank = measure.SHA256 }, want: wire.ErrInvalid},
		"not enrolled":    {config: func(c *BatchConfig) { c.OIAK = func() wire.Chain { return nil } }, want: wire.ErrNotReady},
	} {
		d, req := &desk{}, request(0)
		change := func(*BatchConfig) {}
		if test.config != nil {
			change = test.config
		}
		if test.request != nil {
			test.request(&req)
		}
		if _, err := newBatches(d, change).AttestBatched(t.Context(), req); !errors.Is(err, test.want) {
			t.Errorf("%s: %v: want %v", name, err, test.want)
		}
		if len(d.asked) != 0 {
			t.Errorf("%s: the TPM was asked", name)
		}
	}
}
