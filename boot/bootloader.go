package boot

import (
	"crypto/sha256"
	"errors"
	"io"

	"waxseal/hw/flash"
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
	used, dirty, err := usedPart(it, flash.Region{Name: it.Volume, ReaderAt: r, Size: size})
	if err != nil {
		return e.missing(name, err)
	}
	content, err := e.reader.hash(e.ctx, used.Reader(), used.Size)
	if err != nil {
		return e.missing(name, err)
	}
	if dirty != nil {
		name += "?tail=dirty"
	}
	rec, err := e.profile.Sum(name, content)
	if err != nil {
		return err
	}
	return e.send(step{record: rec, note: dirty})
}

// usedPart returns the part of a volume that is hashed. dirty says what lies
// behind it that should not, if the item asks for that.
func usedPart(it Item, v flash.Region) (used flash.Region, dirty, err error) {
	if it.Form != "squashfs" {
		return v, nil, nil
	}
	used, err = flash.Squashfs(v)
	if err != nil || it.Tail != "erased" {
		return used, nil, err
	}
	err = flash.CheckTail(v, used.Size)
	if errors.Is(err, flash.ErrTail) {
		return used, err, nil
	}
	return used, nil, err
}
