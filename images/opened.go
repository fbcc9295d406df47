package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"

	"waxseal/boot"
	"waxseal/boot/uki"
	"waxseal/hw/board"
	"waxseal/hw/flash"
	"waxseal/measure"
)

// opened is an image that was not booted, as boot.Measure reads it.
type opened struct {
	disk     *flash.Device
	regions  map[string]flash.Region // by volume
	offsets  map[string]int64        // of the volumes on the disk, in bytes
	trees    map[string]*boot.DirTree
	work     string            // where the file systems were unpacked
	sections map[string][]byte // of the UKI
	agent    []byte            // the executable inside its initramfs
	modules  []string          // the kernel modules inside its initramfs, sorted
}

var _ boot.Source = (*opened)(nil)

// open reads the image in dir. close must be called on what it returns.
func open(ctx context.Context, dir string) (*opened, error) {
	o := &opened{regions: map[string]flash.Region{}, offsets: map[string]int64{}, trees: map[string]*boot.DirTree{}}
	if err := o.open(ctx, dir); err != nil {
		return nil, errors.Join(fmt.Errorf("image %s: %w", dir, err), o.close())
	}
	return o, nil
}

func (o *opened) open(ctx context.Context, dir string) (err error) {
	if o.work, err = os.MkdirTemp("", "waxseal-image-"); err != nil {
		return err
	}
	if o.disk, err = flash.Open(filepath.Join(dir, DiskFile)); err != nil {
		return err
	}
	partitions, err := flash.GPT(o.disk, o.disk.Size)
	if err != nil {
		return err
	}
	for _, volume := range []string{board.ESP, board.Root, board.Conf} {
		p, err := flash.Find(partitions, volume)
		if err != nil {
			return err
		}
		o.regions[volume], o.offsets[volume] = p.Region(o.disk), p.Offset
	}
	if err := unpackFAT(ctx, filepath.Join(dir, DiskFile), o.offsets[board.ESP], o.tree(board.ESP)); err != nil {
		return fmt.Errorf("ESP: %w", err)
	}
	if err := o.unpackExt4(ctx, board.Conf); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	for _, volume := range []string{board.ESP, board.Conf} {
		if o.trees[volume], err = boot.OpenTree(o.tree(volume)); err != nil {
			return err
		}
	}
	return o.readUKI(ctx)
}

func (o *opened) tree(volume string) string { return filepath.Join(o.work, volume) }

func (o *opened) close() error {
	var errs []error
	for _, t := range o.trees {
		if t != nil {
			errs = append(errs, t.Close())
		}
	}
	if o.disk != nil {
		errs = append(errs, o.disk.Close())
	}
	if o.work != "" {
		errs = append(errs, os.RemoveAll(o.work))
	}
	return errors.Join(errs...)
}

// unpackFAT copies the FAT file system at offset bytes in img to the folder to.
func unpackFAT(ctx context.Context, img string, offset int64, to string) error {
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	img, err := filepath.Abs(img)
	if err != nil {
		return err
	}
	return run(ctx, to, "mcopy", "-s", "-n", "-i", fmt.Sprintf("%s@@%d", img, offset), "::/", to)
}

// unpackExt4 copies a volume's ext4 file system to its folder. What a router
// that lost its power left in the journal is replayed first, in the copy, as
// the kernel will do before it measures.
func (o *opened) unpackExt4(ctx context.Context, volume string) error {
	img := filepath.Join(o.work, volume+".img")
	f, err := os.Create(img)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(o.regions[volume].Size); err != nil {
		return err
	}
	if err := copySparse(f, 0, o.regions[volume].Reader()); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := replayJournal(ctx, img); err != nil {
		return err
	}
	if err := os.Mkdir(o.tree(volume), 0o755); err != nil {
		return err
	}
	return run(ctx, o.work, "debugfs", "-R", fmt.Sprintf("rdump / %q", o.tree(volume)), img)
}

