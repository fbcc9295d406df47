package images

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"waxseal/boot/uki"
	"waxseal/hw/board"
	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/reference"
)

// smallSpec returns a spec with the real kernel and bootloader, and programs
// that nobody runs.
func smallSpec(t *testing.T) Spec {
	t.Helper()
	for _, tool := range []string{"mcopy", "sgdisk", "mksquashfs", "objcopy", "debugfs", "xz", "depmod"} {
		if _, err := exec.LookPath(tool); err != nil {
			if _, err := os.Stat("/usr/sbin/" + tool); err != nil {
				t.Skipf("needs %s: run scripts/setup", tool)
			}
		}
	}
	kernel, err := KernelDir()
	if err != nil {
		t.Skip(err)
	}
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("#!/bin/false\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return Spec{Board: "qemu-amd64", Kernel: kernel, Agent: program,
		Userland: map[string]string{"init": program, "gosh": program}, OwnerCA: program}
}

func buildSmall(t *testing.T, spec Spec) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "image")
	if err := Build(t.Context(), spec, out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTwoBuildsAreIdentical(t *testing.T) {
	spec := smallSpec(t)
	a := buildSmall(t, spec)
	t.Setenv("TZ", "Asia/Tokyo")
	t.Setenv("LC_ALL", "C.UTF-8")
	umask := syscall.Umask(0o077)
	b := buildSmall(t, spec)
	syscall.Umask(umask)
	for _, name := range []string{DiskFile, KernelFile, InitramfsFile, CmdlineFile} {
		x, err := os.ReadFile(filepath.Join(a, name))
		if err != nil {
			t.Fatal(err)
		}
		y, err := os.ReadFile(filepath.Join(b, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(x, y) {
			t.Errorf("%s differs between two builds", name)
		}
	}
}

// Every tampering changes its culprit in the prediction, and beside it only
// what contains the culprit.
func TestTamperingChangesItsCulpritAlone(t *testing.T) {
	dir := buildSmall(t, smallSpec(t))
	clean := predicted(t, dir)
	for _, c := range Tamperings {
		t.Run(c.Name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "changed")
			if _, err := Tamper(t.Context(), dir, c.Name, out); err != nil {
				t.Fatal(err)
			}
			changed := predicted(t, out)
			if clean[c.Culprit] == "" || changed[c.Culprit] == clean[c.Culprit] {
				t.Errorf("culprit %s is the same in both images, or in neither", c.Culprit)
			}
			for name, digest := range clean {
				if changed[name] != digest && name != c.Culprit && !mayFollow(name, c.Culprit) {
					t.Errorf("%s changed too", name)
				}
			}
		})
	}
}

// mayFollow tells whether name changes because culprit did.
func mayFollow(name, culprit string) bool {
	for _, part := range contains(name) {
		if part == culprit || mayFollow(part, culprit) {
			return true
		}
	}
	return culprit == "policy/measure" && strings.HasPrefix(name, "startup/")
}

func predicted(t *testing.T, dir string) map[string]string {
	t.Helper()
	v, err := Predict(t.Context(), dir, PredictOptions{Direct: true})
	if err != nil {
		t.Fatal(err)
	}
	items := map[string]string{}
	for _, it := range v.Items {
		items[it.Name] = string(it.SHA256[0])
	}
	return items
}

func TestEditChangesOneFile(t *testing.T) {
	dir := buildSmall(t, smallSpec(t))
	out := filepath.Join(t.TempDir(), "edited")
	err := Edit(t.Context(), dir, out, board.Conf, "etc/rc.local", func(b []byte) ([]byte, error) { return append(b, "echo more\n"...), nil })
	if err != nil {
		t.Fatal(err)
	}
	before, after := predicted(t, dir), predicted(t, out)
	for name := range before {
		if differs := before[name] != after[name]; differs != strings.Contains(name, "rc.local") {
			t.Errorf("%s: changed %v", name, differs)
		}
	}
	if err := Edit(t.Context(), dir, out+"2", board.Root, "bin/init", nil); err == nil {
		t.Error("a file of the squashfs was edited in place")
	}
}

// A secret of the configuration must not stand in reference values.
func TestPredictionHoldsNoSecret(t *testing.T) {
	v, err := Predict(t.Context(), buildSmall(t, smallSpec(t)), PredictOptions{Direct: true})
	if err != nil {
		t.Fatal(err)
	}
	b, err := v.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte("not-for-the-log")) {
		t.Error("reference values hold a password of the configuration")
	}
	if !bytes.Contains(b, []byte("remote-as 65002")) {
		t.Error("reference values lack the text of the configuration")
	}
}

