package boot_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/rogpeppe/go-internal/txtar"

	"waxseal/boot"
	"waxseal/boot/canon"
	"waxseal/hw/flash"
	"waxseal/measure"
)

var update = flag.Bool("update", false, "write the wanted records of testdata/measure anew")

// tape is a Sink that remembers.
type tape struct {
	mu      sync.Mutex
	records []measure.Record
	kept    map[[sha256.Size]byte][]byte
	notes   map[string]error
	refuse  func(measure.Record) error // or nil
}

func (p *tape) Record(_ context.Context, r measure.Record) (measure.Event, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := r.Check(); err != nil {
		return measure.Event{}, err
	}
	if p.refuse != nil {
		if err := p.refuse(r); err != nil {
			return measure.Event{}, err
		}
	}
	p.records = append(p.records, r)
	return measure.Event{Record: r}, nil
}

func (p *tape) Keep(content []byte) {
	if p.kept == nil {
		p.kept = map[[sha256.Size]byte][]byte{}
	}
	p.kept[sha256.Sum256(content)] = bytes.Clone(content)
}

func (p *tape) Note(name string, err error) {
	if p.notes == nil {
		p.notes = map[string]error{}
	}
	p.notes[name] = err
}

// names returns the record names but for the caps.
func (p *tape) names() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var ns []string
	for _, r := range p.records {
		if !r.IsCap() {
			ns = append(ns, r.Name)
		}
	}
	return ns
}

func (p *tape) content(name string) ([sha256.Size]byte, bool) {
	for _, r := range p.records {
		if r.Name == name {
			return r.Content, true
		}
	}
	return [sha256.Size]byte{}, false
}

// wantCaps fails unless the records end with the cap name in PCR 12, 13, 14, and have no other.
func (p *tape) wantCaps(t *testing.T, name string) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	var caps []string
	for i, r := range p.records {
		if r.IsCap() {
			caps = append(caps, fmt.Sprintf("%d %s", r.PCR, r.Name))
		} else if len(caps) > 0 {
			t.Errorf("record %d, %s, follows a cap", i, r.Name)
		}
	}
	want := []string{"12 " + name, "13 " + name, "14 " + name}
	if !slices.Equal(caps, want) {
		t.Errorf("caps %v: want %v", caps, want)
	}
}

// text writes the records as in the wanted part of a case.
func (p *tape) text() string {
	var b strings.Builder
	for _, r := range p.records {
		shown := ""
		if _, ok := p.kept[r.Content]; ok {
			shown = " shown"
		}
		fmt.Fprintf(&b, "%d %s %s%s\n", r.PCR, r.Name, hex.EncodeToString(r.Content[:6]), shown)
	}
	return b.String()
}

// values is a TPM whose PCRs hold their own number.
type values struct{}

func (values) Banks() []measure.Alg {
	return []measure.Alg{measure.SHA1, measure.SHA256, measure.SHA384}
}
func (values) ReadPCR(_ context.Context, pcr measure.PCR) ([]measure.Digest, error) {
	var ds []measure.Digest
	for _, alg := range (values{}).Banks() {
		ds = append(ds, measure.Digest{Alg: alg, Sum: bytes.Repeat([]byte{byte(pcr)}, alg.Size())})
	}
	return ds, nil
}

// router returns a source over trees, with all else in place.
func router(trees map[string]fs.FS) boot.Live {
	return boot.Live{
		CommandLine: func() ([]byte, error) { return []byte("console=ttyS0 quiet\n"), nil },
		Executable:  func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("agent")), nil },
		SerialText:  func() (string, error) { return "WX-0001", nil },
		ModuleNames: func() ([]string, error) { return []string{"squashfs", "vfat"}, nil },
		BPFPrograms: func() ([]string, error) { return nil, nil },
		TPM:         values{},
		Trees:       trees,
	}
}

// Each file of testdata/measure has a policy, files of volumes and the records
// that are wanted: PCR, name, head of the content digest, "shown" if the
// content may be shown.
func TestMeasuredIsWhatThePolicySays(t *testing.T) {
	cases, err := filepath.Glob("testdata/measure/*.txtar")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range cases {
		t.Run(filepath.Base(file), func(t *testing.T) { measureCase(t, file) })
	}
}