// replayJournal brings an ext4 image into the state that its journal promises.
func replayJournal(ctx context.Context, img string) error {
	err := run(ctx, filepath.Dir(img), "e2fsck", "-f", "-y", img)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 { // errors were corrected: e2fsck(8)
		return nil
	}
	return err
}

// readUKI takes the UKI apart, down to the agent in its initramfs.
func (o *opened) readUKI(ctx context.Context) error {
	data, err := os.ReadFile(filepath.Join(o.tree(board.ESP), "EFI/Linux", UKI+".efi"))
	if err != nil {
		return err
	}
	image, err := uki.Parse(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return fmt.Errorf("UKI: %w", err)
	}
	o.sections = map[string][]byte{}
	for _, s := range image.Sections {
		o.sections[s.Name] = data[s.Offset : s.Offset+s.Size]
	}
	if err := o.readInitramfs(ctx); err != nil {
		return fmt.Errorf("initramfs: %w", err)
	}
	return nil
}

// readInitramfs finds the agent and the kernel modules in the initramfs, which
// is compressed with xz. What an attacker appended as a second archive is not
// looked into: it changes the digest of the whole.
func (o *opened) readInitramfs(ctx context.Context) error {
	packed := filepath.Join(o.work, "initramfs.xz")
	if err := os.WriteFile(packed, o.sections[uki.Initrd], 0o600); err != nil {
		return err
	}
	archive, err := output(ctx, o.work, "xz", "--decompress", "--stdout", "--single-stream", packed)
	if err != nil {
		return err
	}
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(archive)))
	if err != nil {
		return err
	}
	for _, r := range records {
		if name, ok := moduleName(r.Name); ok {
			o.modules = append(o.modules, name)
		}
		if r.Name != "init" {
			continue
		}
		if o.agent, err = io.ReadAll(io.NewSectionReader(r, 0, int64(r.FileSize))); err != nil {
			return err
		}
	}
	if o.agent == nil {
		return errors.New("no init in it")
	}
	slices.Sort(o.modules)
	return nil
}

// moduleName returns what the kernel calls the module in a file such as
// modules/03-virtio-rng.ko: its name with underscores.
func moduleName(path string) (string, bool) {
	file, ok := strings.CutPrefix(path, "modules/")
	_, name, numbered := strings.Cut(strings.TrimSuffix(file, ".ko"), "-")
	return strings.ReplaceAll(name, "-", "_"), ok && numbered
}

// Cmdline implements boot.Source: the stub hands its own section to the kernel.
func (o *opened) Cmdline(context.Context) ([]byte, error) { return o.sections[uki.Cmdline], nil }

// Agent implements boot.Source.
func (o *opened) Agent(context.Context) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(o.agent)), nil
}

// Serial implements boot.Source.
func (o *opened) Serial(context.Context) (string, error) { return "", boot.ErrDeviceOnly }

// Modules implements boot.Source: the agent inserts what its initramfs holds,
// and nothing else runs before it.
func (o *opened) Modules(context.Context) ([]string, error) { return o.modules, nil }

// Programs implements boot.Source: nothing in the initramfs loads BPF programs.
func (o *opened) Programs(context.Context) ([]string, error) { return nil, nil }

// FirmwarePCRs implements boot.Source.
func (o *opened) FirmwarePCRs(context.Context) ([]measure.Digest, error) {
	return nil, boot.ErrDeviceOnly
}

// Volume implements boot.Source.
func (o *opened) Volume(_ context.Context, name string) (io.ReaderAt, int64, error) {
	r, ok := o.regions[name]
	if !ok {
		return nil, 0, fmt.Errorf("volume %s: %w", name, fs.ErrNotExist)
	}
	return r, r.Size, nil
}

// Tree implements boot.Source.
func (o *opened) Tree(_ context.Context, name string) (fs.FS, error) {
	t, ok := o.trees[name]
	if !ok {
		return nil, fmt.Errorf("tree %s: %w", name, fs.ErrNotExist)
	}
	return t, nil
}
