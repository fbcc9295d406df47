package flash_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"waxseal/hw/flash"
)

// disk is a description of a disk; build turns it into bytes with checksums
// that fit, so that each test breaks just one thing.
type disk struct {
	sector    int
	sectors   int
	entries   uint32
	entrySize uint32
	entriesAt uint64
	first     uint64 // first usable sector
	last      uint64
	parts     []part
	noMBR     bool
	header    func([]byte) // alters the header before its checksum
}

type part struct {
	name        string
	first, last uint64
}

func router() disk {
	return disk{
		sector: 512, sectors: 2048, entries: 128, entrySize: 128, entriesAt: 2, first: 34, last: 2014,
		parts: []part{{"root", 512, 1023}, {"esp", 40, 511}, {"conf", 1024, 2014}},
	}
}

func (d disk) build() []byte {
	le := binary.LittleEndian
	b := make([]byte, d.sector*d.sectors)
	if !d.noMBR {
		b[450], b[510], b[511] = 0xee, 0x55, 0xaa
	}
	entries := make([]byte, int(min(d.entries, 4096)*min(d.entrySize, 4096)))
	for i, p := range d.parts {
		e := entries[i*int(d.entrySize):]
		e[0], e[16] = 0xaf, byte(i+1)
		le.PutUint64(e[32:], p.first)
		le.PutUint64(e[40:], p.last)
		for n, u := range utf16.Encode([]rune(p.name)) {
			le.PutUint16(e[56+2*n:], u)
		}
	}
	if at := int(d.entriesAt) * d.sector; at < len(b) {
		copy(b[at:], entries)
	}
	h := b[d.sector : 2*d.sector]
	copy(h, "EFI PART")
	le.PutUint32(h[8:], 0x00010000)
	le.PutUint32(h[12:], 92)
	le.PutUint64(h[24:], 1)
	le.PutUint64(h[32:], uint64(d.sectors-1))
	le.PutUint64(h[40:], d.first)
	le.PutUint64(h[48:], d.last)
	le.PutUint64(h[72:], d.entriesAt)
	le.PutUint32(h[80:], d.entries)
	le.PutUint32(h[84:], d.entrySize)
	le.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
	if d.header != nil {
		d.header(h)
	}
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
	return b
}

func read(b []byte) ([]flash.Partition, error) {
	return flash.GPT(bytes.NewReader(b), int64(len(b)))
}

func TestPartitionsAreFoundByName(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		d := router()
		d.sector = sector
		b := d.build()
		copy(b[40*sector:], "first byte of the ESP")
		ps, err := read(b)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, p := range ps {
			names = append(names, p.Name)
		}
		if want := []string{"esp", "root", "conf"}; !slices.Equal(names, want) {
			t.Errorf("names are %v, want %v", names, want)
		}
		esp, err := flash.Find(ps, "esp")
		if err != nil {
			t.Fatal(err)
		}
		if esp.Offset != int64(40*sector) || esp.Size != int64(472*sector) {
			t.Errorf("esp at %d with %d bytes", esp.Offset, esp.Size)
		}
		start := make([]byte, 10)
		if _, err := esp.Region(bytes.NewReader(b)).ReadAt(start, 0); err != nil || string(start) != "first byte" {
			t.Errorf("esp starts with %q, %v", start, err)
		}
	}
}

