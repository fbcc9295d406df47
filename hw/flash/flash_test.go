package flash_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"waxseal/hw/flash"
)

func TestOpeningLeavesTheImageUntouched(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	d := router()
	image := d.build()
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	then := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	if err := os.Chtimes(path, then, then); err != nil {
		t.Fatal(err)
	}
	dev, err := flash.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := flash.GPT(dev, dev.Size); err != nil {
		t.Error(err)
	}
	if w, ok := dev.ReaderAt.(*os.File); ok {
		if _, err := w.WriteAt([]byte{0}, 0); !errors.Is(err, syscall.EBADF) {
			t.Errorf("write to an open image: %v", err)
		}
	}
	if err := dev.Close(); err != nil {
		t.Error(err)
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(image, after) || !info.ModTime().Equal(then) {
		t.Error("the image was changed")
	}
}

func TestOpenOfAReadOnlyFileWorks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, make([]byte, 100), 0o400); err != nil {
		t.Fatal(err)
	}
	d, err := flash.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.Size != 100 || d.Name != path {
		t.Errorf("%s has %d bytes", d.Name, d.Size)
	}
}

func TestOpenRefusesWhatIsNoStorage(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, fifo, "/dev/null", "/dev/zero"} {
		if _, err := flash.Open(path); !errors.Is(err, flash.ErrNotStorage) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := flash.Open(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

func TestHeadStaysInsideTheRegion(t *testing.T) {
	r := region([]byte("0123456789"))
	h, err := r.Head(4)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 8)
	if n, _ := h.ReadAt(b, 0); string(b[:n]) != "0123" {
		t.Errorf("head is %q", b[:n])
	}
	for _, n := range []int64{-1, 11} {
		if _, err := r.Head(n); err == nil {
			t.Errorf("head of %d bytes of 10", n)
		}
	}
}
