package cost

import (
	"fmt"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"waxseal/agent/watch/watchtest"
)

// BenchmarkForwarding forwards 64-byte packets at saturation, by turns with
// nothing on the ports, with a program on all hooks that does nothing, and with
// the watch in each of its modes. In "nothing" there is no watch in the third
// turn either: what it shows is what the machine adds by itself. Metrics are nanoseconds a packet and, for
// what is compared, percent more than with nothing ("%-over-none") and points
// more than the empty program ("points").
//
//	go test ./agent/watch/watchtest/cost -run '^$' -bench Forwarding -benchtime 6x -waxseald bin/waxseald
func BenchmarkForwarding(b *testing.B) {
	for _, c := range []struct {
		name string
		args []string
	}{
		{"nothing", nil},
		{"full", []string{"--mode", "full"}},
		{"full-1of1", []string{"--mode", "full", "--sampling", "1/1"}},
		{"full-1of256", []string{"--mode", "full", "--sampling", "1/256"}},
		{"lite", []string{"--mode", "lite"}},
		{"duty", []string{"--mode", "duty"}},
	} {
		b.Run(c.name, func(b *testing.B) {
			lab := newLab(b)
			s := newSender(b, lab)
			s.saturate(b, 200*time.Millisecond) // neighbours and caches are there
			var none, empty, ours, over, points []float64
			for range b.N {
				n := s.saturate(b, 400*time.Millisecond)
				e := withEmpty(b, lab, func() float64 { return s.saturate(b, 400*time.Millisecond) })
				w := withTool(b, lab, c.args, func() float64 {
					s.saturate(b, time.Second) // sampling has found its rate
					return s.saturate(b, 600*time.Millisecond)
				})
				none, empty, ours = append(none, n), append(empty, e), append(ours, w)
				over, points = append(over, 100*(w/n-1)), append(points, 100*(w-e)/n)
			}
			b.ReportMetric(quantile(none, 0.5), "none-ns")
			b.ReportMetric(quantile(empty, 0.5), "empty-ns")
			b.ReportMetric(quantile(ours, 0.5), "watch-ns")
			report(b, over, "%-over-none")
			report(b, points, "points")
		})
	}
}

// report gives the least, the median and the greatest of values.
func report(b *testing.B, values []float64, unit string) {
	b.ReportMetric(quantile(values, 0), "min-"+unit)
	b.ReportMetric(quantile(values, 0.5), unit)
	b.ReportMetric(quantile(values, 1), "max-"+unit)
}

func withTool(b *testing.B, lab *watchtest.Lab, args []string, measure func() float64) float64 {
	b.Helper()
	if args == nil {
		return measure()
	}
	t := start(b, lab, args...)
	defer t.stop(b)
	return measure()
}

// withEmpty measures with a program that does nothing on both hooks of each port.
func withEmpty(b *testing.B, lab *watchtest.Lab, measure func() float64) float64 {
	b.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "wxempty", Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}, // TCX_NEXT
	})
	if err != nil {
		b.Fatal(err)
	}
	defer program.Close()
	for _, port := range []string{watchtest.R0, watchtest.R1, watchtest.R2} {
		index, err := lab.Router.Index(port)
		if err != nil {
			b.Fatal(err)
		}
		for _, side := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			var l link.Link
			err := lab.Router.Do(func() (err error) {
				l, err = link.AttachTCX(link.TCXOptions{Interface: index, Program: program, Attach: side})
				return err
			})
			if err != nil {
				b.Fatal(fmt.Errorf("empty program on %s: %w", port, err))
			}
			defer l.Close()
		}
	}
	return measure()
}
