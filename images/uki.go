package images

import (
	"context"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// UKI is the name of the unified kernel image on the ESP, without ".efi".
const UKI = "waxseal"

// uki joins the stub, kernel, initramfs and command line to one PE file
// (UAPI Group Specifications, UKI).
func (b build) uki(ctx context.Context) error {
	kernel, err := b.kernel()
	if err != nil {
		return err
	}
	for _, name := range []string{"cmdline", "os-release"} {
		text, err := fs.ReadFile(b.board, name)
		if err != nil {
			return err
		}
		if name == "cmdline" {
			text = []byte(strings.TrimSpace(string(text)))
		}
		if err := os.WriteFile(b.path(name), text, 0o644); err != nil {
			return err
		}
	}
	return AssembleUKI(ctx, filepath.Join(SystemdBoot, "linuxx64.efi.stub"), []UKISection{
		{".osrel", b.path("os-release")},
		{".cmdline", b.path("cmdline")},
		{".initrd", b.path("initramfs.xz")},
		{".linux", kernel},
	}, b.path("uki.efi"))
}

// UKISection is a section of a UKI and the file that holds its bytes.
type UKISection struct{ Name, File string }

// AssembleUKI appends sections to the stub and writes the image to out.
func AssembleUKI(ctx context.Context, stub string, sections []UKISection, out string) error {
	next, err := firstFreeAddress(stub)
	if err != nil {
		return fmt.Errorf("stub %s: %w", stub, err)
	}
	argv := []string{"objcopy"}
	for _, s := range sections {
		info, err := os.Stat(s.File)
		if err != nil {
			return err
		}
		argv = append(argv, "--add-section", s.Name+"="+s.File,
			"--change-section-vma", fmt.Sprintf("%s=0x%x", s.Name, next))
		next = alignUp(next + info.Size())
	}
	if err := run(ctx, filepath.Dir(out), append(argv, stub, out)...); err != nil {
		return err
	}
	return dropBuildTime(out)
}

// dropBuildTime clears TimeDateStamp, and CheckSum which depends on it, in the
// headers of a PE file (PE Format, COFF File Header and Optional Header).
// UEFI reads neither.
func dropBuildTime(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var at [4]byte
	if _, err := f.ReadAt(at[:], 0x3c); err != nil {
		return err
	}
	header := int64(binary.LittleEndian.Uint32(at[:]))
	const coff, optional = 4, 4 + 20
	for _, offset := range []int64{header + coff + 4, header + optional + 64} {
		if _, err := f.WriteAt(make([]byte, 4), offset); err != nil {
			return err
		}
	}
	return f.Close()
}

func firstFreeAddress(stub string) (int64, error) {
	f, err := pe.Open(stub)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	header, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok {
		return 0, errors.New("not a 64-bit PE file")
	}
	var end int64
	for _, s := range f.Sections {
		end = max(end, int64(s.VirtualAddress)+int64(s.VirtualSize))
	}
	return alignUp(int64(header.ImageBase) + end), nil
}

// alignUp rounds n up to the section alignment of 64-bit PE files made here.
func alignUp(n int64) int64 { return (n + 0xffff) &^ 0xffff }
