package flash

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"unicode/utf16"
)

// ErrGPT means that there is no valid GUID partition table. The backup table
// is never used instead: whoever can break the first could choose the second.
var ErrGPT = errors.New("no valid GUID partition table")

// ErrNoPartition means that no partition, or more than one, has the name.
var ErrNoPartition = errors.New("no such partition")

// Bounds of a table (UEFI specification 2.10, section 5.3): the specification
// asks for room for 128 entries of 128 bytes; nobody has more than four times that.
const (
	headerSize   = 92
	maxEntries   = 512
	minEntrySize = 128
	maxEntrySize = 512
)

// Partition is one entry of a partition table.
type Partition struct {
	Name   string   // UTF-16 name of the entry, without its trailing zeros
	Type   [16]byte // partition type GUID, as on disk (mixed endian)
	ID     [16]byte // unique partition GUID, as on disk
	Offset int64    // bytes from the start of the disk
	Size   int64    // bytes
}

// Region returns the bytes of the partition of disk r.
func (p Partition) Region(r io.ReaderAt) Region {
	return Region{p.Name, io.NewSectionReader(r, p.Offset, p.Size), p.Size}
}

// Find returns the one partition with the name.
func Find(ps []Partition, name string) (Partition, error) {
	var found []Partition
	for _, p := range ps {
		if p.Name == name {
			found = append(found, p)
		}
	}
	if len(found) != 1 {
		return Partition{}, fmt.Errorf("%w: %d partitions are called %q", ErrNoPartition, len(found), name)
	}
	return found[0], nil
}

// GPT reads the primary partition table of a disk of size bytes, with
// sectors of 512 or 4096 bytes. Partitions come in the order of their place
// on the disk. Both checksums, all bounds and overlaps are checked.
func GPT(r io.ReaderAt, size int64) ([]Partition, error) {
	var errs []error
	for _, sector := range []int64{512, 4096} {
		ps, err := table(r, size, sector)
		if err == nil {
			return ps, nil
		}
		errs = append(errs, fmt.Errorf("sectors of %d bytes: %w", sector, err))
	}
	return nil, fmt.Errorf("%w: %w", ErrGPT, errors.Join(errs...))
}

// header is what is used of the GPT header (UEFI 2.10, table 5-5).
type header struct {
	firstUsable, lastUsable uint64 // LBA, inclusive
	entriesLBA              uint64
	entries, entrySize      uint32
	entriesCRC              uint32
}

func table(r io.ReaderAt, size, sector int64) ([]Partition, error) {
	if size < 6*sector {
		return nil, fmt.Errorf("disk of %d bytes", size)
	}
	if err := protectiveMBR(r); err != nil {
		return nil, err
	}
	b := make([]byte, sector)
	if err := readFull(r, b, sector); err != nil {
		return nil, err
	}
	h, err := parseHeader(b, uint64(size/sector))
	if err != nil {
		return nil, err
	}
	entries := make([]byte, int(h.entries)*int(h.entrySize))
	if err := readFull(r, entries, int64(h.entriesLBA)*sector); err != nil {
		return nil, err
	}
	if crc := crc32.ChecksumIEEE(entries); crc != h.entriesCRC {
		return nil, fmt.Errorf("checksum of the entries is %08x: header says %08x", crc, h.entriesCRC)
	}
	return parseEntries(entries, h, sector)
}

// protectiveMBR checks for the one MBR entry of type 0xee that keeps old
// tools away (UEFI 2.10, section 5.2.3).
func protectiveMBR(r io.ReaderAt) error {
	b := make([]byte, 512)
	if err := readFull(r, b, 0); err != nil {
		return err
	}
	if b[510] != 0x55 || b[511] != 0xaa {
		return errors.New("no MBR signature")
	}
	for entry := 446; entry < 510; entry += 16 {
		if b[entry+4] == 0xee {
			return nil
		}
	}
	return errors.New("no protective MBR entry")
}

