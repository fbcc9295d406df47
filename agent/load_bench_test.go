package agent_test

import (
	"context"
	"flag"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var loadTime = flag.Duration("load", 3*time.Second, "how long BenchmarkLoad asks")

// BenchmarkLoad asks a router with a TPM of 250 ms for a thousand batched
// answers a second, while its kernel forwards, and then for fewer under a
// flood of handshakes. Agent, challengers and the hosts whose packets are
// forwarded are one process on this machine.
//
//	go test ./agent -run '^$' -bench Load -benchtime 1x -load 60s
func BenchmarkLoad(b *testing.B) {
	b.Run("challenges", benchmarkChallenges)
	b.Run("flood", benchmarkFlood)
}

func benchmarkChallenges(b *testing.B) {
	l, chip := crowded(b)
	c := newCrowd(b, l, 100)
	f := newForwarding(b)
	for range b.N {
		alone := f.while(b, func() { time.Sleep(*loadTime / 10) })
		quotes, used, begin := chip.quotes(), cpu(), time.Now()
		busy := f.while(b, func() { c.ask(b, 1000, *loadTime) })
		took := time.Since(begin).Seconds()
		c.report(b)
		b.ReportMetric(float64(len(c.took))/took, "answers/s")
		b.ReportMetric(float64(chip.quotes()-quotes)/took, "quotes/s")
		b.ReportMetric((cpu()-used).Seconds()/took, "cores")
		b.ReportMetric(100*alone, "%-forwarded-alone")
		b.ReportMetric(100*busy, "%-forwarded")
	}
}

func benchmarkFlood(b *testing.B) {
	l, chip := crowded(b)
	c := newCrowd(b, l, 16)
	for range b.N {
		f := newFlood(b, l, 200)
		quotes, signatures, begin := chip.quotes(), chip.signatures(), time.Now()
		c.ask(b, 200, max(*loadTime/4, time.Second))
		took := time.Since(begin).Seconds()
		c.report(b)
		b.ReportMetric(float64(f.begun.Load())/took, "handshakes/s")
		b.ReportMetric(float64(chip.signatures()-signatures)/took, "signatures/s")
		b.ReportMetric(float64(chip.quotes()-quotes)/took, "quotes/s")
		f.end()
	}
}

// report reports how long answers took, and how many did not come.
func (c *crowd) report(b *testing.B) {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	b.ReportMetric(ms(c.slowest(0.5)), "p50-ms")
	b.ReportMetric(ms(c.slowest(0.99)), "p99-ms")
	b.ReportMetric(ms(c.slowest(1)), "max-ms")
	b.ReportMetric(float64(c.failed()), "errors")
	for text, n := range c.errs {
		b.Logf("%d × %s", n, text)
	}
}

// while forwards during do and returns the share that arrived.
func (f *forwarding) while(b *testing.B, do func()) float64 {
	if f == nil {
		do()
		return 0
	}
	ctx, cancel := context.WithCancel(b.Context())
	forwarded := make(chan float64)
	go func() {
		share, err := f.forward(ctx)
		if err != nil {
			b.Error(err)
		}
		forwarded <- share
	}()
	do()
	cancel()
	return <-forwarded
}

// cpu returns the processor time that this process has used.
func cpu() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // fails for no caller of it
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
