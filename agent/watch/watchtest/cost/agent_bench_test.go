package cost

import (
	"testing"
	"time"
)

// BenchmarkAgent measures the processor time of the tool itself, in percent of
// one core, while nothing flows and while 100,000 packets a second do; its
// memory, and that of its maps. What its programs cost in the kernel, on the
// path of packets, is BenchmarkForwarding's.
//
//	go test ./agent/watch/watchtest/cost -run '^$' -bench Agent -benchtime 1x -waxseald bin/waxseald
func BenchmarkAgent(b *testing.B) {
	lab := newLab(b)
	s := newSender(b, lab)
	for range b.N {
		t := start(b, lab)
		drain(t, time.Second) // its first look at everything is over
		b.ReportMetric(t.share(b, func() { drain(t, 10*time.Second) }), "idle-%")
		s.paced(b, 100_000, func() {
			drain(t, 2*time.Second) // sampling has found its rate
			b.ReportMetric(t.share(b, func() { drain(t, 8*time.Second) }), "100kpps-%")
		})
		b.ReportMetric(float64(t.mapBytes(b))/1024, "maps-KiB")
		b.ReportMetric(float64(t.rss(b))/1024, "rss-MiB")
		t.stop(b)
	}
}

// share returns the percentage of a core that the tool uses during f.
func (t *tool) share(b *testing.B, f func()) float64 {
	b.Helper()
	before, begin := t.cpu(b), time.Now()
	f()
	return 100 * (t.cpu(b) - before).Seconds() / time.Since(begin).Seconds()
}
