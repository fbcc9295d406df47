package images

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"
)

// initramfs writes the cpio archive with the agent as /init and the board's
// kernel modules, compressed as the kernel can read it.
func (b build) initramfs(ctx context.Context) error {
	agent, err := os.ReadFile(b.spec.Agent)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	records := []cpio.Record{cpio.StaticFile("init", string(agent), 0o755)}
	for _, dir := range []string{"dev", "proc", "sys", "run", "mnt", "modules"} {
		records = append(records, cpio.Directory(dir, 0o755))
	}
	modules, err := b.modules(ctx)
	if err != nil {
		return fmt.Errorf("modules: %w", err)
	}
	archive, err := pack(append(records, modules...))
	if err != nil {
		return err
	}
	raw := b.path("initramfs")
	if err := os.WriteFile(raw, archive, 0o644); err != nil {
		return err
	}
	// The kernel's decoder knows no CRC64, and threads would change the blocks.
	return run(ctx, b.work, "xz", "--check=crc32", "--threads=1", "-9", raw)
}

// pack writes records as a newc archive that depends on nothing but them.
func pack(records []cpio.Record) ([]byte, error) {
	var buf bytes.Buffer
	w := cpio.Newc.Writer(&buf)
	for i, r := range records {
		r.Ino, r.MTime, r.UID, r.GID = uint64(i+1), 0, 0, 0
		if err := w.WriteRecord(r); err != nil {
			return nil, fmt.Errorf("cpio record %s: %w", r.Name, err)
		}
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// modules returns the board's kernel modules, named so that their order is
// the order in which they can be inserted.
func (b build) modules(ctx context.Context) ([]cpio.Record, error) {
	version, err := b.kernelVersion()
	if err != nil {
		return nil, err
	}
	list, err := fs.ReadFile(b.board, "modules")
	if err != nil {
		return nil, err
	}
	root, err := b.moduleTree(ctx, version)
	if err != nil {
		return nil, err
	}
	var records []cpio.Record
	seen := map[string]bool{}
	for _, name := range words(string(list)) {
		out, err := output(ctx, b.work, "modprobe", "-S", version, "-d", root, "--show-depends", name)
		if err != nil {
			return nil, err
		}
		for _, file := range insmods(string(out)) {
			if seen[file] {
				continue
			}
			seen[file] = true
			data, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			path := fmt.Sprintf("modules/%03d-%s", len(seen), filepath.Base(file))
			records = append(records, cpio.StaticFile(path, string(data), 0o644))
		}
	}
	return records, nil
}

// moduleTree returns a folder with lib/modules/version as modprobe wants it.
// The kernel's own folder may be shared, so the dependency lists are made in a copy of links.
func (b build) moduleTree(ctx context.Context, version string) (string, error) {
	dir := b.path("kmod/lib/modules/" + version)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	source := filepath.Join(b.spec.Kernel, "lib/modules", version)
	for _, name := range []string{"kernel", "modules.order", "modules.builtin", "modules.builtin.modinfo"} {
		target, err := filepath.Abs(filepath.Join(source, name))
		if err != nil {
			return "", err
		}
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			return "", err
		}
	}
	root := b.path("kmod")
	return root, run(ctx, b.work, "depmod", "-b", root, version)
}

func (b build) kernelVersion() (string, error) {
	found, err := filepath.Glob(filepath.Join(b.spec.Kernel, "boot/vmlinuz-*"))
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%d kernels in %s/boot: need one; run scripts/setup", len(found), b.spec.Kernel)
	}
	return strings.TrimPrefix(filepath.Base(found[0]), "vmlinuz-"), nil
}

func (b build) kernel() (string, error) {
	version, err := b.kernelVersion()
	return filepath.Join(b.spec.Kernel, "boot/vmlinuz-"+version), err
}

// insmods returns the files of modprobe's lines "insmod FILE ".
func insmods(text string) []string {
	var files []string
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "insmod" {
			files = append(files, f[1])
		}
	}
	return files
}

// words returns the words of a list file without its comments.
func words(text string) []string {
	var ws []string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		ws = append(ws, strings.Fields(line)...)
	}
	return ws
}
