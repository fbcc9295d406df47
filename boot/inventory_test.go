package boot_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"waxseal/boot"
	"waxseal/measure"
)

const inventoryPolicy = `{"format":"waxseal-policy-1","profile":"waxseal-1","budget":"2s","stop":"5s","handoff":"switch_root",
 "items":[{"kind":"modules"},{"kind":"programs"}]}`

// A program that is loaded, one that is not, and a kernel that does not tell
// must give three different records.
func TestKernelThatDoesNotTellIsNotAnEmptyKernel(t *testing.T) {
	seen := map[string]bool{}
	for what, list := range map[string]func() ([]string, error){
		"none":    func() ([]string, error) { return nil, nil },
		"one":     func() ([]string, error) { return []string{"SchedCLS implant 0011223344556677"}, nil },
		"refused": func() ([]string, error) { return nil, errors.New("bpf: operation not permitted") },
	} {
		src := router(nil)
		src.BPFPrograms = list
		got := &tape{}
		if err := boot.Measure(context.Background(), []byte(inventoryPolicy), src, got); err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(got.records, func(r measure.Record) bool { return r.Class() == "bpf" })
		if i < 0 || got.records[i].PCR != 13 {
			t.Fatalf("%s: no record of class bpf in PCR 13 among %s", what, got.text())
		}
		seen[got.records[i].Name+string(got.records[i].Content[:])] = true
	}
	if len(seen) != 3 {
		t.Errorf("%d different records for three different kernels", len(seen))
	}
}
