package cost

import (
	"strings"
	"testing"
	"time"

	"waxseal/agent/mirror"
	"waxseal/agent/watch/watchtest"
)

// attacks is how many times each attack is started.
const attacks = 20

// patience is how long a finding is waited for. One that has not come counts
// as so long, and in the metric "missed".
const patience = 5 * time.Second

// BenchmarkLatency measures the time from before the command that starts a
// mirror of r0 to r2 is run to the line of the tool that says so, at 5,000
// packets a second: to the first line about it from any detector
// ("first"), and to the alarm that copies of packets were counted ("packets").
// The tool is started anew for each attack.
//
//	go test ./agent/watch/watchtest/cost -run '^$' -bench Latency -benchtime 1x -waxseald bin/waxseald
func BenchmarkLatency(b *testing.B) {
	for _, c := range []struct{ name, sampling string }{
		{"1of1", "1/1"}, {"1of64", "1/64"}, {"1of256", "1/256"},
	} {
		b.Run(c.name, func(b *testing.B) {
			lab := newLab(b)
			s := newSender(b, lab)
			if err := lab.Router.Run("tc", "qdisc", "add", "dev", watchtest.R0, "clsact"); err != nil {
				b.Fatal(err)
			}
			for range b.N {
				var first, packets []float64
				missed := 0
				for range attacks {
					f, p := attackOnce(b, lab, s, c.sampling)
					first, packets = append(first, f.Seconds()*1000), append(packets, p.Seconds()*1000)
					if p == patience {
						missed++
					}
				}
				b.ReportMetric(quantile(first, 0.5), "first-p50-ms")
				b.ReportMetric(quantile(first, 1), "first-max-ms")
				b.ReportMetric(quantile(packets, 0.5), "packets-p50-ms")
				b.ReportMetric(quantile(packets, 1), "packets-max-ms")
				b.ReportMetric(float64(missed), "missed")
			}
		})
	}
}

// attackOnce starts the tool, then a mirror, and returns how long the first
// line about it and the alarm of counted copies took.
func attackOnce(b *testing.B, lab *watchtest.Lab, s *sender, sampling string) (first, packets time.Duration) {
	b.Helper()
	t := start(b, lab, "--sampling", sampling)
	defer t.stop(b)
	s.paced(b, 5000, func() {
		drain(t, 300*time.Millisecond)
		filter := []string{"dev", watchtest.R0, "ingress", "pref", "71"}
		add := append(append([]string{"filter", "add"}, filter...), "protocol", "ip", "u32", "match", "u32", "0", "0", "action", "mirred", "egress", "mirror", "dev", watchtest.R2)
		begin := time.Now()
		if err := lab.Router.Run("tc", add...); err != nil {
			b.Fatal(err)
		}
		first, packets = t.await(begin)
		if err := lab.Router.Run("tc", append([]string{"filter", "del"}, filter...)...); err != nil {
			b.Fatal(err)
		}
	})
	return first, packets
}

// await waits for the first line about the mirror and for the alarm of counted copies.
func (t *tool) await(begin time.Time) (first, packets time.Duration) {
	first, packets = patience, patience
	for deadline := time.After(patience); packets == patience; {
		select {
		case in, open := <-t.incidents:
			if !open {
				return first, packets
			}
			if aboutMirror(in.Incident) && first == patience {
				first = in.at.Sub(begin)
			}
			if countsCopies(in.Incident) {
				packets = in.at.Sub(begin)
			}
		case <-deadline:
			return first, packets
		}
	}
	return first, packets
}

// drain throws away what the tool says for a while: what was there before.
func drain(t *tool, d time.Duration) {
	for after := time.After(d); ; {
		select {
		case _, open := <-t.incidents:
			if !open {
				return // whoever needs it will miss it
			}
		case <-after:
			return
		}
	}
}

// aboutMirror tells whether an incident is about what the benchmark started.
func aboutMirror(in mirror.Incident) bool {
	return in.Kind == mirror.Duplicate || in.Kind == mirror.Early || strings.Contains(in.Cause, "mirred")
}

// enough is how many sampled copies are an alarm by themselves (docs/mirror-judgement.md).
const enough = 3

// countsCopies tells whether an incident is an alarm over enough packets that were seen twice.
func countsCopies(in mirror.Incident) bool {
	return in.Severity == mirror.Alarm && in.Count >= enough && in.Copy == watchtest.R2
}
