package tpm_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"waxseal/hw/tpm"
	"waxseal/hw/tpm/tpmtest"
	"waxseal/measure"
)

func TestOpenWithoutTPMIsErrNoTPM(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	dir := t.TempDir()
	_, err := tpm.Open(ctx, filepath.Join(dir, "tpmrm0"), filepath.Join(dir, "tpm0"))
	if !errors.Is(err, tpm.ErrNoTPM) {
		t.Errorf("got %v", err)
	}
}

func TestOpenOfAFileIsNotErrNoTPM(t *testing.T) {
	_, err := tpm.Open(t.Context(), "/proc/version")
	if err == nil || errors.Is(err, tpm.ErrNoTPM) {
		t.Errorf("got %v", err)
	}
}

// always answers every command of one code with one response code.
func always(code tpm2.TPMCC, rc tpm2.TPMRC) *script {
	return &script{answer: func(c tpm2.TPMCC, _ []byte) ([]byte, error) {
		if c != code {
			return nil, nil
		}
		return respond(0x8001, rc), nil
	}}
}

func TestTPMThatCannotServeIsRefusedAtOpen(t *testing.T) {
	capability := func(rsp []byte) *script {
		return &script{answer: func(tpm2.TPMCC, []byte) ([]byte, error) { return rsp, nil }}
	}
	partial := banks(measure.SHA256)
	partial[len(partial)-1] = 0x7f
	for name, c := range map[string]struct {
		script *script
		want   error
	}{
		"version 1.2":           {capability(respond(0x00c4, 0x1e)), tpm.ErrTPM12},
		"only SHA-1":            {capability(banks(measure.SHA1)), tpm.ErrBanks},
		"no bank":               {capability(banks()), tpm.ErrBanks},
		"unknown bank":          {capability(banks(measure.SHA256, 0x0027)), tpm.ErrBanks},
		"a bank without PCR 23": {capability(partial), tpm.ErrBanks},
		"a bank twice":          {capability(banks(measure.SHA256, measure.SHA256)), tpm.ErrBanks},
		"failure mode":          {always(tpm2.TPMCCGetCapability, tpm2.TPMRCFailure), tpm.ErrFailed},
		"nine bytes":            {capability(make([]byte, 9)), tpm.ErrMalformed},
		"unknown tag":           {capability(respond(0x8003, 0)), tpm.ErrMalformed},
		"size that lies":        {capability(append(banks(measure.SHA256), 0)), tpm.ErrMalformed},
		"cut short":             {capability(respond(0x8001, 0, 0, 0, 0)), tpm.ErrMalformed},
		"lying count":           {capability(respond(0x8001, 0, 0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff)), tpm.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := tpm.New(t.Context(), c.script); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestTPMThatWasNeverStartedIsStarted(t *testing.T) {
	s := &script{}
	s.answer = func(code tpm2.TPMCC, _ []byte) ([]byte, error) {
		if code == tpm2.TPMCCGetCapability && s.count(tpm2.TPMCCStartup) == 0 {
			return respond(0x8001, tpm2.TPMRCInitialize), nil
		}
		return nil, nil
	}
	if err := extend(t.Context(), open(t, s)); err != nil {
		t.Error(err)
	}
}

func TestCommandIsRepeatedWhileTheTPMAsksForIt(t *testing.T) {
	for name, rc := range map[string]tpm2.TPMRC{
		"RETRY": tpm2.TPMRCRetry, "YIELDED": tpm2.TPMRCYielded, "TESTING": tpm2.TPMRCTesting,
		"NV_RATE": tpm2.TPMRCNVRate, "NV_UNAVAILABLE": tpm2.TPMRCNVUnavailable,
	} {
		t.Run(name, func(t *testing.T) {
			s := &script{}
			s.answer = func(code tpm2.TPMCC, _ []byte) ([]byte, error) {
				if code == tpm2.TPMCCPCRExtend && s.count(code) <= 4 {
					return respond(0x8001, rc), nil
				}
				return nil, nil
			}
			if err := extend(t.Context(), open(t, s)); err != nil {
				t.Error(err)
			}
			if n := s.count(tpm2.TPMCCPCRExtend); n != 5 {
				t.Errorf("sent %d times, want 5", n)
			}
		})
		t.Run(name+" for ever", func(t *testing.T) {
			d := open(t, always(tpm2.TPMCCPCRExtend, rc))
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
			defer cancel()
			if err := extend(ctx, d); !errors.Is(err, tpm.ErrNoAnswer) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestResponseCodesHaveNames(t *testing.T) {
	for rc, want := range map[tpm2.TPMRC]error{
		tpm2.TPMRCLockout:       tpm.ErrLockout,
		tpm2.TPMRCFailure:       tpm.ErrFailed,
		tpm2.TPMRCObjectMemory:  tpm.ErrFull,
		tpm2.TPMRCSessionMemory: tpm.ErrFull,
		tpm2.TPMRCMemory:        tpm.ErrFull,
		tpm2.TPMRCNVSpace:       tpm.ErrFull,
	} {
		s := always(tpm2.TPMCCPCRExtend, rc)
		err := extend(t.Context(), open(t, s))
		if !errors.Is(err, want) || !errors.Is(err, rc) || !strings.Contains(err.Error(), "TPM2_PCR_Extend") {
			t.Errorf("code 0x%x: got %v, want %v", uint32(rc), err, want)
		}
		if n := s.count(tpm2.TPMCCPCRExtend); n != 1 {
			t.Errorf("code 0x%x: sent %d times: such an extend must not be repeated", uint32(rc), n)
		}
	}
}

func TestTPMThatVanishesIsErrGone(t *testing.T) {
	gone := false
	d := open(t, &script{answer: func(tpm2.TPMCC, []byte) ([]byte, error) {
		if gone {
			return nil, syscall.ENODEV
		}
		return nil, nil
	}})
	gone = true
	for range 3 {
		if err := extend(t.Context(), d); !errors.Is(err, tpm.ErrGone) || !errors.Is(err, syscall.ENODEV) {
			t.Errorf("got %v", err)
		}
	}
}

// hang is a script whose extends hang until release is called.
func hang(t *testing.T) (s *script, release func()) {
	gate := make(chan struct{})
	release = func() { close(gate) }
	s = &script{answer: func(code tpm2.TPMCC, _ []byte) ([]byte, error) {
		if code == tpm2.TPMCCPCRExtend {
			<-gate
		}
		return nil, nil
	}}
	return s, release
}

func TestTPMThatHangsForEverHoldsNobodyUp(t *testing.T) {
	s, release := hang(t)
	d := open(t, s)
	defer release()
	for i := range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		err := extend(ctx, d)
		cancel()
		if !errors.Is(err, tpm.ErrNoAnswer) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("call %d: %v", i, err)
		}
		if !strings.Contains(err.Error(), "TPM2_PCR_Extend") || !strings.Contains(err.Error(), "ms") {
			t.Errorf("call %d: the error does not name the command and the time: %v", i, err)
		}
	}
	if _, err := d.Counters(expired(t)); err == nil {
		t.Error("another command gets through")
	}
	if err := d.Close(); !errors.Is(err, tpm.ErrNoAnswer) {
		t.Errorf("close: %v", err)
	}
	if err := extend(t.Context(), d); !errors.Is(err, tpm.ErrClosed) {
		t.Errorf("after close: %v", err)
	}
	if n := s.count(tpm2.TPMCCPCRExtend); n != 1 {
		t.Errorf("%d extends were sent: the ones whose callers left must not be", n)
	}
}

func expired(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func TestTPMThatHangsForAWhileRecovers(t *testing.T) {
	s, release := hang(t)
	d := open(t, s)
	if err := extend(expired(t), d); !errors.Is(err, tpm.ErrNoAnswer) {
		t.Fatalf("got %v", err)
	}
	release()
	if err := extend(t.Context(), d); err != nil {
		t.Errorf("after it recovered: %v", err)
	}
}

// A call's own deadline is called off when it has its result; the two were
// once seen in the wrong order.
func TestAnsweredCallIsNeverCalledOff(t *testing.T) {
	d := open(t, &script{})
	for range 3000 {
		if err := extend(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBootExtendsGoBeforeQuotesBeforeSignatures(t *testing.T) {
	s, release := hang(t)
	d := open(t, s)
	results := make(chan error, 4)
	go func() { results <- extend(t.Context(), d) }()
	waitFor(t, func() bool { return s.count(tpm2.TPMCCPCRExtend) == 1 })
	// Asked in the wrong order, all while the TPM is busy.
	for i, call := range []func() error{
		func() error { return tpm.SignForTest(t.Context(), d) },
		func() error { _, err := d.Counters(t.Context()); return err },
		func() error { return extend(t.Context(), d) },
	} {
		go func() { results <- call() }()
		waitFor(t, func() bool { return tpm.WaitingForTest(d) == i+1 })
	}
	release()
	for range 4 {
		<-results
	}
	sent := s.commands()
	want := []tpm2.TPMCC{tpm2.TPMCCPCRExtend, tpm2.TPMCCPCRExtend, tpm2.TPMCCReadClock, tpm2.TPMCCReadPublic}
	if got := sent[len(sent)-4:]; !slices.Equal(got, want) {
		t.Errorf("order is %v, want %v", got, want)
	}
}

func TestFloodOfHandshakesKeepsNoExtendOut(t *testing.T) {
	s, release := hang(t)
	d := open(t, s)
	results := make(chan error, 64)
	go func() { results <- extend(t.Context(), d) }()
	waitFor(t, func() bool { return s.count(tpm2.TPMCCPCRExtend) == 1 })
	for range 40 {
		go func() { results <- tpm.SignForTest(t.Context(), d) }()
	}
	for range 40 - 16 { // sixteen wait, the others are turned away at once
		if err := <-results; !errors.Is(err, tpm.ErrBusy) {
			t.Errorf("got %v", err)
		}
	}
	go func() { results <- extend(t.Context(), d) }()
	waitFor(t, func() bool { return tpm.WaitingForTest(d) == 17 })
	release()
	for range 18 {
		<-results
	}
	if n := s.count(tpm2.TPMCCPCRExtend); n != 2 {
		t.Errorf("%d extends, want 2", n)
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for !ok() {
		if t.Context().Err() != nil {
			t.Fatal("never happened")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestStoppedSwtpmGivesANamedError(t *testing.T) {
	p := tpmtest.Run(t, t.TempDir())
	d := tpmtest.Open(t, p)
	if err := syscall.Kill(p.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := extend(ctx, d); !errors.Is(err, tpm.ErrNoAnswer) || !strings.Contains(err.Error(), "TPM2_PCR_Extend") {
		t.Errorf("stopped: %v", err)
	}
	if err := syscall.Kill(p.PID(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := extend(t.Context(), d); err != nil {
		t.Errorf("continued: %v", err)
	}
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := extend(t.Context(), d); !errors.Is(err, tpm.ErrGone) {
		t.Errorf("ended: %v", err)
	}
}

func TestTPMClearedAtRunTimeHasNoKey(t *testing.T) {
	p := tpmtest.Run(t, t.TempDir())
	d := tpmtest.Open(t, p)
	if err := d.CreateKey(t.Context(), tpm.IAK); err != nil {
		t.Fatal(err)
	}
	before := publicArea(t, d, tpm.IAK)
	quote := func() error {
		_, _, err := d.Quote(t.Context(), tpm.IAK, make([]byte, 32), measure.SHA384, []measure.PCR{12})
		return err
	}
	if err := quote(); err != nil {
		t.Fatal(err)
	}
	clearTPM(t, p.Socket())
	for range 2 {
		if err := quote(); !errors.Is(err, tpm.ErrNoKey) {
			t.Errorf("cleared: %v", err)
		}
	}
	if err := d.CreateKey(t.Context(), tpm.IAK); err != nil {
		t.Fatal(err)
	}
	if err := quote(); err != nil {
		t.Errorf("made anew: %v", err)
	}
	if !slices.Equal(before, publicArea(t, d, tpm.IAK)) {
		t.Error("the endorsement seed survives a clear, yet the key is another one")
	}
}

func clearTPM(t *testing.T, socket string) {
	t.Helper()
	raw, err := linuxudstpm.Open(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_, err = tpm2.Clear{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHPlatform, Auth: tpm2.PasswordAuth(nil)}}.Execute(raw)
	if err != nil {
		t.Fatal(err)
	}
}
