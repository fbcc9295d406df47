package watchtest

import (
	"os"
	"testing"
	"time"
)

func TestEveryShapeOfTheLabCarriesTraffic(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	for _, shape := range []Shape{Routed, Bridged, Hubbed} {
		t.Run("shape "+string(shape), func(t *testing.T) {
			lab, err := Open(shape)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := lab.Close(); err != nil {
					t.Error(err)
				}
			})
			traffic, err := lab.Traffic(Everyday)
			if err != nil {
				t.Fatal(err)
			}
			defer traffic.Stop()
			for deadline := time.Now().Add(20 * time.Second); traffic.Answered.Load() < 500; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("sent %d, answered %d", traffic.Sent.Load(), traffic.Answered.Load())
				}
			}
			t.Logf("sent %d, answered %d", traffic.Sent.Load(), traffic.Answered.Load())
		})
	}
}
