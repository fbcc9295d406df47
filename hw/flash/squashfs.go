package flash

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrSquashfs means that a region does not start with a squashfs.
var ErrSquashfs = errors.New("no squashfs 4.0")

// ErrTail means that bytes behind the used length are neither all 0xff, as
// erased flash is, nor all zero, as padding is.
var ErrTail = errors.New("bytes behind the used length are not blank")

const (
	superblockSize = 96
	squashfsMagic  = 0x73717368 // "hsqs"
	squashfsPad    = 4096       // mksquashfs fills up to this with zeros
)

// Squashfs returns the used part of a region that holds a squashfs 4.0: what
// is to be hashed instead of the whole partition. (Linux
// fs/squashfs/squashfs_fs.h, struct squashfs_super_block.)
func Squashfs(r Region) (Region, error) {
	b := make([]byte, superblockSize)
	if r.Size < superblockSize {
		return Region{}, fmt.Errorf("%s: %w: %d bytes", r.Name, ErrSquashfs, r.Size)
	}
	if err := readFull(r, b, 0); err != nil {
		return Region{}, fmt.Errorf("%s: %w", r.Name, err)
	}
	le := binary.LittleEndian
	if le.Uint32(b) != squashfsMagic || le.Uint16(b[28:]) != 4 || le.Uint16(b[30:]) != 0 {
		return Region{}, fmt.Errorf("%s: %w: magic 0x%08x, version %d.%d", r.Name, ErrSquashfs, le.Uint32(b), le.Uint16(b[28:]), le.Uint16(b[30:]))
	}
	block, log := le.Uint32(b[12:]), le.Uint16(b[22:])
	if log < 12 || log > 20 || block != 1<<log {
		return Region{}, fmt.Errorf("%s: %w: blocks of %d bytes", r.Name, ErrSquashfs, block)
	}
	used := le.Uint64(b[40:])
	if used < superblockSize || used > uint64(r.Size) {
		return Region{}, fmt.Errorf("%s: %w: %d bytes used of %d", r.Name, ErrSquashfs, used, r.Size)
	}
	return r.Head(int64(used))
}

// CheckTail reads what lies behind the first used bytes and returns ErrTail
// with the offset of the first byte that should not be there. Up to a
// multiple of 4 KiB zeros are padding; behind that all bytes are 0xff or all zero.
func CheckTail(r Region, used int64) error {
	if used < 0 || used > r.Size {
		return fmt.Errorf("%s: %d bytes used of %d", r.Name, used, r.Size)
	}
	padded := min((used+squashfsPad-1)/squashfsPad*squashfsPad, r.Size)
	for _, part := range [][2]int64{{used, padded}, {padded, r.Size}} {
		at, err := firstNotBlank(r, part[0], part[1])
		if err != nil {
			return fmt.Errorf("%s: %w", r.Name, err)
		}
		if at >= 0 {
			return fmt.Errorf("%s: %w: byte at %d", r.Name, ErrTail, at)
		}
	}
	return nil
}

// firstNotBlank returns the offset of the first byte in [from, to) that is
// neither 0xff nor zero, or not the same as the first; -1 if there is none.
func firstNotBlank(r io.ReaderAt, from, to int64) (int64, error) {
	buf := make([]byte, 256<<10)
	var blank byte
	for off := from; off < to; {
		b := buf[:min(int64(len(buf)), to-off)]
		if err := readFull(r, b, off); err != nil {
			return 0, err
		}
		if off == from {
			blank = b[0]
		}
		for i, c := range b {
			if c != blank || (blank != 0 && blank != 0xff) {
				return off + int64(i), nil
			}
		}
		off += int64(len(b))
	}
	return -1, nil
}
