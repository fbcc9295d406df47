package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"waxseal/boot"
	"waxseal/hw/tpm"
	"waxseal/measure/wire"
)

func TestCommandLineIsOneKnownWord(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"waxseald", "version"}, 0, version},
		{[]string{"waxseald"}, 2, "usage"},
		{[]string{"waxseald", "nothing"}, 2, "usage"},
		{[]string{"waxseald", "version", "more"}, 2, "usage"},
	} {
		var out bytes.Buffer
		if code := run(c.args, 4711, slog.New(slog.DiscardHandler), &out); code != c.code || !strings.Contains(out.String(), c.says) {
			t.Errorf("%q: exit code %d and %q, want %d and %q", c.args, code, &out, c.code, c.says)
		}
	}
}

// What the caps say under the TPM's signature is for the verifier to judge;
// only a boot that left no evidence is explained by the result.
func TestOnlyABootWithoutEvidenceIsUnattested(t *testing.T) {
	for _, err := range []error{boot.ErrPolicy, boot.ErrIncomplete} {
		if got := reason(fmt.Errorf("measure: %w", err)); got != "" {
			t.Errorf("%v: unattested because %q, want attested", err, got)
		}
	}
	if got := reason(fmt.Errorf("open: %w", tpm.ErrNoTPM)); got != "no TPM" {
		t.Errorf("ErrNoTPM: %q, want no TPM", got)
	}
	for _, err := range []error{boot.ErrHangs, fmt.Errorf("%w: %w", errUnexplained, boot.ErrIncomplete)} {
		if reason(err) == "" {
			t.Errorf("%v: the log has no caps, yet the device counts as attested", err)
		}
	}
}

func TestCardIsFullAlsoWithoutABoard(t *testing.T) {
	for _, r := range []result{{}, {Board: "qemu-amd64", Serial: "WX-0001"}} {
		if err := card(r).Check(); err != nil {
			t.Errorf("card of %+v: %v", r, err)
		}
	}
}

func TestChallengersLearnWhatToDoAboutTheTPM(t *testing.T) {
	for _, c := range []struct{ from, want error }{
		{tpm.ErrBusy, wire.ErrBusy},
		{tpm.ErrNoAnswer, wire.ErrRetry},
	} {
		if got := onWire(fmt.Errorf("quote: %w", c.from)); !errors.Is(got, c.want) || !errors.Is(got, c.from) {
			t.Errorf("%v becomes %v, want %v", c.from, got, c.want)
		}
	}
	if onWire(nil) != nil {
		t.Error("no error becomes one")
	}
}