func measureCase(t *testing.T, file string) {
	ar, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var policy []byte
	var want *txtar.File
	trees := map[string]fs.FS{}
	for i, f := range ar.Files {
		switch f.Name {
		case "policy":
			policy = f.Data
		case "want":
			want = &ar.Files[i]
		default:
			volume, name, _ := strings.Cut(f.Name, "/")
			if trees[volume] == nil {
				trees[volume] = fstest.MapFS{}
			}
			trees[volume].(fstest.MapFS)[name] = &fstest.MapFile{Data: f.Data, Mode: 0o644}
		}
	}
	var got tape
	if err := boot.Measure(t.Context(), policy, router(trees), &got); err != nil {
		t.Fatal(err)
	}
	if *update {
		want.Data = []byte(got.text())
		if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got.text() != string(want.Data) {
		t.Errorf("got:\n%swant:\n%s", got.text(), want.Data)
	}
}

func TestMeasureWithoutPolicyCapsAndGoesOn(t *testing.T) {
	for name, c := range map[string]struct {
		raw  []byte
		want string
	}{
		"missing":    {nil, "policy/measure!absent"},
		"unreadable": {[]byte{}, "policy/measure!error"},
		"malformed":  {[]byte("{"), "policy/measure!error"},
	} {
		var got tape
		err := boot.Measure(t.Context(), c.raw, router(nil), &got)
		if !errors.Is(err, boot.ErrPolicy) {
			t.Errorf("%s: error %v", name, err)
		}
		if ns := got.names(); len(ns) != 1 || ns[0] != c.want {
			t.Errorf("%s: records %v: want %s", name, ns, c.want)
		}
		got.wantCaps(t, "phase/abort/policy")
	}
}

func TestPolicyIsTheFirstRecordByteForByte(t *testing.T) {
	for _, raw := range [][]byte{policy(cmdlineItem), append(policy(cmdlineItem), '\n')} {
		var got tape
		if err := boot.Measure(t.Context(), raw, router(nil), &got); err != nil {
			t.Fatal(err)
		}
		first := got.records[0]
		if first.Name != "policy/measure" || first.PCR != measure.Common || first.Content != sha256.Sum256(raw) {
			t.Errorf("first record %+v", first)
		}
		if !bytes.Equal(got.kept[first.Content], raw) {
			t.Error("the policy is not kept to be shown")
		}
	}
}

const everyKind = `{"kind":"cmdline"},{"kind":"agent"},{"kind":"file","class":"bootloader","volume":"esp","path":"EFI/BOOT/BOOTX64.EFI"},
{"kind":"uki","volume":"esp","path":"EFI/Linux/waxseal.efi"},{"kind":"identity"},{"kind":"aggregate"},
{"kind":"volume","class":"rootfs","volume":"root","form":"squashfs"},{"kind":"owner","volume":"conf","path":"owner-ca.pem"},
{"kind":"config","volume":"conf","path":"etc/config/*","canon":"uci1"},{"kind":"startup","volume":"conf","paths":["etc/rc.local","etc/cron*"]}`

func TestRouterWithNothingInItStillBoots(t *testing.T) {
	var got tape
	if err := boot.Measure(t.Context(), policy(everyKind), boot.Live{}, &got); err != nil {
		t.Fatal(err)
	}
	got.wantCaps(t, "phase/handoff/switch_root")
	for _, n := range got.names()[1:] {
		if !strings.HasSuffix(n, measure.Absent) {
			t.Errorf("record %s of a thing that is not there", n)
		}
	}
	for _, n := range []string{"cmdline/live", "agent/exe", "bootloader/esp/EFI/BOOT/BOOTX64.EFI", "kernel/uki/waxseal", "initramfs/uki/waxseal", "cmdline/uki/waxseal", "bootloader/uki/waxseal", "bootloader/uki/waxseal/file", "identity/serial", "aggregate/boot", "rootfs/squashfs/root", "owner/ca", "config/conf/@list?c=list1", "startup/conf/etc/rc.local?c=text1", "startup/conf/@list?c=list1"} {
		c, ok := got.content(n + measure.Absent)
		if !ok || c != sha256.Sum256([]byte("absent")) {
			t.Errorf("record %s!absent: %x, %v", n, c, ok)
		}
	}
}

// The serial number and the firmware's PCRs are known to the device only; all
// else is predicted by the very same code.
func TestPredictionIsTheBootWithoutTheDevice(t *testing.T) {
	trees := map[string]fs.FS{
		"esp":  fstest.MapFS{"EFI/BOOT/BOOTX64.EFI": {Data: []byte("loader")}, "EFI/Linux/waxseal.efi": {Data: kernelImage("k", "i", "quiet")}},
		"conf": fstest.MapFS{"owner-ca.pem": {Data: []byte("ca")}, "etc/config/network": {Data: []byte("config interface lan\n")}},
	}
	device := router(trees)
	device.Volumes = map[string]flash.Region{"root": squashfs(300, nil)}
	host := device
	host.TPM = nil
	host.SerialText = func() (string, error) { return "", boot.ErrDeviceOnly }
	var booted, predicted tape
	if err := boot.Measure(t.Context(), policy(everyKind), device, &booted); err != nil {
		t.Fatal(err)
	}
	if err := boot.Predict(t.Context(), policy(everyKind), deviceOnlyPCRs{host}, &predicted); err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for l := range strings.Lines(booted.text()) {
		if !strings.Contains(l, "identity/serial") && !strings.Contains(l, "aggregate/boot") {
			want.WriteString(l)
		}
	}
	if predicted.text() != want.String() {
		t.Errorf("predicted:\n%sbooted:\n%s", predicted.text(), want.String())
	}
}

type deviceOnlyPCRs struct{ boot.Live }

func (deviceOnlyPCRs) FirmwarePCRs(context.Context) ([]measure.Digest, error) {
	return nil, boot.ErrDeviceOnly
}

func TestPredictionNeverExpectsAnError(t *testing.T) {
	malformed := map[string]fs.FS{"esp": fstest.MapFS{"x.efi": {Data: []byte("no PE")}, "dir/file": {Data: nil}}}
	for name, c := range map[string]struct {
		item  string
		trees map[string]fs.FS
	}{
		"malformed UKI":       {`{"kind":"uki","volume":"esp","path":"x.efi"}`, malformed},
		"directory":           {`{"kind":"file","class":"bootloader","volume":"esp","path":"dir"}`, malformed},
		"tree not given":      {`{"kind":"file","class":"bootloader","volume":"usb","path":"x"}`, malformed},
		"volume not given":    {`{"kind":"volume","class":"rootfs","volume":"root","form":"raw"}`, nil},
		"aggregate not given": {`{"kind":"aggregate"}`, nil},
	} {
		src := router(c.trees)
		src.TPM = nil
		var got tape
		if err := boot.Predict(t.Context(), policy(c.item), src, &got); !errors.Is(err, boot.ErrUnpredictable) {
			t.Errorf("%s: error %v", name, err)
		}
		for _, r := range got.records {
			if r.IsCap() {
				t.Errorf("%s: predicted a cap", name)
			}
		}
	}
	if err := boot.Predict(t.Context(), []byte("{"), router(nil), &tape{}); !errors.Is(err, boot.ErrPolicy) {
		t.Errorf("malformed policy: error %v", err)
	}
}

func TestMoreThan32FilesBecomeOneList(t *testing.T) {
	files := func(n int) fstest.MapFS {
		m := fstest.MapFS{}
		for i := range n {
			m[fmt.Sprintf("etc/cron.d/job%02d", i)] = &fstest.MapFile{Data: fmt.Appendf(nil, "job %d\n", i)}
		}
		return m
	}
	item := `{"kind":"startup","volume":"conf","paths":["etc/cron.d/*"]}`
	var at, above tape
	for n, got := range map[int]*tape{32: &at, 33: &above} {
		if err := boot.Measure(t.Context(), policy(item), router(map[string]fs.FS{"conf": files(n)}), got); err != nil {
			t.Fatal(err)
		}
	}
	if ns := at.names(); len(ns) != 33 || ns[1] != "startup/conf/etc/cron.d/job00?c=text1" {
		t.Errorf("32 files: records %v", ns)
	}
	const list = "startup/conf/@list?c=list1"
	if ns := above.names(); len(ns) != 2 || ns[1] != list {
		t.Fatalf("33 files: records %v", ns)
	}
	c, _ := above.content(list)
	entries, err := canon.ParseList(above.kept[c])
	if err != nil || len(entries) != 33 {
		t.Fatalf("list of %d entries, %v", len(entries), err)
	}
	if e := entries[32]; e.Name != "startup/conf/etc/cron.d/job32?c=text1" || e.SHA256 != sha256.Sum256([]byte("job 32\n")) {
		t.Errorf("last entry %+v", e)
	}
}

func TestSecretTextIsMeasuredAndNotShown(t *testing.T) {
	src := router(map[string]fs.FS{"conf": fstest.MapFS{"etc/rc.local": {Data: []byte("curl -u x:$PASSWORD; password=$(cat /x)\n")}}})
	src.CommandLine = func() ([]byte, error) { return []byte("luks.password=hunter2"), nil }
	var got tape
	if err := boot.Measure(t.Context(), policy(cmdlineItem, `{"kind":"startup","volume":"conf","paths":["etc/rc.local"]}`), src, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.names()) != 3 {
		t.Errorf("records %v", got.names())
	}
	for _, r := range got.records[1:] {
		if text, ok := got.kept[r.Content]; ok {
			t.Errorf("%s is shown: %s", r.Name, text)
		}
	}
}

// A tree may open what OpenTree's would not: the look at the open file counts.
func TestWhatIsNoRegularFileIsAnErrorRecord(t *testing.T) {
	for _, mode := range []fs.FileMode{fs.ModeNamedPipe, fs.ModeDevice, fs.ModeSocket, fs.ModeIrregular} {
		var got tape
		src := router(map[string]fs.FS{"conf": fstest.MapFS{"etc/rc.local": {Data: []byte("exit 0\n"), Mode: mode | 0o644}}})
		if err := boot.Measure(t.Context(), policy(`{"kind":"startup","volume":"conf","paths":["etc/rc.local"]}`), src, &got); err != nil {
			t.Fatal(err)
		}
		if n := got.names()[1]; n != "startup/conf/etc/rc.local?c=text1!error" {
			t.Errorf("%v: record %s", mode, n)
		}
	}
}
