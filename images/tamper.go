package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"

	"waxseal/boot/uki"
	"waxseal/hw/board"
)

// Tampering is one change that an attacker could make to an image. The
// router still boots and forwards with it.
type Tampering struct {
	Name    string // as on the command line
	Does    string // in a sentence
	Culprit string // the one component that a verdict must name
	change  func(tampered, context.Context) error
}

// Tamperings are the changes that the demonstration and the tests make, one
// at a time.
var Tamperings = []Tampering{
	{"bootloader", "one letter of systemd-boot's DOS stub is changed", loaderName, tampered.bootloader},
	{"kernel", "one letter inside the kernel is changed", kernelName, tampered.kernel},
	{"initramfs", "a file is added to the initramfs", initramfsName, tampered.initramfs},
	{"cmdline", "an option is added to the kernel command line", cmdlineName, tampered.cmdline},
	{"rootfs", "a program is added to the root file system", "rootfs/squashfs/root", tampered.rootfs},
	{"config", "the BGP peer's AS number is changed", "config/frr/frr.conf?c=frr1", tampered.config},
	{"startup", "a command is added to rc.local", "startup/conf/etc/rc.local?c=text1", tampered.startup},
	{"policy", "rc.local is taken out of the measurement policy", "policy/measure", tampered.policy},
}

// Tamper copies the image in dir to the new folder out and makes one change
// to the copy.
func Tamper(ctx context.Context, dir, name, out string) (Tampering, error) {
	i := slices.IndexFunc(Tamperings, func(t Tampering) bool { return t.Name == name })
	if i < 0 {
		return Tampering{}, fmt.Errorf("no tampering is called %q: see waxseal-image tamper --help", name)
	}
	return Tamperings[i], change(ctx, dir, out, Tamperings[i].change)
}

// Edit copies the image in dir to the new folder out and changes one file of
// a volume (board.ESP or board.Conf) in the copy.
func Edit(ctx context.Context, dir, out, volume, path string, edit func([]byte) ([]byte, error)) error {
	return change(ctx, dir, out, func(t tampered, ctx context.Context) error {
		switch volume {
		case board.ESP:
			return t.editESP(ctx, path, edit)
		case board.Conf:
			return t.editConf(ctx, path, edit)
		}
		return fmt.Errorf("files of volume %q cannot be changed", volume)
	})
}

func change(ctx context.Context, dir, out string, f func(tampered, context.Context) error) error {
	out, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	if err := copyImage(dir, out); err != nil {
		return fmt.Errorf("copy %s: %w", dir, err)
	}
	image, err := open(ctx, out)
	if err != nil {
		return err
	}
	defer image.close()
	return f(tampered{image, out, filepath.Join(out, DiskFile)}, ctx)
}

// tampered is a copy of an image that is being changed.
type tampered struct {
	*opened
	dir  string
	file string // the disk image, writable
}

func (t tampered) bootloader(ctx context.Context) error {
	return t.editESP(ctx, "EFI/BOOT/BOOTX64.EFI", replace("This program cannot be run in DOS mode", "This program kannot be run in DOS mode"))
}

func (t tampered) kernel(ctx context.Context) error {
	return t.editSection(ctx, uki.Linux, replace("No setup signature found", "No setup signature fount"))
}

// initramfs appends a second archive, which the kernel unpacks over the first.
func (t tampered) initramfs(ctx context.Context) error {
	extra, err := pack([]cpio.Record{cpio.Directory("etc", 0o755), cpio.StaticFile("etc/implant", "phone home\n", 0o644)})
	if err != nil {
		return err
	}
	return t.editSection(ctx, uki.Initrd, func(b []byte) ([]byte, error) {
		padded := append(bytes.Clone(b), make([]byte, -len(b)&3)...)
		return append(padded, extra...), nil
	})
}

func (t tampered) cmdline(ctx context.Context) error {
	return t.editSection(ctx, uki.Cmdline, func(b []byte) ([]byte, error) { return append(bytes.Clone(b), " mitigations=off"...), nil })
}

func (t tampered) rootfs(ctx context.Context) error {
	squashed, tree := filepath.Join(t.work, "old.img"), filepath.Join(t.work, "tree")
	if err := t.save(board.Root, squashed); err != nil {
		return err
	}
	if err := run(ctx, t.work, "unsquashfs", "-quiet", "-no-progress", "-dest", tree, squashed); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tree, "bin/implant"), []byte("#!/bin/gosh\n"), 0o755); err != nil {
		return err
	}
	changed := filepath.Join(t.work, "new.img")
	if err := SquashFS(ctx, tree, changed); err != nil {
		return err
	}
	return t.load(board.Root, changed)
}

