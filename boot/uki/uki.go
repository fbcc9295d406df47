// Package uki reads the section table of a PE/COFF executable, such as a
// unified kernel image (UAPI Group Specification 5) or a boot loader.
//
// It reads headers only, believes no number in them before it is checked
// against the size of the file, and never loads, runs or changes an image.
package uki

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Limits of what Parse accepts. The largest boot loaders and UKIs have less
// than 32 sections.
const (
	MaxHeaders  = 64 << 10 // all headers lie in this many bytes at the head of the file
	MaxSections = 96       // the Windows loader's limit (PE/COFF specification, COFF file header)
)

// ErrFormat means that the bytes are not a PE image that Parse accepts.
var ErrFormat = errors.New("not an acceptable PE image")

// Names of the sections of a unified kernel image.
const (
	Linux   = ".linux"
	Initrd  = ".initrd"
	Cmdline = ".cmdline"
	OSRel   = ".osrel"
	Uname   = ".uname"
	SBAT    = ".sbat"
)

// Machine is the COFF machine type of an image.
type Machine uint16

// Image is what the headers of a PE file say.
type Image struct {
	Machine  Machine
	Magic    uint16    // of the optional header: 0x10b PE32, 0x20b PE32+
	Size     int64     // of the file, in bytes
	Sections []Section // in the order of their offsets in the file; no two overlap or share a name

	Headers      int64 // SizeOfHeaders
	Checksum     int64 // offset of the 4-byte CheckSum field
	Certificates int64 // offset of the 8-byte entry of the certificate table in the data directories; 0 if the image has none
	CertOffset   int64 // where the certificate table lies in the file; 0 if there is none
	CertSize     int64 // its length in bytes
}

// Section is one section of an image.
type Section struct {
	Name    string
	Offset  int64 // of its data in the file
	Size    int64 // bytes of data that belong to it: the smaller of Virtual and Raw
	Virtual int64 // VirtualSize: what systemd-stub measures; bytes above Raw are zero in memory
	Raw     int64 // SizeOfRawData: Virtual rounded up to the file alignment
	Address int64 // VirtualAddress
}

// Section returns the section of the given name.
func (im Image) Section(name string) (Section, bool) {
	for _, s := range im.Sections {
		if s.Name == name {
			return s, true
		}
	}
	return Section{}, false
}

// Reader returns a reader of the section's Size bytes of file r.
func (s Section) Reader(r io.ReaderAt) *io.SectionReader {
	return io.NewSectionReader(r, s.Offset, s.Size)
}

// Offsets and lengths of PE headers (PE/COFF specification, revision 11).
const (
	dosLength      = 64
	lfanewOffset   = 0x3c
	coffLength     = 4 + 20 // signature and COFF file header
	sectionLength  = 40
	magicPE32      = 0x10b
	magicPE32Plus  = 0x20b
	certificateDir = 4
)

// Parse reads the headers of the PE file in the first size bytes of r. Errors
// are ErrFormat or those of r.
func Parse(r io.ReaderAt, size int64) (Image, error) {
	h := headers{r: r, size: size}
	im := Image{Size: size}
	pe, err := h.findPE()
	if err != nil {
		return Image{}, err
	}
	coff, err := h.read(pe, coffLength, "COFF header")
	if err != nil {
		return Image{}, err
	}
	if string(coff[:4]) != "PE\x00\x00" {
		return Image{}, fmt.Errorf("%w: no PE signature at %d", ErrFormat, pe)
	}
	im.Machine = Machine(binary.LittleEndian.Uint16(coff[4:]))
	count := int(binary.LittleEndian.Uint16(coff[6:]))
	optional := int64(binary.LittleEndian.Uint16(coff[20:]))
	if err := h.optional(&im, pe+coffLength, optional); err != nil {
		return Image{}, err
	}
	if err := h.sections(&im, pe+coffLength+optional, count); err != nil {
		return Image{}, err
	}
	return im, im.check()
}

type headers struct {
	r    io.ReaderAt
	size int64
}