func parseHeader(b []byte, sectors uint64) (header, error) {
	le := binary.LittleEndian
	if string(b[:8]) != "EFI PART" || le.Uint32(b[8:]) != 0x00010000 {
		return header{}, errors.New("no GPT header of revision 1.0")
	}
	size := le.Uint32(b[12:])
	if size < headerSize || size > 512 {
		return header{}, fmt.Errorf("header of %d bytes", size)
	}
	sum := slices.Clone(b[:size])
	clear(sum[16:20])
	if crc := crc32.ChecksumIEEE(sum); crc != le.Uint32(b[16:]) {
		return header{}, fmt.Errorf("checksum of the header is %08x: it says %08x", crc, le.Uint32(b[16:]))
	}
	if at := le.Uint64(b[24:]); at != 1 {
		return header{}, fmt.Errorf("header is for sector %d", at)
	}
	h := header{
		firstUsable: le.Uint64(b[40:]),
		lastUsable:  le.Uint64(b[48:]),
		entriesLBA:  le.Uint64(b[72:]),
		entries:     le.Uint32(b[80:]),
		entrySize:   le.Uint32(b[84:]),
		entriesCRC:  le.Uint32(b[88:]),
	}
	return h, h.check(uint64(len(b)), sectors)
}

// check makes sure that no arithmetic on the header's fields can overflow
// and that the entries lie before the first usable sector.
func (h header) check(sector, sectors uint64) error {
	if h.entries < 1 || h.entries > maxEntries {
		return fmt.Errorf("%d entries: at most %d", h.entries, maxEntries)
	}
	if h.entrySize < minEntrySize || h.entrySize > maxEntrySize || h.entrySize&(h.entrySize-1) != 0 {
		return fmt.Errorf("entries of %d bytes", h.entrySize)
	}
	if h.firstUsable > h.lastUsable || h.lastUsable >= sectors {
		return fmt.Errorf("usable sectors %d to %d of %d", h.firstUsable, h.lastUsable, sectors)
	}
	length := (uint64(h.entries)*uint64(h.entrySize) + sector - 1) / sector
	if h.entriesLBA < 2 || h.entriesLBA >= h.firstUsable || h.firstUsable-h.entriesLBA < length {
		return fmt.Errorf("entries at sector %d, %d sectors: usable from %d", h.entriesLBA, length, h.firstUsable)
	}
	return nil
}

func parseEntries(b []byte, h header, sector int64) ([]Partition, error) {
	var ps []Partition
	for at := 0; at < len(b); at += int(h.entrySize) {
		e := b[at : at+int(h.entrySize)]
		if [16]byte(e[:16]) == [16]byte{} {
			continue // not in use
		}
		p, err := parseEntry(e, h, sector)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", at/int(h.entrySize), err)
		}
		ps = append(ps, p)
	}
	slices.SortFunc(ps, func(a, b Partition) int { return cmp.Compare(a.Offset, b.Offset) })
	for i := 1; i < len(ps); i++ {
		if ps[i-1].Offset+ps[i-1].Size > ps[i].Offset {
			return nil, fmt.Errorf("partitions %q and %q overlap", ps[i-1].Name, ps[i].Name)
		}
	}
	return ps, nil
}

// parseEntry reads one entry (UEFI 2.10, table 5-6).
func parseEntry(e []byte, h header, sector int64) (Partition, error) {
	first, last := binary.LittleEndian.Uint64(e[32:]), binary.LittleEndian.Uint64(e[40:])
	if first < h.firstUsable || last > h.lastUsable || first > last {
		return Partition{}, fmt.Errorf("sectors %d to %d: usable are %d to %d", first, last, h.firstUsable, h.lastUsable)
	}
	name, err := parseName(e[56:128])
	if err != nil {
		return Partition{}, err
	}
	return Partition{
		Name:   name,
		Type:   [16]byte(e[:16]),
		ID:     [16]byte(e[16:32]),
		Offset: int64(first) * sector,
		Size:   int64(last-first+1) * sector,
	}, nil
}

// parseName reads a UTF-16LE name that ends with zeros. Only printable ASCII
// is taken: names of partitions become names of records.
func parseName(b []byte) (string, error) {
	var units []uint16
	for i := 0; i+1 < len(b); i += 2 {
		u := binary.LittleEndian.Uint16(b[i:])
		if u == 0 {
			break
		}
		if u < 0x20 || u > 0x7e {
			return "", fmt.Errorf("name holds U+%04X: need printable ASCII", u)
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units)), nil
}
