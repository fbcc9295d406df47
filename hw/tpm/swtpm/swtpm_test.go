package swtpm_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"waxseal/hw/tpm/swtpm"
)

func start(t *testing.T) (*swtpm.Process, string) {
	t.Helper()
	if err := swtpm.Check(); err != nil {
		t.Skip(swtpm.ErrMissing)
	}
	state := filepath.Join(t.TempDir(), "state")
	if err := swtpm.Manufacture(t.Context(), swtpm.Making{State: state}); err != nil {
		t.Fatal(err)
	}
	p, err := swtpm.Start(t.Context(), state)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Stop() }) // the tests stop it and look at the error
	return p, state
}

func TestStopLeavesNoProcessAndNoSocket(t *testing.T) {
	for name, before := range map[string]syscall.Signal{"running": 0, "stopped": syscall.SIGSTOP, "killed": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			p, state := start(t)
			if err := syscall.Kill(p.PID(), before); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := p.Stop(); err != nil {
					t.Error(err)
				}
			}
			if err := syscall.Kill(p.PID(), 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("process %d is still there: %v", p.PID(), err)
			}
			if _, err := os.Stat(filepath.Dir(p.Socket())); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("socket directory is still there: %v", err)
			}
			if !swtpm.Made(state) {
				t.Error("the state is gone")
			}
		})
	}
}

func TestLongSocketPathIsNamedInTheError(t *testing.T) {
	if err := swtpm.Check(); err != nil {
		t.Skip(swtpm.ErrMissing)
	}
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 100))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", long)
	if _, err := swtpm.Start(t.Context(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "TMPDIR") {
		t.Errorf("got %v", err)
	}
}

func TestStartOverNothingIsAnError(t *testing.T) {
	if err := swtpm.Check(); err != nil {
		t.Skip(swtpm.ErrMissing)
	}
	if p, err := swtpm.Start(t.Context(), filepath.Join(t.TempDir(), "none")); err == nil {
		t.Errorf("a TPM runs over nothing: %v", p.Stop())
	}
}

func TestCertificateNeedsAName(t *testing.T) {
	if err := swtpm.Check(); err != nil {
		t.Skip(swtpm.ErrMissing)
	}
	err := swtpm.Manufacture(t.Context(), swtpm.Making{State: t.TempDir(), CA: t.TempDir()})
	if err == nil {
		t.Error("an EK certificate without a name is made")
	}
}
