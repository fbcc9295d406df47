package uki_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"waxseal/boot/uki"
)

const (
	peAt       = 0x80
	coffAt     = peAt + 4
	optionalAt = peAt + 24
	tableAt    = optionalAt + 112 + 16*8
	headers    = 0x400
)

type section struct{ name, data string }

// image builds a PE32+ file of the given sections.
func image(sections ...section) []byte {
	b := make([]byte, headers)
	copy(b, "MZ")
	binary.LittleEndian.PutUint32(b[0x3c:], peAt)
	copy(b[peAt:], "PE\x00\x00")
	put16(b, coffAt, 0x8664)
	put16(b, coffAt+2, uint16(len(sections)))
	put16(b, coffAt+16, 112+16*8)
	put16(b, optionalAt, 0x20b)
	put32(b, optionalAt+60, headers)
	put32(b, optionalAt+108, 16)
	for i, s := range sections {
		e := tableAt + 40*i
		raw := (len(s.data) + 15) &^ 15
		copy(b[e:e+8], s.name)
		put32(b, e+8, uint32(len(s.data)))
		put32(b, e+16, uint32(raw))
		put32(b, e+20, uint32(len(b)))
		b = append(b, s.data...)
		b = append(b, make([]byte, raw-len(s.data))...)
	}
	return b
}

func put16(b []byte, at int, v uint16) { binary.LittleEndian.PutUint16(b[at:], v) }
func put32(b []byte, at int, v uint32) { binary.LittleEndian.PutUint32(b[at:], v) }

func parse(b []byte) (uki.Image, error) { return uki.Parse(bytes.NewReader(b), int64(len(b))) }

func small() []byte {
	return image(section{name: ".osrel", data: "ID=waxseal"}, section{name: ".cmdline", data: "quiet"}, section{name: ".linux", data: strings.Repeat("k", 100)}, section{name: ".initrd", data: "i"})
}

func TestSectionsComeOutAsTheyWentIn(t *testing.T) {
	b := small()
	im, err := parse(b)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range im.Sections {
		names = append(names, s.Name)
	}
	if got := strings.Join(names, " "); got != ".osrel .cmdline .linux .initrd" {
		t.Errorf("sections %s", got)
	}
	s, ok := im.Section(uki.Cmdline)
	if !ok || s.Size != 5 || s.Virtual != 5 || s.Raw != 16 {
		t.Fatalf("section .cmdline: %+v, %v", s, ok)
	}
	data, err := io.ReadAll(s.Reader(bytes.NewReader(b)))
	if err != nil || string(data) != "quiet" {
		t.Errorf("data %q, error %v", data, err)
	}
	if _, ok := im.Section(".none"); ok {
		t.Error("found a section that is not there")
	}
}

func TestHostileHeadersAreRefused(t *testing.T) {
	row := func(i, field int) int { return tableAt + 40*i + field }
	for name, change := range map[string]func(b []byte) []byte{
		"empty":                       func(b []byte) []byte { return nil },
		"no MZ":                       func(b []byte) []byte { b[0] = 'm'; return b },
		"PE header inside DOS header": func(b []byte) []byte { put32(b, 0x3c, 4); return b },
		"PE header beyond the file":   func(b []byte) []byte { put32(b, 0x3c, 0xfffffff0); return b },
		"no PE signature":             func(b []byte) []byte { b[peAt] = 0; return b },
		"no sections":                 func(b []byte) []byte { put16(b, coffAt+2, 0); return b },
		"65535 sections":              func(b []byte) []byte { put16(b, coffAt+2, 0xffff); return b },
		"no optional header":          func(b []byte) []byte { put16(b, coffAt+16, 0); return b },
		"optional header too long":    func(b []byte) []byte { put16(b, coffAt+16, 0xffff); return b },
		"unknown magic":               func(b []byte) []byte { put16(b, optionalAt, 0x107); return b },
		"2^32-1 data directories":     func(b []byte) []byte { put32(b, optionalAt+108, 0xffffffff); return b },
		"17 data directories":         func(b []byte) []byte { put32(b, optionalAt+108, 17); return b },
		"headers of no bytes":         func(b []byte) []byte { put32(b, optionalAt+60, 0); return b },
		"headers beyond the file":     func(b []byte) []byte { put32(b, optionalAt+60, 0x7fffffff); return b },
		"section beyond the file":     func(b []byte) []byte { put32(b, row(3, 16), 0xffffffff); return b },
		"section at 2^32-1":           func(b []byte) []byte { put32(b, row(3, 20), 0xffffffff); return b },
		"section in the headers":      func(b []byte) []byte { put32(b, row(0, 20), 0); return b },
		"sections that overlap":       func(b []byte) []byte { put32(b, row(0, 16), 17); return b },
		"two sections of a name":      func(b []byte) []byte { copy(b[row(0, 0):], ".linux\x00\x00"); return b },
		"section without a name":      func(b []byte) []byte { clear(b[row(0, 0):row(0, 8)]); return b },
		"name with a NUL inside":      func(b []byte) []byte { b[row(2, 3)] = 0; return b },
		"name with an escape":         func(b []byte) []byte { b[row(2, 3)] = 0x1b; return b },
		"certificates in a section":   func(b []byte) []byte { put32(b, optionalAt+144, headers); put32(b, optionalAt+148, 8); return b },
		"certificates beyond":         func(b []byte) []byte { put32(b, optionalAt+144, 0xfffffff0); put32(b, optionalAt+148, 0xff); return b },
	} {
		b := change(small())
		if im, err := parse(b); !errors.Is(err, uki.ErrFormat) {
			t.Errorf("%s: image %+v, error %v", name, im, err)
		}
	}
}

