package vm

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"waxseal/images"
)

func TestRouterIsAlwaysEmulated(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, images.CmdlineFile), []byte("quiet"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []Config{{Dir: dir, Direct: true}, {Dir: dir, Direct: true, NoTPM: true}} {
		argv, err := c.withDefaults().argv("/run/socket")
		if err != nil {
			t.Fatal(err)
		}
		if i := slices.Index(argv, "-accel"); i < 0 || argv[i+1] != "tcg" {
			t.Errorf("%q does not ask for tcg", argv)
		}
		if has := slices.Contains(argv, "tpm-tis,tpmdev=tpm0"); has == c.NoTPM {
			t.Errorf("NoTPM %v: TPM on the command line: %v", c.NoTPM, has)
		}
	}
}

func TestPortsOfTheRouterAreForwarded(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, images.CmdlineFile), []byte("quiet"), 0o644); err != nil {
		t.Fatal(err)
	}
	for c, want := range map[*Config]string{
		{Forward: 1234}:                 "user,id=n0,hostfwd=tcp:127.0.0.1:1234-:9339",
		{Forward: 1234, RESTCONF: 4321}: "user,id=n0,hostfwd=tcp:127.0.0.1:1234-:9339,hostfwd=tcp:127.0.0.1:4321-:8443",
	} {
		c.Dir, c.Direct = dir, true
		argv, err := c.withDefaults().argv("/run/socket")
		if err != nil || !slices.Contains(argv, want) {
			t.Errorf("%q, %v: want %s", argv, err, want)
		}
	}
}

func TestUnitWithoutTPMStateIsNamed(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, images.CmdlineFile), []byte("quiet"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), Config{Dir: dir, Direct: true, State: filepath.Join(dir, "nothing")})
	if err == nil || !strings.Contains(err.Error(), "TPM state") {
		t.Errorf("Start without a TPM state: %v, want an error that names it", err)
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "waxseal-vm-*")); len(left) > 0 && err == nil {
		t.Errorf("sockets were left behind: %q", left)
	}
}

// A router whose disk is missing ends by itself, and says why.
func TestRouterThatCannotStartEnds(t *testing.T) {
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("needs qemu-system-x86_64: run scripts/setup")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, images.CmdlineFile), []byte("quiet"), 0o644); err != nil {
		t.Fatal(err)
	}
	v, err := Start(t.Context(), Config{Dir: dir, Direct: true, NoTPM: true})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = v.WaitFor(ctx, "never shown")
	if err == nil || !strings.Contains(err.Error(), images.DiskFile) {
		t.Errorf("WaitFor on a router without a disk: %v, want QEMU's word about %s", err, images.DiskFile)
	}
}

func TestConsoleKeepsABoundedPart(t *testing.T) {
	c := &console{}
	for range 40 {
		c.Write(make([]byte, 100<<10))
	}
	if n := len(c.String()); n != maxConsole {
		t.Errorf("console keeps %d bytes, want %d", n, maxConsole)
	}
}
