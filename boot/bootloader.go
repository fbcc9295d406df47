package boot

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// file records one file as it is.
func (e emitter) file(it Item) error {
	name, full := recordName(it.prefix(), it.Path, "")
	tree, err := e.src.Tree(e.ctx, it.Volume)
	if err != nil {
		return e.missing(name, e.sourceError(err))
	}
	var content [sha256.Size]byte
	err = withFile(tree, it.Path, it.maxSize(), func(r io.Reader, size int64) (err error) {
		content, err = e.reader.hash(e.ctx, r, size)
		return err
	})
	if err != nil {
		return e.missing(name, err)
	}
	return e.sum(name, content, full)
}

// volume records the used bytes of a volume.
func (e emitter) volume(it Item) error {
	name := it.prefix() + "/" + it.Volume
	r, size, err := e.src.Volume(e.ctx, it.Volume)
	if err != nil {
		return e.missing(name, e.sourceError(err))
	}
	used := size
	if it.Form == "squashfs" {
		if used, err = squashfsUsed(r, size); err != nil {
			return e.missing(name, err)
		}
	}
	content, err := e.reader.hash(e.ctx, io.NewSectionReader(r, 0, used), used)
	if err != nil {
		return e.missing(name, err)
	}
	if it.Tail == "erased" {
		clean, err := e.reader.erased(e.ctx, io.NewSectionReader(r, used, size-used), used)
		if err != nil {
			return e.missing(name, err)
		}
		if !clean {
			name += "?tail=dirty"
		}
	}
	return e.sum(name, content, nil)
}

// Layout of a squashfs 4.0 superblock (Linux fs/squashfs/squashfs_fs.h).
const (
	squashfsHead      = 96
	squashfsMagic     = "hsqs"
	squashfsMajor     = 28 // u16le
	squashfsBytesUsed = 40 // u64le
	squashfsPad       = 4096
)

var errSquashfs = errors.New("not a squashfs 4.0 file system")

// squashfsUsed returns how many bytes a squashfs file system has.
func squashfsUsed(r io.ReaderAt, size int64) (int64, error) {
	if size < squashfsHead {
		return 0, fmt.Errorf("%w: %d bytes", errSquashfs, size)
	}
	head := make([]byte, squashfsHead)
	if _, err := r.ReadAt(head, 0); err != nil {
		return 0, fmt.Errorf("squashfs superblock: %w", err)
	}
	if string(head[:4]) != squashfsMagic || binary.LittleEndian.Uint16(head[squashfsMajor:]) != 4 {
		return 0, errSquashfs
	}
	used := binary.LittleEndian.Uint64(head[squashfsBytesUsed:])
	if used < squashfsHead || used > uint64(size) {
		return 0, fmt.Errorf("%w: says it uses %d bytes of a volume of %d", errSquashfs, used, size)
	}
	return int64(used), nil
}

// erased tells whether r, which begins at offset at of a volume, holds nothing:
// zeros up to the next multiple of 4096 (mksquashfs pads with them), and then
// one value, 0xFF as erased flash or 0x00 as an empty disk.
func (rd *reader) erased(ctx context.Context, r io.Reader, at int64) (bool, error) {
	pad := (squashfsPad - at%squashfsPad) % squashfsPad
	clean, blank := true, -1
	err := rd.each(ctx, r, func(b []byte) {
		for _, c := range b {
			switch {
			case pad > 0 && (c == 0 || c == 0xff):
			case pad <= 0 && blank < 0 && (c == 0 || c == 0xff):
				blank = int(c)
			case pad <= 0 && blank == int(c):
			default:
				clean = false
			}
			pad--
		}
	})
	return clean, err
}
