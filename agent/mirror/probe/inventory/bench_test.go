package inventory

import (
	"context"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// used is the processor time of this process.
func used() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRound is one look at everything that takes copies, and one at
// everything. The metric spaces is how many network namespaces there were.
func BenchmarkRound(b *testing.B) {
	if os.Getuid() != 0 {
		b.Skip("needs root for sockets of other processes")
	}
	inv, err := Open(Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer inv.Close()
	for name, what := range map[string]due{"quick": {}, "slow": {slow: true}, "everything": {slow: true, spaces: true, ports: true}} {
		b.Run(name, func(b *testing.B) {
			before := used()
			for b.Loop() {
				if _, err := inv.round(context.Background(), time.Now(), what); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((used()-before).Microseconds())/1000/float64(b.N), "cpu-ms/op")
			b.ReportMetric(float64(len(inv.spaces.known)), "spaces")
		})
	}
}
