package agent_test

import (
	"crypto/sha256"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"waxseal/agent"
	"waxseal/agent/challenge"
	"waxseal/measure"
	"waxseal/measure/wire"
)

func TestAnswerIsGenuine(t *testing.T) {
	eachChip(t, func(t *testing.T, c chip) {
		firmware := firmwareLog(t, c)
		l := newLab(t, c, func(c *agent.Config) { c.Firmware = firmware })
		l.enroll(t)
		conn := l.dial(t, l.owner.client(t))
		for _, bank := range []measure.Alg{measure.SHA384, measure.SHA256} {
			req := newRequest(t)
			req.Bank = bank
			ans, err := conn.Attestz().Attest(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			v, err := l.verify(req, ans)
			if err != nil {
				t.Fatalf("bank %v: %v", bank, err)
			}
			if v.Serial() != serial || len(v.Events()) != 8+7 {
				t.Errorf("bank %v: serial %q with %d events: want %s with 15", bank, v.Serial(), len(v.Events()), serial)
			}
		}
	})
}

func TestAnswerFillsAllFields(t *testing.T) {
	l := newLab(t, newSoftChip(t))
	conn := l.enroll(t)
	req := newRequest(t)
	ans, err := conn.Attestz().Attest(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if ans.Card != card || len(ans.PCRs) != len(asked) || len(ans.OIAK) != 1 || len(ans.Log) == 0 || len(ans.Peer) != 1 {
		t.Errorf("answer %+v lacks something", ans)
	}
}

// An extend between reading the PCRs and quoting them, by somebody else than
// the agent, must not give values that the quote does not cover.
func TestQuoteIsTakenAgainWhenPCRsChange(t *testing.T) {
	c := newSoftChip(t)
	l := newLab(t, c)
	conn := l.enroll(t)
	foreign := measure.Record{PCR: 10, Name: "kernel/ima"}
	times := 1
	c.beforeQuote = func() {
		if times--; times >= 0 {
			_ = c.Extend(t.Context(), 10, foreign.Digests(c.Banks()))
		}
	}
	req := newRequest(t)
	req.PCRs = []measure.PCR{10, 12}
	if _, err := conn.Attestz().Attest(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if n := c.quotes.Load(); n != 2 {
		t.Errorf("%d quotes: want 2", n)
	}
	times = 100
	if _, err := conn.Attestz().Attest(t.Context(), req); !errors.Is(err, wire.ErrRetry) {
		t.Errorf("PCRs that always change: %v: want ErrRetry", err)
	}
}

func TestLogAndQuoteAgreeWhileRecording(t *testing.T) {
	eachChip(t, func(t *testing.T, c chip) {
		l := newLab(t, c)
		conn := l.enroll(t)
		done := make(chan struct{})
		var recording sync.WaitGroup
		defer recording.Wait()
		defer close(done)
		recording.Go(func() {
			rec, _ := measure.Waxseal1.Of("mirror/tc/eth0", nil)
			for {
				select {
				case <-done:
					return
				default:
					if _, err := l.recorder.Record(t.Context(), rec); err != nil {
						t.Error(err)
						return
					}
					time.Sleep(time.Millisecond)
				}
			}
		})
		for range 20 {
			req := newRequest(t)
			ans, err := conn.Attestz().Attest(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.verify(req, ans); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestOneQuoteAtATime(t *testing.T) {
	c := newSoftChip(t)
	c.latency = 5 * time.Millisecond
	l := newLab(t, c, func(c *agent.Config) { c.Limits.Queue = 4 })
	conn := l.enroll(t)
	var busy, good int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 40 {
		req := newRequest(t)
		wg.Go(func() {
			ans, err := conn.Attestz().Attest(t.Context(), req)
			if err == nil {
				_, err = l.verify(req, ans)
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				good++
			case errors.Is(err, wire.ErrBusy):
				busy++
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if c.overlapped.Load() {
		t.Error("two quotes were in flight at once")
	}
	if good == 0 || good+busy != 40 || int(c.quotes.Load()) != good {
		t.Errorf("%d answered, %d told to wait, %d quotes", good, busy, c.quotes.Load())
	}
	if _, err := conn.Attestz().Attest(t.Context(), newRequest(t)); err != nil {
		t.Errorf("after the rush: %v", err)
	}
}

// The TPM must not be asked for what can be refused without it.
func TestBadChallengesNeverReachTheTPM(t *testing.T) {
	c := newSoftChip(t)
	l := newLab(t, c)
	conn := l.dial(t, l.owner.client(t))
	if _, err := conn.Attestz().Attest(t.Context(), newRequest(t)); !errors.Is(err, wire.ErrNotReady) {
		t.Errorf("not enrolled: %v: want ErrNotReady", err)
	}
	l.enroll(t)
	for name, change := range map[string]func(*wire.AttestRequest){
		"standby card":        func(r *wire.AttestRequest) { r.Select = wire.Selection{Role: wire.Standby} },
		"unknown serial":      func(r *wire.AttestRequest) { r.Select = wire.Selection{Serial: "WX-0002"} },
		"unknown slot":        func(r *wire.AttestRequest) { r.Select = wire.Selection{Slot: "1"} },
		"bank that is not on": func(r *wire.AttestRequest) { r.Bank = measure.SHA512 },
	} {
		req := newRequest(t)
		change(&req)
		if _, err := conn.Attestz().Attest(t.Context(), req); !errors.Is(err, wire.ErrInvalid) {
			t.Errorf("%s: %v: want ErrInvalid", name, err)
		}
	}
	if n := c.quotes.Load(); n != 0 {
		t.Errorf("the TPM was asked for %d quotes", n)
	}
	for name, sel := range map[string]wire.Selection{
		"chassis": {Role: wire.Chassis}, "serial": {Serial: serial}, "slot": {Slot: "0"},
	} {
		req := newRequest(t)
		req.Select = sel
		if _, err := conn.Attestz().Attest(t.Context(), req); err != nil {
			t.Errorf("card by %s: %v", name, err)
		}
	}
}

func TestWithoutTPMNothingIsAttested(t *testing.T) {
	l := newLab(t, newSoftChip(t), func(c *agent.Config) {
		*c = agent.Config{Card: c.Card, OwnerCA: c.OwnerCA, State: c.State, Log: c.Log, Unattested: "no TPM"}
	})
	conn := l.dial(t, l.owner.client(t))
	_, err := conn.Attestz().Attest(t.Context(), newRequest(t))
	if !errors.Is(err, wire.ErrNotReady) {
		t.Fatalf("Attest without a TPM: %v: want ErrNotReady", err)
	}
	if want := "UNATTESTED(no TPM)"; !contains(err, want) {
		t.Errorf("%v does not say %s", err, want)
	}
	s, err := conn.Contents().Status(t.Context())
	if err != nil || s != (wire.Status{Owned: true, Reason: "no TPM"}) {
		t.Errorf("status %+v, %v", s, err)
	}
	if err := conn.Enrollz().RotateOIAK(t.Context(), l.rotation(t)); !errors.Is(err, wire.ErrNotReady) {
		t.Errorf("RotateOIAK without a TPM: %v: want ErrNotReady", err)
	}
	if _, err := conn.Enrollz().IAKCert(t.Context(), active); !errors.Is(err, wire.ErrNotReady) {
		t.Errorf("IAKCert without a TPM: %v: want ErrNotReady", err)
	}
}

func TestIncompleteBootIsNotAttested(t *testing.T) {
	c := newSoftChip(t)
	l := newLab(t, c, func(c *agent.Config) { c.Unattested = "boot incomplete" })
	conn := l.enroll(t)
	if _, err := conn.Attestz().Attest(t.Context(), newRequest(t)); !errors.Is(err, wire.ErrNotReady) || !contains(err, "boot incomplete") {
		t.Errorf("Attest: %v: want ErrNotReady with the reason", err)
	}
	if n := c.quotes.Load(); n != 0 {
		t.Errorf("%d quotes", n)
	}
}

func TestStatusOfAnEnrolledDevice(t *testing.T) {
	l := newLab(t, newSoftChip(t))
	conn := l.enroll(t)
	s, err := conn.Contents().Status(t.Context())
	if err != nil || s != (wire.Status{Attested: true, Enrolled: true, Owned: true}) {
		t.Errorf("status %+v, %v", s, err)
	}
}

func TestContentsServeWhatWasKept(t *testing.T) {
	kept, err := challenge.OpenContents(filepath.Join(t.TempDir(), "contents"))
	if err != nil {
		t.Fatal(err)
	}
	text := []byte("config interface 'lan'\n")
	if err := kept.Keep(text); err != nil {
		t.Fatal(err)
	}
	l := newLab(t, newSoftChip(t), func(c *agent.Config) { c.Kept = kept })
	conn := l.dial(t, l.owner.client(t))
	got, err := conn.Contents().Content(t.Context(), sha256.Sum256(text))
	if err != nil || string(got) != string(text) {
		t.Errorf("content %q, %v", got, err)
	}
	if _, err := conn.Contents().Content(t.Context(), sha256.Sum256([]byte("password"))); !errors.Is(err, wire.ErrNotFound) {
		t.Errorf("content that was not kept: %v: want ErrNotFound", err)
	}
}

func TestCallsOfOnePeerAreRateLimited(t *testing.T) {
	l := newLab(t, newSoftChip(t), func(c *agent.Config) { c.Limits.AttestRate = 0.5 })
	conn := l.enroll(t)
	for i := range 2 { // the burst is four seconds' worth
		if _, err := conn.Attestz().Attest(t.Context(), newRequest(t)); err != nil {
			t.Fatalf("challenge %d: %v", i, err)
		}
	}
	if _, err := conn.Attestz().Attest(t.Context(), newRequest(t)); !errors.Is(err, wire.ErrBusy) {
		t.Errorf("third challenge: %v: want ErrBusy", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	l := newLab(t, newSoftChip(t))
	other := newKey(t)
	leaf := l.owner.device(t, &other.PublicKey)
	for name, change := range map[string]func(*agent.Config){
		"card without a serial":       func(c *agent.Config) { c.Card.Serial = "" },
		"card with a control byte":    func(c *agent.Config) { c.Card.Maker = "a\x1b[2J" },
		"owner CA is no PEM":          func(c *agent.Config) { c.OwnerCA = []byte("x") },
		"owner CA is no CA":           func(c *agent.Config) { c.OwnerCA = []byte(wire.ChainOf(leaf).String()) },
		"owner CA is white space":     func(c *agent.Config) { c.OwnerCA = []byte("\n") },
		"IDevID cert of another key":  func(c *agent.Config) { c.IDevIDCert = wire.ChainOf(leaf) },
		"IDevID cert is not readable": func(c *agent.Config) { c.IDevIDCert = wire.Chain{"x"} },
	} {
		c := l.config
		change(&c)
		if _, err := agent.New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