func TestPredictionOfFirmwareNeedsAGoldenBoot(t *testing.T) {
	dir := buildSmall(t, smallSpec(t))
	if _, err := Predict(t.Context(), dir, PredictOptions{}); !errors.Is(err, ErrNotLearned) {
		t.Fatalf("Predict without a golden boot: %v, want ErrNotLearned", err)
	}
	if err := Learn(dir, fixture(t).Firmware()); err != nil {
		t.Fatal(err)
	}
	v, err := Predict(t.Context(), dir, PredictOptions{Version: "1"})
	if err != nil {
		t.Fatal(err)
	}
	count := map[measure.PCR]int{}
	for _, e := range v.Firmware {
		if want := map[bool]string{true: reference.Predicted, false: reference.Recorded}[e.PCR == 4 || e.PCR > 8]; e.Source != want {
			t.Errorf("PCR %d %s: source %q, want %q", e.PCR, e.Name, e.Source, want)
		}
		count[e.PCR]++
	}
	for pcr, want := range map[measure.PCR]int{4: 5, 9: 2, 11: 8, 12: 2} {
		if count[pcr] != want {
			t.Errorf("PCR %d: %d predicted events, want %d", pcr, count[pcr], want)
		}
	}
}

func TestGoldenBootWithoutFirmwareLogIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, BoardFile), []byte("qemu-amd64\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Learn(dir, nil); err == nil {
		t.Error("Learn took a boot without firmware events")
	}
}

func TestRecordedFirmwareOfAnotherBoardIsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"other board":  `{"format":"waxseal-firmware-1","board":"other","events":[]}`,
		"other format": `{"format":"waxseal-firmware-2","board":"qemu-amd64","events":[]}`,
		"unknown key":  `{"format":"waxseal-firmware-1","board":"qemu-amd64","events":[],"more":1}`,
		"cut":          `{"format":"waxseal-firmware-1"`,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, FirmwareFile), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := readRecorded(dir, "qemu-amd64"); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// fixture is the log of a real boot: OVMF, systemd-boot, a UKI with the
// command line "console=ttyS0 panic=-1 waxseal.lab=1".
func fixture(t *testing.T) eventlog.Log {
	t.Helper()
	b, err := os.ReadFile("../measure/eventlog/testdata/qemu-ovmf-uki.tcg")
	if err != nil {
		t.Fatal(err)
	}
	l, err := eventlog.DecodeTCG(b)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// What we predict from a command line is what real firmware measured of it.
func TestPredictedEventsAreThoseOfARealBoot(t *testing.T) {
	o := &opened{sections: map[string][]byte{
		uki.Cmdline: []byte("console=ttyS0 panic=-1 waxseal.lab=1"), uki.Linux: {}, uki.Initrd: {},
		uki.OSRel: []byte("ID=waxseal\nPRETTY_NAME=\"waxseal\"\nVERSION_ID=1\n"),
	}}
	var predictions []reference.FirmwareEvent
	for _, part := range []func() ([]reference.FirmwareEvent, error){o.pcr9, o.pcr11, o.pcr12} {
		events, err := part()
		if err != nil {
			t.Fatal(err)
		}
		predictions = append(predictions, events...)
	}
	real := map[measure.PCR][]eventlog.Event{}
	for _, e := range fixture(t).Firmware() {
		real[e.PCR] = append(real[e.PCR], e)
	}
	at, compared := map[measure.PCR]int{}, 0
	for _, p := range predictions {
		e := real[p.PCR][at[p.PCR]]
		at[p.PCR]++
		if e.Type != p.Type {
			t.Errorf("PCR %d event %d: type 0x%x, predicted 0x%x", p.PCR, at[p.PCR], e.Type, p.Type)
		}
		if p.Name == kernelName && at[p.PCR]%2 == 0 || p.Name == initramfsName && (p.PCR == 9 || at[p.PCR]%2 == 0) {
			continue // contents that are not in the fixture
		}
		for _, d := range e.Digests {
			if !bytes.Equal(p.Digests[d.Alg.String()], d.Sum) {
				t.Errorf("PCR %d event %d (%s): %s digest differs", p.PCR, at[p.PCR], p.Name, d.Alg)
			}
			compared++
		}
	}
	if compared < 16 {
		t.Errorf("compared %d digests: the fixture has lost its events", compared)
	}
}

func TestBadSpecsAreNamed(t *testing.T) {
	for name, c := range map[string]struct {
		spec Spec
		want string
	}{
		"board with a slash": {Spec{Board: "../boards"}, "not a name"},
		"unknown board":      {Spec{Board: "nothing"}, "no such folder"},
		"no agent":           {Spec{Board: "qemu-amd64", Agent: "/nonexistent"}, "agent"},
	} {
		err := Build(context.Background(), c.spec, filepath.Join(t.TempDir(), "out"))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, c.want)
		}
	}
}

func TestDamagedImageIsAnErrorNotAPrediction(t *testing.T) {
	dir := buildSmall(t, smallSpec(t))
	for name, damage := range map[string]func(f *os.File) error{
		"no partition table": func(f *os.File) error { _, err := f.WriteAt(make([]byte, 64<<10), 0); return err },
		"wiped ESP":          func(f *os.File) error { _, err := f.WriteAt(make([]byte, 1<<20), 1<<20); return err },
		"cut":                func(f *os.File) error { return f.Truncate(8 << 20) },
	} {
		out := filepath.Join(t.TempDir(), "damaged")
		if err := copyImage(dir, out); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(filepath.Join(out, DiskFile), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(damage(f), f.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := Predict(t.Context(), out, PredictOptions{Direct: true}); err == nil {
			t.Errorf("%s: predicted", name)
		}
	}
}
