package boot_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"waxseal/boot"
	"waxseal/boot/uki"
	"waxseal/hw/flash"
)

// kernelImage is a small UKI: a stub's .text and .osrel, command line, kernel, initramfs.
func kernelImage(linux, initrd, cmdline string) []byte {
	const pe, optional, headers = 0x80, 112 + 16*8, 0x400
	sections := []struct{ name, data string }{{".text", "stub"}, {".osrel", "ID=waxseal"}, {uki.Cmdline, cmdline}, {uki.Linux, linux}, {uki.Initrd, initrd}}
	b := make([]byte, headers)
	copy(b, "MZ")
	binary.LittleEndian.PutUint32(b[0x3c:], pe)
	copy(b[pe:], "PE\x00\x00\x64\x86")
	binary.LittleEndian.PutUint16(b[pe+6:], uint16(len(sections)))
	binary.LittleEndian.PutUint16(b[pe+20:], optional)
	binary.LittleEndian.PutUint16(b[pe+24:], 0x20b)
	binary.LittleEndian.PutUint32(b[pe+24+60:], headers)
	binary.LittleEndian.PutUint32(b[pe+24+108:], 16)
	for i, s := range sections {
		e := b[pe+24+optional+40*i:]
		raw := (len(s.data) + 511) &^ 511
		copy(e, s.name)
		binary.LittleEndian.PutUint32(e[8:], uint32(len(s.data)))
		binary.LittleEndian.PutUint32(e[16:], uint32(raw))
		binary.LittleEndian.PutUint32(e[20:], uint32(len(b)))
		b = append(b, s.data...)
		b = append(b, make([]byte, raw-len(s.data))...)
	}
	return append(b, "symbols"...)
}

func measureUKI(t *testing.T, image []byte) *tape {
	t.Helper()
	var got tape
	src := router(map[string]fs.FS{"esp": fstest.MapFS{"EFI/Linux/waxseal.efi": {Data: image}}})
	if err := boot.Measure(t.Context(), policy(`{"kind":"uki","volume":"esp","path":"EFI/Linux/waxseal.efi"}`), src, &got); err != nil {
		t.Fatal(err)
	}
	return &got
}

func TestUKIIsMeasuredBySectionAndAsAWhole(t *testing.T) {
	linux, initrd := strings.Repeat("kernel", 500_000), strings.Repeat("initrd", 400_000) // over chunks
	image := kernelImage(linux, initrd, "quiet")
	got := measureUKI(t, image)
	var rest []byte
	for _, s := range []struct{ name, data string }{{".text", "stub"}, {".osrel", "ID=waxseal"}} {
		rest = binary.LittleEndian.AppendUint32(rest, uint32(len(s.name)))
		rest = append(rest, s.name...)
		rest = binary.LittleEndian.AppendUint64(rest, uint64(len(s.data)))
		rest = append(rest, s.data...)
	}
	for name, content := range map[string]string{
		"kernel/uki/waxseal":          linux,
		"initramfs/uki/waxseal":       initrd,
		"cmdline/uki/waxseal":         "quiet",
		"bootloader/uki/waxseal":      string(rest),
		"bootloader/uki/waxseal/file": string(image),
	} {
		if c, ok := got.content(name); !ok || c != sha256.Sum256([]byte(content)) {
			t.Errorf("%s: %x, %v", name, c, ok)
		}
	}
	if c, _ := got.content("cmdline/uki/waxseal"); string(got.kept[c]) != "quiet" {
		t.Error("the command line is not kept to be shown")
	}
}

