package flash_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"waxseal/hw/flash"
)

// superblock is a squashfs 4.0 superblock with the given used length.
func superblock(used uint64) []byte {
	b := make([]byte, 96)
	le := binary.LittleEndian
	copy(b, "hsqs")
	le.PutUint32(b[12:], 1<<17)
	le.PutUint16(b[22:], 17)
	le.PutUint16(b[28:], 4)
	le.PutUint64(b[40:], used)
	return b
}

func region(b []byte) flash.Region {
	return flash.Region{Name: "root", ReaderAt: bytes.NewReader(b), Size: int64(len(b))}
}

func TestSquashfsIsCutToItsUsedLength(t *testing.T) {
	b := append(superblock(5000), make([]byte, 10_000)...)
	used, err := flash.Squashfs(region(b))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(used.Reader())
	if err != nil {
		t.Fatal(err)
	}
	if used.Size != 5000 || used.Name != "root" || !bytes.Equal(got, b[:5000]) {
		t.Errorf("got %s with %d bytes", used.Name, used.Size)
	}
}

func TestRealSquashfsIsRead(t *testing.T) {
	if _, err := exec.LookPath("mksquashfs"); err != nil {
		t.Skip("needs mksquashfs: run scripts/setup")
	}
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	if err := os.Mkdir(filepath.Join(dir, "tree"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mksquashfs", filepath.Join(dir, "tree"), image, "-noappend").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	d, err := flash.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	used, err := flash.Squashfs(d.Region)
	if err != nil {
		t.Fatal(err)
	}
	if used.Size >= d.Size {
		t.Errorf("%d bytes used of %d: mksquashfs pads to 4 KiB", used.Size, d.Size)
	}
	if err := flash.CheckTail(d.Region, used.Size); err != nil {
		t.Error(err)
	}
}

func TestWrongSuperblocksAreRefused(t *testing.T) {
	for name, change := range map[string]func([]byte){
		"other magic":             func(b []byte) { b[0] = 'H' },
		"version 3":               func(b []byte) { b[28] = 3 },
		"version 4.1":             func(b []byte) { b[30] = 1 },
		"block size and log":      func(b []byte) { b[22] = 16 },
		"log of 200":              func(b []byte) { b[22] = 200 },
		"used less than a header": func(b []byte) { binary.LittleEndian.PutUint64(b[40:], 95) },
		"used beyond the region":  func(b []byte) { binary.LittleEndian.PutUint64(b[40:], 8193) },
		"used 2^64-1":             func(b []byte) { binary.LittleEndian.PutUint64(b[40:], 1<<64-1) },
	} {
		b := append(superblock(4096), make([]byte, 8192-96)...)
		if _, err := flash.Squashfs(region(b)); err != nil {
			t.Fatal(err)
		}
		change(b)
		if r, err := flash.Squashfs(region(b)); !errors.Is(err, flash.ErrSquashfs) {
			t.Errorf("%s: %d bytes, %v", name, r.Size, err)
		}
	}
	if _, err := flash.Squashfs(region(make([]byte, 95))); !errors.Is(err, flash.ErrSquashfs) {
		t.Errorf("95 bytes: %v", err)
	}
}

func TestDirtyTailIsSeenAtEveryByte(t *testing.T) {
	const used, size = 5000, 300 << 10
	for name, c := range map[string]struct{ pad, tail byte }{
		"erased flash": {0, 0xff}, "zeroed disk": {0, 0}, "erased to the byte": {0xff, 0xff},
	} {
		b := append(bytes.Repeat([]byte{1}, used), bytes.Repeat([]byte{c.pad}, 8192-used)...)
		b = append(b, bytes.Repeat([]byte{c.tail}, size-8192)...)
		if err := flash.CheckTail(region(b), used); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, at := range []int{used, 8191, 8192, 8193, 256<<10 + used, size - 1} {
			b[at] ^= 0x40
			if err := flash.CheckTail(region(b), used); !errors.Is(err, flash.ErrTail) {
				t.Errorf("%s, byte %d altered: %v", name, at, err)
			}
			b[at] ^= 0x40
		}
	}
}

func TestTailOfNothingIsClean(t *testing.T) {
	if err := flash.CheckTail(region(make([]byte, 100)), 100); err != nil {
		t.Error(err)
	}
	for _, used := range []int64{-1, 101} {
		if err := flash.CheckTail(region(make([]byte, 100)), used); err == nil {
			t.Errorf("%d bytes used of 100", used)
		}
	}
}

func FuzzSquashfs(f *testing.F) {
	f.Add(append(superblock(4096), make([]byte, 8192-96)...))
	f.Add(superblock(96))
	f.Fuzz(func(t *testing.T, b []byte) {
		used, err := flash.Squashfs(region(b))
		if err != nil {
			return
		}
		if used.Size < 96 || used.Size > int64(len(b)) {
			t.Errorf("%d bytes used of %d", used.Size, len(b))
		}
		if err := flash.CheckTail(region(b), used.Size); err != nil && !errors.Is(err, flash.ErrTail) {
			t.Error(err)
		}
	})
}
