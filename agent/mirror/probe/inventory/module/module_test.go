package module

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// tree makes folders in the form of /proc and /sys.
func tree(t *testing.T, list string, shown map[string]string) (proc, sys string) {
	t.Helper()
	proc, sys = t.TempDir(), t.TempDir()
	write(t, filepath.Join(proc, "modules"), list)
	for name, state := range shown {
		if state == "" {
			if err := os.MkdirAll(filepath.Join(sys, "module", name), 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		write(t, filepath.Join(sys, "module", name, "initstate"), state+"\n")
	}
	return proc, sys
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

const list = "ip_gre 28672 0 - Live 0x0000000000000000\nifb 16384 1 act_mirred, Loading 0x0\nrootkit 4096 0 - Live 0x0 (OE)\n"

func TestAModuleMissingInOneViewIsHidden(t *testing.T) {
	proc, sys := tree(t, list, map[string]string{"ip_gre": "live", "quiet": "live", "coming": "coming", "built_in": ""})
	found, err := Modules(proc, sys)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"ip_gre": "", "ifb": "", "rootkit": "/sys/module", "quiet": "/proc/modules"}
	for _, m := range found {
		if hidden, known := want[m.Name]; !known || hidden != m.Hidden() {
			t.Errorf("%+v is hidden from %q, want %q", m, m.Hidden(), hidden)
		}
	}
	if len(found) != len(want) {
		t.Errorf("found %+v", found)
	}
	i := slices.IndexFunc(found, func(m Module) bool { return m.Name == "rootkit" })
	if found[i].Taints != "OE" {
		t.Errorf("taints %q", found[i].Taints)
	}
}

func TestAKernelWithoutModulesHasNone(t *testing.T) {
	found, err := Modules(t.TempDir(), t.TempDir())
	if err != nil || len(found) > 0 {
		t.Errorf("found %v, %v", found, err)
	}
}

func TestTaintIsSpelledOut(t *testing.T) {
	proc := t.TempDir()
	write(t, filepath.Join(proc, "sys/kernel/tainted"), "12288\n")
	mask, words, err := Taint(proc)
	if err != nil || mask != 12288 || !slices.Equal(words, []string{"out-of-tree module", "unsigned module"}) {
		t.Errorf("taint %d %v %v", mask, words, err)
	}
	write(t, filepath.Join(proc, "sys/kernel/tainted"), "-1\n")
	if _, _, err := Taint(proc); err == nil {
		t.Error("a negative taint is read")
	}
}

func TestEventsOfOthersAreNotHeard(t *testing.T) {
	for text, want := range map[string]bool{
		"add@/module/ip_gre\x00ACTION=add": true, "remove@/module/x\x00": true, "add@/devices/virtual/net/r0\x00": false,
		"change@/module/x\x00": false, "libudev\x00add@/module/x": false, "": false,
	} {
		if got := aboutModule([]byte(text)); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func TestCloseEndsTheWait(t *testing.T) {
	e, err := Listen()
	if err != nil {
		t.Skipf("needs kernel events: %v", err)
	}
	done := make(chan error)
	go func() { done <- e.Next() }()
	e.Close()
	if err := <-done; err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

func FuzzModules(f *testing.F) {
	f.Add(list)
	f.Add("x\n")
	f.Add("a b c d e f ((((\n\x00 1 2 3 4 5")
	f.Fuzz(func(t *testing.T, text string) {
		found, err := parse(text)
		if err == nil && len(text) > 0 && len(found) == 0 {
			t.Errorf("%q has no modules", text)
		}
		for _, m := range found {
			if m.Name == "" || !m.Listed {
				t.Errorf("%q has module %+v", text, m)
			}
		}
	})
}