// A changed byte anywhere is blamed on the part it is in, and on the file.
func TestChangedByteOfAUKIChangesTheRecordOfItsPart(t *testing.T) {
	image := kernelImage("kernel", "initrd", "quiet")
	im, err := uki.Parse(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	before := measureUKI(t, image)
	for section, want := range map[string]string{
		uki.Linux: "kernel/uki/waxseal", uki.Initrd: "initramfs/uki/waxseal", uki.Cmdline: "cmdline/uki/waxseal", ".text": "bootloader/uki/waxseal", ".osrel": "bootloader/uki/waxseal",
		"": "", // the DOS stub, in no section
	} {
		at := int64(0x42)
		if s, ok := im.Section(section); ok {
			at = s.Offset + s.Size - 1
		}
		changed := bytes.Clone(image)
		changed[at] ^= 1
		after := measureUKI(t, changed)
		var differ []string
		for _, n := range before.names() {
			x, _ := before.content(n)
			if y, _ := after.content(n); x != y {
				differ = append(differ, n)
			}
		}
		slices.Sort(differ)
		wanted := []string{"bootloader/uki/waxseal/file"}
		if want != "" {
			wanted = append(wanted, want)
		}
		slices.Sort(wanted)
		if !slices.Equal(differ, wanted) {
			t.Errorf("byte in section %q: records that differ %v: want %v", section, differ, wanted)
		}
	}
}

func TestMalformedUKIIsStillMeasuredAsAFile(t *testing.T) {
	got := measureUKI(t, []byte("no PE"))
	want := []string{"policy/measure", "kernel/uki/waxseal!error", "initramfs/uki/waxseal!error", "cmdline/uki/waxseal!error", "bootloader/uki/waxseal!error", "bootloader/uki/waxseal/file"}
	if ns := got.names(); !slices.Equal(ns, want) {
		t.Errorf("records %v: want %v", ns, want)
	}
	if err := got.notes["kernel/uki/waxseal!error"]; !errors.Is(err, uki.ErrFormat) {
		t.Errorf("note %v", err)
	}
}

// squashfs is a volume with a file system of used bytes, and tail behind it.
func squashfs(used int, tail []byte) flash.Region {
	b := bytes.Repeat([]byte{'s'}, used)
	copy(b, "hsqs")
	binary.LittleEndian.PutUint32(b[12:], 1<<17)
	binary.LittleEndian.PutUint16(b[22:], 17)
	binary.LittleEndian.PutUint32(b[28:], 4)
	binary.LittleEndian.PutUint64(b[40:], uint64(used))
	b = append(b, tail...)
	return flash.Region{ReaderAt: bytes.NewReader(b), Size: int64(len(b))}
}

func TestSquashfsIsMeasuredToItsUsedLength(t *testing.T) {
	pad := make([]byte, 4096-300)
	erased := bytes.Repeat([]byte{0xff}, 9000)
	changed := func(v flash.Region, at int, value uint64) flash.Region {
		b, _ := io.ReadAll(io.NewSectionReader(v, 0, v.Size))
		binary.LittleEndian.PutUint64(b[at:], value)
		return flash.Region{ReaderAt: bytes.NewReader(b), Size: v.Size}
	}
	for name, c := range map[string]struct {
		volume flash.Region
		tail   string
		want   string
	}{
		"no tail":                  {squashfs(300, nil), "erased", "rootfs/squashfs/root"},
		"padding":                  {squashfs(300, pad), "erased", "rootfs/squashfs/root"},
		"erased flash":             {squashfs(300, append(slices.Clone(pad), erased...)), "erased", "rootfs/squashfs/root"},
		"empty disk":               {squashfs(300, make([]byte, 20000)), "erased", "rootfs/squashfs/root"},
		"something in the tail":    {squashfs(300, append(slices.Clone(pad), []byte(strings.Repeat("\xff", 50)+"x")...)), "erased", "rootfs/squashfs/root?tail=dirty"},
		"something in the padding": {squashfs(300, append([]byte{1}, pad[1:]...)), "erased", "rootfs/squashfs/root?tail=dirty"},
		"zeros in erased flash":    {squashfs(300, append(slices.Clone(pad), append(slices.Clone(erased), 0)...)), "erased", "rootfs/squashfs/root?tail=dirty"},
		"tail not looked at":       {squashfs(300, []byte("overlay")), "any", "rootfs/squashfs/root"},
		"not a squashfs":           {changed(squashfs(300, nil), 0, 0), "any", "rootfs/squashfs/root!error"},
		"longer than the volume":   {changed(squashfs(300, nil), 40, 301), "any", "rootfs/squashfs/root!error"},
		"length of 2^64-1":         {changed(squashfs(300, nil), 40, 1<<64-1), "any", "rootfs/squashfs/root!error"},
		"shorter than its header":  {changed(squashfs(300, nil), 40, 10), "any", "rootfs/squashfs/root!error"},
		"too small":                {flash.Region{ReaderAt: bytes.NewReader([]byte("hsqs")), Size: 4}, "any", "rootfs/squashfs/root!error"},
	} {
		src := router(nil)
		src.Volumes = map[string]flash.Region{"root": c.volume}
		var got tape
		if err := boot.Measure(t.Context(), policy(`{"kind":"volume","class":"rootfs","volume":"root","form":"squashfs","tail":"`+c.tail+`"}`), src, &got); err != nil {
			t.Fatal(err)
		}
		if n := got.names()[1]; n != c.want {
			t.Errorf("%s: record %s: want %s", name, n, c.want)
		}
		if strings.HasSuffix(c.want, "error") {
			continue
		}
		used, _ := io.ReadAll(io.NewSectionReader(c.volume, 0, 300))
		if content, _ := got.content(c.want); content != sha256.Sum256(used) {
			t.Errorf("%s: content is not that of the used bytes", name)
		}
	}
}
