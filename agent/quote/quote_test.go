package quote

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"

	"waxseal/hw/tpm/tpmtest"
	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/merkle"
	"waxseal/measure/wire"
)

// quoter quotes without a key: its attest ends as a TPMS_ATTEST does.
type quoter struct {
	*tpmtest.PCRs
	asked int
	read  func(map[measure.PCR][]byte) // changes what ReadPCRs gives
	fail  error
}

func (q *quoter) ReadPCRs(ctx context.Context, bank measure.Alg, pcrs []measure.PCR) (map[measure.PCR][]byte, error) {
	q.asked++
	v, err := q.PCRs.ReadPCRs(ctx, bank, pcrs)
	if q.read != nil {
		q.read(v)
	}
	return v, err
}

func (q *quoter) Quote(ctx context.Context, nonce []byte, bank measure.Alg, pcrs []measure.PCR) ([]byte, []byte, error) {
	q.asked++
	v, err := q.PCRs.ReadPCRs(ctx, bank, pcrs)
	if err != nil {
		return nil, nil, err
	}
	var all []byte
	for pcr := range measure.PCR(measure.NumPCRs) {
		all = append(all, v[pcr]...)
	}
	sum := measure.Hash(measure.SHA384, all).Sum
	return append(binary.BigEndian.AppendUint16(bytes.Clone(nonce), 48), sum...), []byte("signature"), q.fail
}

// recorder has recorded these events.
type recorder []measure.Event

func (r recorder) Freeze(f func([]measure.Event) error) error { return f(r) }

var question = Question{Nonce: make([]byte, 32), Bank: measure.SHA384, PCRs: []measure.PCR{15, 12}}

func newDesk(q *quoter, changes ...func(*Config)) *Desk {
	rec := measure.Record{PCR: 12, Name: "kernel/x"}
	log := recorder{{Record: rec, Digests: rec.Digests(q.Banks())}}
	c := Config{Quoter: q, Recorder: log}
	for _, change := range changes {
		change(&c)
	}
	return New(c)
}

func TestAnswerHasExactlyTheValuesAskedFor(t *testing.T) {
	ans, err := newDesk(&quoter{PCRs: tpmtest.Fake()}).Take(t.Context(), question)
	if err != nil {
		t.Fatal(err)
	}
	if len(ans.PCRs) != 2 || len(ans.PCRs[12]) != 48 || len(ans.PCRs[15]) != 48 {
		t.Errorf("answer %+v", ans)
	}
}

func TestRefusedWithoutAskingTheTPM(t *testing.T) {
	for name, test := range map[string]struct {
		config func(*Config)
		bank   measure.Alg
		want   error
	}{
		"bank not active":  {bank: measure.SHA512, want: wire.ErrInvalid},
		"boot incomplete":  {config: func(c *Config) { c.Unattested = "boot incomplete" }, want: wire.ErrNotReady},
		"nothing measured": {config: func(c *Config) { c.Recorder = nil }, want: wire.ErrNotReady},
		"empty log":        {config: func(c *Config) { c.Recorder = recorder{} }, want: wire.ErrNotReady},
		"no TPM":           {config: func(c *Config) { c.Quoter = nil }, want: wire.ErrNotReady},
	} {
		q := &quoter{PCRs: tpmtest.Fake()}
		ask := question
		if test.bank != 0 {
			ask.Bank = test.bank
		}
		change := test.config
		if change == nil {
			change = func(*Config) {}
		}
		if _, err := newDesk(q, change).Take(t.Context(), ask); !errors.Is(err, test.want) {
			t.Errorf("%s: %v: want %v", name, err, test.want)
		}
		if q.asked != 0 {
			t.Errorf("%s: the TPM was asked", name)
		}
	}
}

