package agent_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"waxseal/agent"
	"waxseal/hw/tpm/tpmtest"
	"waxseal/measure/evidence"
	"waxseal/measure/wire"
)

// chipTime is what a TPM on a router takes for a signature.
const chipTime = 250 * time.Millisecond

// slowChip is a realChip with the pace of one on a router.
type slowChip struct {
	realChip
	*tpmtest.Slow
}

func newSlowChip(t testing.TB) slowChip {
	t.Helper()
	d, slow := tpmtest.SlowProvisioned(t, map[tpm2.TPMCC]time.Duration{tpm2.TPMCCQuote: chipTime, tpm2.TPMCCSign: chipTime})
	return slowChip{realChip{d}, slow}
}

func (c slowChip) quotes() int     { return c.Sent(tpm2.TPMCCQuote) }
func (c slowChip) signatures() int { return c.Sent(tpm2.TPMCCSign) }

// crowd are challengers on warm connections who ask at a fixed rate, whether
// they are answered or not.
type crowd struct {
	conns   []wire.Conn
	witness *witness

	mu   sync.Mutex // guards what follows
	took []time.Duration
	errs map[string]int
}

// newCrowd warms size connections up, a few at a time: the TPM signs for each.
func newCrowd(t testing.TB, l *lab, size int) *crowd {
	t.Helper()
	c := &crowd{witness: &witness{lab: l, verifier: l.verifier(), known: map[[sha256.Size]byte][]byte{}}}
	l.enroll(t)
	var warm sync.WaitGroup
	few := make(chan struct{}, 8)
	for range size {
		conn := l.dial(t, l.owner.client(t))
		c.conns = append(c.conns, conn)
		warm.Go(func() {
			few <- struct{}{}
			defer func() { <-few }()
			if _, err := conn.Contents().Status(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	warm.Wait()
	req := newBatchRequest(t)
	ans, err := c.conns[0].Challenge().Attest(t.Context(), req)
	if err == nil {
		err = c.witness.check(req, ans)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.witness.log = ans.Log
	return c
}

// ask sends rate challenges a second for a while, and waits for the answers.
// The time of each begins when it was due, not when it could be sent.
func (c *crowd) ask(t testing.TB, rate int, while time.Duration) {
	c.took, c.errs = nil, map[string]int{}
	sum := sha256.Sum256(c.witness.log)
	var challenges sync.WaitGroup
	begin := time.Now()
	for i := range int(while.Seconds() * float64(rate)) {
		due := begin.Add(time.Duration(i) * time.Second / time.Duration(rate))
		time.Sleep(time.Until(due))
		challenges.Go(func() {
			req := newBatchRequest(t)
			req.KnownLog = sum[:]
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			ans, err := c.conns[i%len(c.conns)].Challenge().Attest(ctx, req)
			took := time.Since(due)
			if err == nil {
				err = c.witness.check(req, ans)
			}
			c.note(took, err)
		})
	}
	challenges.Wait()
	slices.Sort(c.took)
}

func (c *crowd) note(took time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.errs[err.Error()]++
		return
	}
	c.took = append(c.took, took)
}

// failed returns how many challenges were not answered.
func (c *crowd) failed() (n int) {
	for _, times := range c.errs {
		n += times
	}
	return n
}

// slowest returns the time within which this share of the answers came.
func (c *crowd) slowest(share float64) time.Duration {
	if len(c.took) == 0 {
		return 0
	}
	return c.took[min(len(c.took)-1, int(share*float64(len(c.took))))]
}

// witness verifies answers. Those of one batch have the same quote: the first
// is verified in full, and of the others everything must be the same but the
// place of the nonce, which must lead to what was signed.
type witness struct {
	lab      *lab
	verifier *evidence.Verifier
	log      []byte

	mu    sync.Mutex                   // guards known
	known map[[sha256.Size]byte][]byte // extraData of a verified answer, by all that a batch shares
}

func (w *witness) check(req wire.BatchRequest, ans wire.BatchAnswer) error {
	if ans.LogKnown {
		ans.Log = w.log
	}
	signed, err := ans.Proof.Commitment(req.Nonce)
	if err != nil {
		return err
	}
	h := sha256.New()
	for _, part := range [][]byte{ans.Quoted, ans.Signature, ans.Log, []byte(ans.OIAK.String()), ans.Peer[0].Raw} {
		h.Write(part)
	}
	for _, pcr := range asked {
		h.Write(ans.PCRs[pcr])
	}
	key := [sha256.Size]byte(h.Sum(nil))
	w.mu.Lock()
	defer w.mu.Unlock()
	if extra, ok := w.known[key]; ok {
		if !bytes.Equal(extra, signed) {
			return errors.New("the path leads to another commitment than the one signed")
		}
		return nil
	}
	if err := w.lab.verifyBatched(w.verifier, req, ans); err != nil {
		return err
	}
	w.known[key] = signed
	return nil
}

// flood are strangers who begin TLS sessions as fast as they may, so that the
// TPM signs for them. Each has an address of its own.
type flood struct {
	begun, signed atomic.Int64
	stop          context.CancelFunc
	strangers     sync.WaitGroup
}

func newFlood(t testing.TB, l *lab, strangers int) *flood {
	ctx, cancel := context.WithCancel(t.Context())
	f := &flood{stop: cancel}
	for i := range strangers {
		d := tls.Dialer{
			NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, byte(1+i/250), byte(1+i%250))}},
			Config:    h2(clientTLS(nil)),
		}
		f.strangers.Go(func() {
			for ctx.Err() == nil {
				f.begun.Add(1)
				if c, err := d.DialContext(ctx, "tcp", l.addr); err == nil {
					f.signed.Add(1) // the router signed before it asked who this is
					c.Close()
				} else {
					time.Sleep(20 * time.Millisecond)
				}
			}
		})
	}
	return f
}

func (f *flood) end() {
	f.stop()
	f.strangers.Wait()
}

// crowded returns a router with a slow TPM and a log as long as a real one.
func crowded(t testing.TB) (*lab, slowChip) {
	c := newSlowChip(t)
	l := newLab(t, c, func(c *agent.Config) { c.Limits.PerPeer, c.Limits.DialRate = 120, 1000 })
	for i := range 100 {
		record(t, l.recorder, fmt.Sprintf("mirror/tc/eth%d", i))
	}
	return l, c
}

func TestManyAreAnsweredByFewQuotes(t *testing.T) {
	l, chip := crowded(t)
	c := newCrowd(t, l, 8)
	before := chip.quotes()
	c.ask(t, 200, 3*time.Second)
	if n := c.failed(); n != 0 {
		t.Errorf("%d of 600 challenges were not answered: %v", n, c.errs)
	}
	t.Logf("median %v, slowest %v", c.slowest(0.5), c.slowest(1))
	if quotes := chip.quotes() - before; len(c.took) != 600 || quotes > 60 {
		t.Errorf("%d answers by %d quotes", len(c.took), quotes)
	}
}

func TestFloodOfHandshakesDoesNotStarveQuotes(t *testing.T) {
	l, chip := crowded(t)
	c := newCrowd(t, l, 4)
	signed := chip.signatures()
	f := newFlood(t, l, 60)
	for f.begun.Load() < 60 {
		time.Sleep(time.Millisecond)
	}
	c.ask(t, 20, 3*time.Second)
	for range 3 { // attestz has a place in the line too
		req := newRequest(t)
		ans, err := c.conns[0].Attestz().Attest(t.Context(), req)
		if err == nil {
			_, err = l.verify(req, ans)
		}
		if err != nil {
			t.Errorf("single challenge: %v", err)
		}
	}
	f.end()
	t.Logf("median %v, slowest %v; %d handshakes begun, %d signed", c.slowest(0.5), c.slowest(1), f.begun.Load(), chip.signatures()-signed)
	if n := c.failed(); n != 0 || len(c.took) != 60 {
		t.Errorf("%d of 60 challenges were not answered: %v", n, c.errs)
	}
	if chip.signatures() == signed {
		t.Error("the strangers got no signature: that was no flood")
	}
}
