package factory_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"waxseal/hw/tpm/tpmtest"
	"waxseal/images/factory"
)

func TestOneTPMHasOneSerialNumber(t *testing.T) {
	ca, first, second := newCA(t), tpmtest.Swtpm(t), tpmtest.Swtpm(t)
	for _, c := range []struct {
		name    string
		second  bool
		serial  string
		replace bool
		want    error
	}{
		{"the first router", false, "WX-0001", false, nil},
		{"the same again", false, "WX-0001", false, nil},
		{"its TPM under another serial number", false, "WX-0002", false, factory.ErrOtherRouter},
		{"the same, with a board replaced", false, "WX-0002", true, factory.ErrOtherRouter},
		{"another TPM under its serial number", true, "WX-0001", false, factory.ErrOtherRouter},
		{"that TPM is free still", true, "WX-0003", false, nil},
		{"and never moves", true, "WX-0001", true, factory.ErrOtherRouter},
	} {
		d := first
		if c.second {
			d = second
		}
		if err := ca.Claim(t.Context(), d, c.serial, c.replace); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want: %v", c.name, err, c.want)
		}
	}
	third := tpmtest.Swtpm(t)
	if err := ca.Claim(t.Context(), third, "WX-0001", true); err != nil {
		t.Errorf("a new board: %v", err)
	}
	if err := ca.Claim(t.Context(), first, "WX-0001", false); !errors.Is(err, factory.ErrOtherRouter) {
		t.Errorf("the old board, under its serial number: %v", err)
	}
	if err := ca.Claim(t.Context(), third, "None", false); err == nil {
		t.Error("a placeholder is taken for a serial number")
	}
	files, err := os.ReadDir(filepath.Join(ca.Dir(), factory.IssuedDir))
	if err != nil || len(files) != 5 { // three EKs, two serial numbers
		t.Errorf("%v, %v", files, err)
	}
}
