// Package flash finds what a router boots from and gives it as io.ReaderAt:
// partitions of a disk or disk image (GPT), MTD regions, and the used length
// of a squashfs.
//
// It never opens anything for writing, and believes nothing that it reads
// from a device: every size is checked against the device before it is used.
package flash

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// Region is a named run of bytes: a partition, an MTD region, a whole image.
type Region struct {
	Name string
	io.ReaderAt
	Size int64 // bytes
}

// Head returns the first n bytes of the region under the same name.
func (r Region) Head(n int64) (Region, error) {
	if n < 0 || n > r.Size {
		return Region{}, fmt.Errorf("%s: %d bytes of %d", r.Name, n, r.Size)
	}
	return Region{r.Name, io.NewSectionReader(r, 0, n), n}, nil
}

// Reader returns a reader over the whole region.
func (r Region) Reader() *io.SectionReader { return io.NewSectionReader(r, 0, r.Size) }

// Device is an open block device, MTD device or image file.
type Device struct {
	Region
	file *os.File
}

// ErrNotStorage means that a path is neither a device nor a regular file.
var ErrNotStorage = errors.New("neither a block device, an MTD device nor a regular file")

// Open opens path for reading only. A FIFO, a directory or a terminal is
// ErrNotStorage, and does not block.
func Open(path string) (*Device, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("open flash: %w", err)
	}
	size, err := sizeOf(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open flash %s: %w", path, err), f.Close())
	}
	return &Device{Region{path, f, size}, f}, nil
}

// mtdMajor is the major number of MTD character devices (Linux
// Documentation/admin-guide/devices.txt).
const mtdMajor = 90

func sizeOf(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	mode := info.Mode()
	block := mode&os.ModeDevice != 0 && mode&os.ModeCharDevice == 0
	if !mode.IsRegular() && !block && !isMTD(info) {
		return 0, fmt.Errorf("%w: %v", ErrNotStorage, mode)
	}
	return f.Seek(0, io.SeekEnd)
}

func isMTD(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	return st.Rdev>>8&0xfff == mtdMajor
}

// Close closes the device.
func (d *Device) Close() error { return d.file.Close() }

// readFull reads exactly len(b) bytes at off. io.EOF before the end is
// io.ErrUnexpectedEOF: the device is shorter than it said.
func readFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}