func (t tampered) config(ctx context.Context) error {
	return t.editConf(ctx, "etc/frr/frr.conf", replace("remote-as 65002", "remote-as 65666"))
}

func (t tampered) startup(ctx context.Context) error {
	return t.editConf(ctx, "etc/rc.local", func(b []byte) ([]byte, error) { return append(b, "echo implant\n"...), nil })
}

func (t tampered) policy(ctx context.Context) error {
	return t.editESP(ctx, policyPath, replace(`"etc/rc.local", `, ""))
}

type edit func([]byte) ([]byte, error)

// replace returns an edit of the first place where old stands.
func replace(old, new string) edit {
	return func(b []byte) ([]byte, error) {
		if !bytes.Contains(b, []byte(old)) {
			return nil, fmt.Errorf("%q is not in it", old)
		}
		return bytes.Replace(b, []byte(old), []byte(new), 1), nil
	}
}

// editESP changes a file of the ESP.
func (t tampered) editESP(ctx context.Context, path string, e edit) error {
	file, err := t.edited(board.ESP, path, e)
	if err != nil {
		return err
	}
	return putESP(ctx, t.file, t.offsets[board.ESP], file, path)
}

// editSection changes a section of the UKI, and what a direct start takes instead.
func (t tampered) editSection(ctx context.Context, section string, e edit) error {
	changed, err := e(t.sections[section])
	if err != nil {
		return fmt.Errorf("UKI section %s: %w", section, err)
	}
	sections := maps.Clone(t.sections)
	sections[section] = changed
	file := filepath.Join(t.work, "changed.efi")
	if err := t.assemble(ctx, sections, file); err != nil {
		return err
	}
	if err := putESP(ctx, t.file, t.offsets[board.ESP], file, "EFI/Linux/"+UKI+".efi"); err != nil {
		return err
	}
	direct := map[string]string{uki.Linux: KernelFile, uki.Initrd: InitramfsFile, uki.Cmdline: CmdlineFile}
	return os.WriteFile(filepath.Join(t.dir, direct[section]), changed, 0o644)
}

func (t tampered) assemble(ctx context.Context, sections map[string][]byte, out string) error {
	var parts []UKISection
	for _, name := range []string{uki.OSRel, uki.Cmdline, uki.Initrd, uki.Linux} {
		file := filepath.Join(t.work, "section"+name)
		if err := os.WriteFile(file, sections[name], 0o600); err != nil {
			return err
		}
		parts = append(parts, UKISection{name, file})
	}
	return AssembleUKI(ctx, filepath.Join(SystemdBoot, "linuxx64.efi.stub"), parts, out)
}

// editConf changes a file of the configuration partition.
func (t tampered) editConf(ctx context.Context, path string, e edit) error {
	file, err := t.edited(board.Conf, path, e)
	if err != nil {
		return err
	}
	img := filepath.Join(t.work, "conf.img")
	if err := debugfs(ctx, img, fmt.Sprintf("rm /%s\nwrite %q /%s\n", path, file, path)); err != nil {
		return err
	}
	return t.load(board.Conf, img)
}

// edited returns the name of a file with the changed content of a volume's file.
func (t tampered) edited(volume, path string, e edit) (string, error) {
	b, err := os.ReadFile(filepath.Join(t.tree(volume), path))
	if err != nil {
		return "", err
	}
	b, err = e(b)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	file := filepath.Join(t.work, "changed")
	return file, os.WriteFile(file, b, 0o644)
}

// save copies a volume to a file.
func (t tampered) save(volume, file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(f, t.regions[volume].Reader())
	return errors.Join(err, f.Close())
}

// load writes a file over a volume, and zeros to the volume's end.
func (t tampered) load(volume, file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	room := t.regions[volume].Size
	if int64(len(b)) > room {
		return fmt.Errorf("%s: %d bytes do not fit into volume %s of %d", filepath.Base(file), len(b), volume, room)
	}
	f, err := os.OpenFile(t.file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(append(b, make([]byte, room-int64(len(b)))...), t.offsets[volume]); err != nil {
		return err
	}
	return f.Close()
}

// copyImage copies the files of an image, holes included.
func copyImage(dir, out string) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if err := copySparseFile(filepath.Join(dir, e.Name()), filepath.Join(out, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func copySparseFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := out.Truncate(info.Size()); err != nil {
		return err
	}
	if err := copySparse(out, 0, in); err != nil {
		return err
	}
	return out.Close()
}
