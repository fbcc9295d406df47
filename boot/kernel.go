package boot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"io/fs"

	"waxseal/boot/canon"
	"waxseal/boot/uki"
)

// cmdline records the command line of the running kernel.
func (e emitter) cmdline() error {
	const name = "cmdline/live"
	line, err := e.src.Cmdline(e.ctx)
	if err != nil {
		return e.missing(name, e.sourceError(err))
	}
	return e.open(name, bytes.TrimSuffix(line, []byte("\n")))
}

// open records content that is shown unless it may hold a secret.
func (e emitter) open(name string, content []byte) error {
	if canon.MayHoldSecret(content) {
		return e.sum(name, sha256.Sum256(content), nil)
	}
	return e.text(name, content)
}

// inventory records what the kernel was extended with, a line for each thing.
// None is the empty text, which is not the same as not having looked.
func (e emitter) inventory(name string, list func(context.Context) ([]string, error)) error {
	lines, err := list(e.ctx)
	if err != nil {
		return e.missing(name, e.sourceError(err))
	}
	var text []byte
	for _, line := range lines {
		text = append(append(text, line...), '\n')
	}
	return e.text(name, text)
}

// ukiParts are the sections of a UKI that have a record of their own, in the
// order of the records.
var ukiParts = []struct{ class, section string }{
	{"kernel", uki.Linux},
	{"initramfs", uki.Initrd},
	{"cmdline", uki.Cmdline},
}

// uki records a unified kernel image: three of its sections, all others
// together, and the whole file. The file is read once.
func (e emitter) uki(it Item) error {
	item := "uki/" + ukiName(it.Path)
	tree, err := e.src.Tree(e.ctx, it.Volume)
	if err != nil {
		return e.ukiMissing(item, e.sourceError(err))
	}
	var c *cutter
	err = withFile(tree, it.Path, it.maxSize(), func(r io.Reader, size int64) (err error) {
		c, err = e.cut(r, size)
		return err
	})
	if err != nil {
		return e.ukiMissing(item, err)
	}
	for _, p := range ukiParts {
		if err := e.ukiPart(p.class+"/"+item, c, p.section); err != nil {
			return err
		}
	}
	if c.malformed != nil {
		err = e.missing("bootloader/"+item, c.malformed)
	} else {
		err = e.sum("bootloader/"+item, sum(c.rest), nil)
	}
	if err != nil {
		return err
	}
	return e.sum("bootloader/"+item+"/file", sum(c.whole), nil)
}

func (e emitter) ukiPart(name string, c *cutter, section string) error {
	h, ok := c.parts[section]
	switch {
	case c.malformed != nil:
		return e.missing(name, c.malformed)
	case !ok:
		return e.missing(name, fmt.Errorf("section %s: %w", section, fs.ErrNotExist))
	case section == uki.Cmdline && c.cmdline.Len() <= maxCmdline:
		return e.open(name, c.cmdline.Bytes())
	}
	return e.sum(name, sum(h), nil)
}

func (e emitter) ukiMissing(item string, why error) error {
	for _, p := range ukiParts {
		if err := e.missing(p.class+"/"+item, why); err != nil {
			return err
		}
	}
	if err := e.missing("bootloader/"+item, why); err != nil {
		return err
	}
	return e.missing("bootloader/"+item+"/file", why)
}

// cut hashes a UKI and its sections in one pass. The headers are parsed from
// the same bytes that are hashed.
func (e emitter) cut(r io.Reader, size int64) (*cutter, error) {
	head := make([]byte, min(size, uki.MaxHeaders))
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	im, err := uki.Parse(bytes.NewReader(head), size)
	c := newCutter(im, err)
	r = io.MultiReader(bytes.NewReader(head), io.LimitReader(r, size-int64(len(head))+1))
	if err := e.reader.each(e.ctx, r, c.write); err != nil {
		return nil, err
	}
	if c.pos != size {
		return nil, fmt.Errorf("%w: %d bytes instead of %d", errChanged, c.pos, size)
	}
	return c, nil
}

// maxCmdline bounds the command line that is kept, in bytes.
const maxCmdline = 64 << 10

// cutter takes the bytes of a UKI in their order.
type cutter struct {
	malformed error // why there are no sections
	whole     hash.Hash
	parts     map[string]hash.Hash // by section, those of ukiParts
	cmdline   bytes.Buffer         // the .cmdline section, at most maxCmdline+1 bytes
	rest      hash.Hash            // all other sections: u32le length of name | name | u64le size | data
	sections  []uki.Section        // those that are not yet done
	begun     bool                 // the first of them has begun
	pos       int64
}

func newCutter(im uki.Image, malformed error) *cutter {
	c := &cutter{malformed: malformed, whole: sha256.New(), parts: map[string]hash.Hash{}, rest: sha256.New(), sections: im.Sections}
	for _, p := range ukiParts {
		if _, ok := im.Section(p.section); ok {
			c.parts[p.section] = sha256.New()
		}
	}
	return c
}

// write hashes the file and its sections side by side.
func (c *cutter) write(b []byte) {
	done := make(chan struct{})
	go func() {
		c.whole.Write(b)
		close(done)
	}()
	c.split(b)
	<-done
}

// split hands the parts of b to the sections they belong to.
func (c *cutter) split(b []byte) {
	end := c.pos + int64(len(b))
	for len(c.sections) > 0 {
		s := c.sections[0]
		if s.Size > 0 && s.Offset >= end {
			break
		}
		c.begin(s)
		from, to := max(s.Offset, c.pos), min(s.Offset+s.Size, end)
		if s.Size > 0 && from < to {
			c.section(s, b[from-c.pos:to-c.pos])
		}
		if s.Size > 0 && to < s.Offset+s.Size {
			break
		}
		c.sections, c.begun = c.sections[1:], false
	}
	c.pos = end
}

func (c *cutter) begin(s uki.Section) {
	if c.begun {
		return
	}
	c.begun = true
	if c.parts[s.Name] != nil {
		return
	}
	head := binary.LittleEndian.AppendUint32(nil, uint32(len(s.Name)))
	head = append(head, s.Name...)
	c.rest.Write(binary.LittleEndian.AppendUint64(head, uint64(s.Size)))
}

func (c *cutter) section(s uki.Section, b []byte) {
	h := c.parts[s.Name]
	if h == nil {
		h = c.rest
	}
	h.Write(b)
	if s.Name == uki.Cmdline {
		c.cmdline.Write(b[:min(len(b), max(0, maxCmdline+1-c.cmdline.Len()))])
	}
}