// A stranger's nonce that reads as a commitment would prove, to a challenger
// whose nonce is a leaf of it, a quote that the challenger never waited for.
func TestNoNonceOfAStrangerIsSignedAsABatch(t *testing.T) {
	tree, err := merkle.New([][]byte{make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	q := &quoter{PCRs: tpmtest.Fake()}
	ask := question
	ask.Nonce = tree.Commitment()
	if _, err := newDesk(q).Take(t.Context(), ask); !errors.Is(err, wire.ErrInvalid) || q.asked != 0 {
		t.Errorf("%v, TPM asked %d times: want ErrInvalid and no question", err, q.asked)
	}
	ask.Batch = true
	if _, err := newDesk(q).Take(t.Context(), ask); err != nil {
		t.Errorf("the agent's own batch: %v", err)
	}
}

func TestLogNeedsNoQuote(t *testing.T) {
	q := &quoter{PCRs: tpmtest.Fake()}
	log, err := newDesk(q).Log()
	if err != nil || len(log.Ours()) != 1 || q.asked != 0 {
		t.Errorf("%d events, %v, TPM asked %d times: want one event and no question", len(log.Events), err, q.asked)
	}
	if _, err := newDesk(q, func(c *Config) { c.Recorder = recorder{} }).Log(); !errors.Is(err, wire.ErrNotReady) {
		t.Errorf("nothing recorded: %v: want ErrNotReady", err)
	}
}

func TestValuesThatTheQuoteDoesNotCoverAreNotReported(t *testing.T) {
	for name, read := range map[string]func(map[measure.PCR][]byte){
		"changed": func(v map[measure.PCR][]byte) { v[12][0] ^= 1 },
		"missing": func(v map[measure.PCR][]byte) { delete(v, 12) },
		"short":   func(v map[measure.PCR][]byte) { v[12] = v[12][1:] },
		"more":    func(v map[measure.PCR][]byte) { v[13] = make([]byte, 48) },
		"swapped": func(v map[measure.PCR][]byte) { v[12], v[15] = v[15], v[12] },
	} {
		q := &quoter{PCRs: tpmtest.Fake(), read: read}
		rec := measure.Record{PCR: 12, Name: "kernel/x"}
		if err := q.Extend(t.Context(), 12, rec.Digests(q.Banks())); err != nil {
			t.Fatal(err)
		}
		if ans, err := newDesk(q).Take(t.Context(), question); err == nil {
			t.Errorf("%s: answered with %x", name, ans.PCRs)
		}
	}
}

func TestFailedQuoteIsNoAnswer(t *testing.T) {
	q := &quoter{PCRs: tpmtest.Fake(), fail: errors.New("TPM_RC_FAILURE")}
	if ans, err := newDesk(q).Take(t.Context(), question); err == nil || ans.Quoted != nil {
		t.Errorf("answer %+v, %v", ans, err)
	}
}

func TestFirmwareLogWithoutTheBankIsNoEvidence(t *testing.T) {
	sha256only := eventlog.Log{Banks: []measure.Alg{measure.SHA256}, Events: []eventlog.Event{{
		PCR: 0, Type: eventlog.EVSeparator, Data: make([]byte, 4),
		Digests: []measure.Digest{measure.Hash(measure.SHA256, make([]byte, 4))},
	}}}
	s := newDesk(&quoter{PCRs: tpmtest.Fake()}, func(c *Config) { c.Firmware = sha256only })
	if _, err := s.Take(t.Context(), question); !errors.Is(err, wire.ErrNotReady) {
		t.Errorf("SHA-384: %v: want ErrNotReady", err)
	}
	ask := question
	ask.Bank = measure.SHA256
	ans, err := s.Take(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	log, err := eventlog.DecodeCEL(ans.Log)
	if err != nil || len(log.Firmware()) != 1 || len(log.Ours()) != 1 {
		t.Errorf("log of %d events, %v: want one of the firmware and one of ours", len(log.Events), err)
	}
}

func TestQueueIsShort(t *testing.T) {
	s := newDesk(&quoter{PCRs: tpmtest.Fake()}, func(c *Config) { c.Queue = 2 })
	leave, err := s.queue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	waiting, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() { _, err := s.queue(waiting); gone <- err }()
	for len(s.waiting) < 2 {
		runtime.Gosched()
	}
	if _, err := s.Take(t.Context(), question); !errors.Is(err, wire.ErrBusy) {
		t.Errorf("third challenge: %v: want ErrBusy", err)
	}
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled challenge: %v", err)
	}
	leave()
	if _, err := s.Take(t.Context(), question); err != nil {
		t.Errorf("after the others have left: %v", err)
	}
}

func TestWhatMustBeRecordedFirstIsBeforeTheQuote(t *testing.T) {
	q := &quoter{PCRs: tpmtest.Fake()}
	called := false
	d := newDesk(q, func(c *Config) { c.Before = func(context.Context) { called = true } })
	if _, err := d.Take(t.Context(), question); err != nil || !called {
		t.Errorf("quote: %v, called before it: %v", err, called)
	}
}

func TestWhatNeverEndsDoesNotHoldAQuoteUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		block := make(chan struct{})
		d := newDesk(&quoter{PCRs: tpmtest.Fake()}, func(c *Config) { c.Before = func(context.Context) { <-block } })
		if _, err := d.Take(t.Context(), question); err != nil {
			t.Errorf("quote: %v", err)
		}
		close(block)
		synctest.Wait()
	})
}