func TestMissingOrDoubleNameIsErrNoPartition(t *testing.T) {
	d := router()
	d.parts = []part{{"root", 40, 50}, {"root", 60, 70}}
	ps, err := read(d.build())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"root", "esp", ""} {
		if _, err := flash.Find(ps, name); !errors.Is(err, flash.ErrNoPartition) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestWrongTablesAreRefused(t *testing.T) {
	le := binary.LittleEndian
	for name, change := range map[string]func(*disk){
		"no protective MBR":          func(d *disk) { d.noMBR = true },
		"other signature":            func(d *disk) { d.header = func(h []byte) { h[0] = 'X' } },
		"revision 2.0":               func(d *disk) { d.header = func(h []byte) { le.PutUint32(h[8:], 0x00020000) } },
		"header of 91 bytes":         func(d *disk) { d.header = func(h []byte) { le.PutUint32(h[12:], 91) } },
		"header of 2^32-1 bytes":     func(d *disk) { d.header = func(h []byte) { le.PutUint32(h[12:], 1<<32-1) } },
		"header for another sector":  func(d *disk) { d.header = func(h []byte) { le.PutUint64(h[24:], 2) } },
		"checksum of the entries":    func(d *disk) { d.header = func(h []byte) { h[88] ^= 1 } },
		"no entries":                 func(d *disk) { d.entries, d.parts = 0, nil },
		"2^32-1 entries":             func(d *disk) { d.header = func(h []byte) { le.PutUint32(h[80:], 1<<32-1) } },
		"entries of 2^31 bytes":      func(d *disk) { d.header = func(h []byte) { le.PutUint32(h[84:], 1<<31) } },
		"entries of 136 bytes":       func(d *disk) { d.entrySize = 136 },
		"entries in the header":      func(d *disk) { d.header = func(h []byte) { le.PutUint64(h[72:], 1) } },
		"entries beyond the disk":    func(d *disk) { d.entriesAt = 1 << 60 },
		"entries in usable space":    func(d *disk) { d.entriesAt = 30 },
		"usable beyond the disk":     func(d *disk) { d.last = 2048 },
		"usable backwards":           func(d *disk) { d.first, d.last = 500, 499 },
		"partition before usable":    func(d *disk) { d.parts[0].first = 33 },
		"partition after usable":     func(d *disk) { d.parts[0].last = 2015 },
		"partition backwards":        func(d *disk) { d.parts[0] = part{"x", 600, 599} },
		"partition of 2^64 sectors":  func(d *disk) { d.parts[0] = part{"x", 600, 1<<64 - 1} },
		"partitions that overlap":    func(d *disk) { d.parts[0].first = 511 },
		"name with a newline":        func(d *disk) { d.parts[0].name = "ro\not" },
		"name that is not ASCII":     func(d *disk) { d.parts[0].name = "röot" },
		"name with a lone surrogate": func(d *disk) { d.parts[0].name = "\ufffd" },
	} {
		t.Run(name, func(t *testing.T) {
			d := router()
			change(&d)
			if ps, err := read(d.build()); !errors.Is(err, flash.ErrGPT) {
				t.Errorf("got %d partitions, %v", len(ps), err)
			}
		})
	}
}

func TestEveryFlippedBitOfTheTableIsSeen(t *testing.T) {
	d := router()
	good := d.build()
	want, err := read(good)
	if err != nil {
		t.Fatal(err)
	}
	check := func(from, to int) {
		for bit := 8 * from; bit < 8*to; bit++ {
			b := slices.Clone(good[:34*512])
			b[bit/8] ^= 1 << (bit % 8)
			ps, err := flash.GPT(bytes.NewReader(b), int64(len(good)))
			if err == nil && !slices.Equal(ps, want) {
				t.Errorf("bit %d of byte %d: another table is read", bit%8, bit/8)
			}
			if err == nil {
				t.Errorf("bit %d of byte %d goes unseen", bit%8, bit/8)
			}
		}
	}
	check(512, 512+92)    // header
	check(1024, 1024+384) // entries in use
}

func TestDiskShorterThanItsTableIsRefused(t *testing.T) {
	d := router()
	b := d.build()
	for _, n := range []int{0, 511, 512, 1023, 1024, 6 * 512, 34*512 - 1} {
		if _, err := flash.GPT(bytes.NewReader(b[:n]), int64(len(b))); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes of a disk that claims %d: %v", n, len(b), err)
		}
		if _, err := flash.GPT(bytes.NewReader(b[:n]), int64(n)); err == nil {
			t.Errorf("%d bytes are a disk", n)
		}
	}
}

func FuzzGPT(f *testing.F) {
	d := router()
	f.Add(d.build()[:64*512])
	f.Add([]byte("EFI PART"))
	f.Add([]byte(strings.Repeat("\xff", 4096)))
	f.Fuzz(func(t *testing.T, b []byte) {
		fixChecksums(b) // else the fuzzer never gets past them
		ps, err := read(b)
		if err != nil {
			return
		}
		for i, p := range ps {
			if p.Offset < 0 || p.Size <= 0 || p.Offset+p.Size > int64(len(b)) {
				t.Errorf("partition %q at %d with %d bytes of %d", p.Name, p.Offset, p.Size, len(b))
			}
			if i > 0 && ps[i-1].Offset+ps[i-1].Size > p.Offset {
				t.Errorf("%q overlaps the one before", p.Name)
			}
		}
	})
}

func fixChecksums(b []byte) {
	if len(b) < 1024 {
		return
	}
	le, h := binary.LittleEndian, b[512:1024]
	at, n := le.Uint64(h[72:]), uint64(le.Uint32(h[80:]))*uint64(le.Uint32(h[84:]))
	if at < 1<<20 && n < 1<<20 && at*512+n <= uint64(len(b)) {
		le.PutUint32(h[88:], crc32.ChecksumIEEE(b[at*512:at*512+n]))
	}
	size := le.Uint32(h[12:])
	if size < 92 || size > 512 {
		return
	}
	clear(h[16:20])
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:size]))
}
