package boot_test

import (
	"context"
	"errors"
	"testing"

	"waxseal/boot"
)

// Bytes that nobody foresaw must not take process 1 with them.
func TestPanicWhileMeasuringCapsThePCRs(t *testing.T) {
	src := router(nil)
	src.ModuleNames = func() ([]string, error) { panic("index out of range") }
	got := &tape{}
	err := boot.Measure(context.Background(), []byte(inventoryPolicy), src, got)
	if !errors.Is(err, boot.ErrPanic) || !errors.Is(err, boot.ErrIncomplete) {
		t.Errorf("Measure: %v, want ErrPanic and ErrIncomplete", err)
	}
	got.wantCaps(t, "phase/abort/incomplete")
}

func TestTextItemsHaveASmallBound(t *testing.T) {
	for kind, rest := range map[string]string{
		"config":  `"volume":"conf","path":"a","canon":"text1"`,
		"startup": `"volume":"conf","paths":["a"]`,
		"owner":   `"volume":"conf","path":"a"`,
	} {
		raw := `{"format":"waxseal-policy-1","profile":"waxseal-1","budget":"2s","stop":"5s","handoff":"switch_root","items":[{"kind":"` + kind + `",` + rest + `,"max_size":1073741824}]}`
		if _, err := boot.ParsePolicy([]byte(raw)); !errors.Is(err, boot.ErrPolicy) {
			t.Errorf("%s with max_size of 1 GiB: %v, want ErrPolicy", kind, err)
		}
	}
}