func TestImageCutAnywhereIsRefused(t *testing.T) {
	b := small()
	for n := range b {
		if _, err := parse(b[:n]); !errors.Is(err, uki.ErrFormat) {
			t.Fatalf("cut at %d of %d: error %v", n, len(b), err)
		}
	}
}

// brokenDisk gives an error at any read.
type brokenDisk struct{}

var errDisk = errors.New("input/output error")

func (brokenDisk) ReadAt([]byte, int64) (int, error) { return 0, errDisk }

func TestReadErrorIsNotTakenForAMalformedImage(t *testing.T) {
	_, err := uki.Parse(brokenDisk{}, 1<<20)
	if !errors.Is(err, errDisk) || errors.Is(err, uki.ErrFormat) {
		t.Errorf("error is %v", err)
	}
}

// objcopy -h is a stranger's reading of the same table.
func TestSectionsAgreeWithObjdump(t *testing.T) {
	for _, f := range []string{"/usr/lib/systemd/boot/efi/systemd-bootx64.efi", "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"} {
		need(t, f, "/usr/bin/objdump")
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		im, err := parse(b)
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		out, err := exec.CommandContext(t.Context(), "objdump", "-h", f).Output()
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		for l := range strings.Lines(string(out)) {
			w := strings.Fields(l)
			if len(w) != 7 || !strings.Contains(w[6], "**") {
				continue
			}
			seen++
			if s, ok := im.Section(w[1]); !ok || s.Offset != hexadecimal(t, w[5]) {
				t.Errorf("%s: section %s: %+v: objdump says offset %s", filepath.Base(f), w[1], s, w[5])
			}
		}
		if seen != len(im.Sections) {
			t.Errorf("%s: %d sections: objdump says %d", f, len(im.Sections), seen)
		}
	}
}

func hexadecimal(t *testing.T, s string) int64 {
	t.Helper()
	var v int64
	for _, c := range s {
		v = v<<4 | int64(strings.IndexRune("0123456789abcdef", c))
	}
	return v
}

func need(t *testing.T, files ...string) {
	t.Helper()
	for _, f := range files {
		if _, err := os.Stat(f); err != nil {
			t.Skipf("needs %s: run scripts/setup", f)
		}
	}
}

// FuzzParse: no panic, and each section of an accepted image can be read and
// is disjoint from all others.
func FuzzParse(f *testing.F) {
	f.Add(small())
	f.Add(image(section{name: ".text", data: "t"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		im, err := parse(b)
		if err != nil {
			return
		}
		end := im.Headers
		for _, s := range im.Sections {
			if s.Size > s.Raw || s.Size > s.Virtual {
				t.Errorf("section %+v is larger than its data", s)
			}
			if s.Raw > 0 && (s.Offset < end || s.Offset+s.Raw > int64(len(b))) {
				t.Errorf("section %+v after byte %d of %d", s, end, len(b))
			}
			if s.Raw > 0 {
				end = s.Offset + s.Raw
			}
			if n, err := io.Copy(io.Discard, s.Reader(bytes.NewReader(b))); s.Size > 0 && (err != nil || n != s.Size) {
				t.Errorf("section %+v: read %d bytes, error %v", s, n, err)
			}
		}
	})
}