func (h headers) read(off, n int64, what string) ([]byte, error) {
	if off < 0 || n < 0 || off+n > min(h.size, MaxHeaders) {
		return nil, fmt.Errorf("%w: %s at %d, %d bytes, is not within the first %d bytes", ErrFormat, what, off, n, min(h.size, MaxHeaders))
	}
	b := make([]byte, n)
	if _, err := h.r.ReadAt(b, off); err != nil && !(errors.Is(err, io.EOF) && off+n == h.size) {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return b, nil
}

func (h headers) findPE() (int64, error) {
	dos, err := h.read(0, dosLength, "DOS header")
	if err != nil {
		return 0, err
	}
	if string(dos[:2]) != "MZ" {
		return 0, fmt.Errorf("%w: no MZ at its head", ErrFormat)
	}
	pe := int64(binary.LittleEndian.Uint32(dos[lfanewOffset:]))
	if pe < dosLength {
		return 0, fmt.Errorf("%w: PE header at %d overlaps the DOS header", ErrFormat, pe)
	}
	return pe, nil
}

// optional reads what is needed of the optional header and its directories.
func (h headers) optional(im *Image, off, n int64) error {
	b, err := h.read(off, n, "optional header")
	if err != nil {
		return err
	}
	if n < 2 {
		return fmt.Errorf("%w: no optional header", ErrFormat)
	}
	im.Magic = binary.LittleEndian.Uint16(b)
	dirs, ok := map[uint16]int64{magicPE32: 96, magicPE32Plus: 112}[im.Magic]
	if !ok || n < dirs {
		return fmt.Errorf("%w: optional header of %d bytes with magic 0x%x", ErrFormat, n, im.Magic)
	}
	im.Headers = int64(binary.LittleEndian.Uint32(b[60:]))
	im.Checksum = off + 64
	count := int64(binary.LittleEndian.Uint32(b[dirs-4:]))
	if count > (n-dirs)/8 {
		return fmt.Errorf("%w: %d data directories in an optional header of %d bytes", ErrFormat, count, n)
	}
	if count <= certificateDir {
		return nil
	}
	entry := dirs + 8*certificateDir
	im.Certificates = off + entry
	im.CertOffset = int64(binary.LittleEndian.Uint32(b[entry:]))
	im.CertSize = int64(binary.LittleEndian.Uint32(b[entry+4:]))
	return nil
}

func (h headers) sections(im *Image, off int64, count int) error {
	if count == 0 || count > MaxSections {
		return fmt.Errorf("%w: %d sections: need 1 to %d", ErrFormat, count, MaxSections)
	}
	table, err := h.read(off, int64(count)*sectionLength, "section table")
	if err != nil {
		return err
	}
	if end := off + int64(len(table)); im.Headers < end || im.Headers > h.size {
		return fmt.Errorf("%w: headers of %d bytes: the section table ends at %d, the file at %d", ErrFormat, im.Headers, end, h.size)
	}
	for e := range slices.Chunk(table, sectionLength) {
		s, err := parseSection(e)
		if err != nil {
			return err
		}
		im.Sections = append(im.Sections, s)
	}
	slices.SortStableFunc(im.Sections, func(a, b Section) int { return cmp.Compare(a.Offset, b.Offset) })
	return nil
}

func parseSection(e []byte) (Section, error) {
	name := e[:8]
	for len(name) > 0 && name[len(name)-1] == 0 {
		name = name[:len(name)-1]
	}
	for _, c := range name {
		if c < 0x21 || c > 0x7e {
			return Section{}, fmt.Errorf("%w: section name %q", ErrFormat, name)
		}
	}
	if len(name) == 0 {
		return Section{}, fmt.Errorf("%w: section without a name", ErrFormat)
	}
	s := Section{
		Name:    string(name),
		Virtual: int64(binary.LittleEndian.Uint32(e[8:])),
		Address: int64(binary.LittleEndian.Uint32(e[12:])),
		Raw:     int64(binary.LittleEndian.Uint32(e[16:])),
		Offset:  int64(binary.LittleEndian.Uint32(e[20:])),
	}
	s.Size = min(s.Virtual, s.Raw)
	return s, nil
}

// check tells whether all that the headers point at is inside the file, and
// no byte or name belongs to two sections.
func (im Image) check() error {
	seen := map[string]bool{}
	end := im.Headers
	for _, s := range im.Sections {
		if seen[s.Name] {
			return fmt.Errorf("%w: section %s stands twice", ErrFormat, s.Name)
		}
		seen[s.Name] = true
		if s.Raw == 0 {
			continue
		}
		if s.Offset < end || s.Offset+s.Raw > im.Size {
			return fmt.Errorf("%w: section %s at %d, %d bytes: overlaps what ends at %d, or ends after the file's %d", ErrFormat, s.Name, s.Offset, s.Raw, end, im.Size)
		}
		end = s.Offset + s.Raw
	}
	if im.CertSize == 0 {
		return nil
	}
	if im.CertOffset < end || im.CertOffset+im.CertSize > im.Size {
		return fmt.Errorf("%w: certificate table at %d, %d bytes: overlaps what ends at %d, or ends after the file's %d", ErrFormat, im.CertOffset, im.CertSize, end, im.Size)
	}
	return nil
}
